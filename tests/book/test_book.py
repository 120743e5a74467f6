"""The built book: complete, honest about what it shows, and without a request to another machine."""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import execute  # noqa: E402  (scripts of the book, not a package)
import results  # noqa: E402
import stage  # noqa: E402
from staged_book import executed, fail, write_results  # noqa: E402

# One build serves all tests of this file, so they have to run in one process.
pytestmark = pytest.mark.xdist_group("book")


def test_the_chapter_on_baselines_has_every_protocol_from_its_declaration(staged: Path) -> None:
    chapter = (staged / "baselines.md").read_text()
    for name, (epochs, batch, rate) in {
        "DeiT": (300, 1024, "0.001"),
        "T2T": (310, 512, "0.001"),
        "CvT": (300, 2048, "0.002"),
    }.items():
        assert f"| {name} | {epochs} | {batch} | {rate} |" in chapter
    assert "https://github.com/yhlleo/VTs-Drloc" in chapter and "stops after 100" in chapter and "<!--" not in chapter


class Page(HTMLParser):
    """Ids of a page, where its links lead, what it loads, and its inline scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.inline = ""
        self._inline = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self._inline = tag in ("script", "style")
        self.inline += values.get("style", "")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "href" in values:
            self.loads.append(values["href"])
        self.loads += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]
        if values.get("http-equiv", "").lower() == "refresh":
            self.links.append(values["content"].split("url=")[1])

    def handle_endtag(self, tag: str) -> None:
        self._inline = False

    def handle_data(self, data: str) -> None:
        if self._inline:
            self.inline += data


def is_outside(address: str) -> bool:
    return not address.startswith("data:") and bool(urlsplit(address).scheme or urlsplit(address).netloc)


def test_pages_load_nothing_from_elsewhere(book: Path) -> None:
    pages = list(book.glob("*.html"))
    assert len(pages) >= 8
    for path in pages:
        page = Page(path)
        assert page.loads or path.name == "index.html"  # which only leads to the first page
        assert not [load for load in page.loads if is_outside(load)], path.name
        assert not re.search(r"https?://", page.inline), path.name
        for load in page.loads:
            if not load.startswith("data:"):
                assert (path.parent / unquote(urlsplit(load).path)).exists(), f"{path.name} loads {load}, which is not there"


def test_stylesheets_and_scripts_load_nothing_from_elsewhere(book: Path) -> None:
    for path in book.glob("**/*.css"):
        assert not re.search(r"(@import\s+|url\()\s*(url\()?[\"']?\s*(https?:)?//", path.read_text()), path.name
    places = r"unpkg\.com|jsdelivr\.net|cdnjs\.cloudflare\.com|googleapis\.com|gstatic\.com|google-analytics"
    for path in book.glob("**/*.js"):
        # MathJax knows where speech rules are, for a menu that _config.yml turns off.
        assert path.name == "tex-svg.js" or not re.search(places, path.read_text()), path.name


def test_links_within_the_book_lead_somewhere(book: Path) -> None:
    pages = {path: Page(path) for path in book.glob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            if is_outside(link) or link.startswith("#top"):
                continue
            target = (path.parent / unquote(urlsplit(link).path)).resolve() if urlsplit(link).path else path
            assert target.exists(), f"{path.name}: {link}"
            anchor = unquote(urlsplit(link).fragment)
            assert not anchor or target not in pages or anchor in pages[target].ids, f"{path.name}: {link}"


def test_formulas_are_typeset_by_a_script_of_the_book(book: Path) -> None:
    page = (book / "method.html").read_text()
    assert "mathjax/tex-svg.js" in page and '"enableMenu": false' in page
    assert (book / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 1_000_000


def test_each_page_says_whose_results_it_shows(book: Path) -> None:
    pages = ((book / f"{name}.html").read_text() for name in ("table1", "table2", "table2-tiny"))
    missing, reference, yours = (re.sub(r"<[^>]*>", "", page) for page in pages)
    assert "There are no results yet" in missing and "Reference results" not in missing
    assert "Reference results" in reference and "CPU of a test" in reference and "0123456" in reference
    assert "Warning" not in reference
    assert "Your own results" in yours and "has changed since" in yours and "ZeroDivisionError: division by zero" in yours


def test_status_lists_every_page_with_what_stands_behind_it(staged: Path, book: Path) -> None:
    lines = [line.strip("| ").split(" | ") for line in (staged / "status.md").read_text().splitlines() if line.startswith("|")]
    head, _, *rows = lines
    missing, reference, yours = (dict(zip(head, row, strict=True)) for row in rows if re.match(r"\[table[12]\]", row[0]))
    assert [row["page"] for row in (missing, reference, yours)] == [
        "[table1](table1)",
        "[table2](table2)",
        "[table2](table2-tiny)",
    ]
    assert missing["results"].startswith("**none**") and missing["device"] == "—"
    assert reference["results"] == "reference" and yours["results"].startswith("**yours**: The last run failed")
    behind = {"preset": "laptop", "seeds": "2", "device": "CPU of a test", "torch": "2.99", "training": "1 min 01 s"}
    assert behind | {"executed": "2026-01-31", "commit": "0123456"} == {
        name: reference[name] for name in (*behind, "executed", "commit")
    }
    assert "CPU of a test" in (book / "status.html").read_text()


def test_no_cell_without_execution_is_shown_without_a_warning(staged: Path) -> None:
    seen = {True: 0, False: 0}
    for path in staged.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        whole = stage.is_whole(notebook)
        warned = any(cell.cell_type == "markdown" and ":::{warning}" in cell.source for cell in notebook.cells)
        assert whole or warned, path.name
        seen[whole] += 1
    assert seen[True] and seen[False]


def pages_of(source: Path, *, runs: Path) -> list[stage.Page]:
    everything, _ = results.collect(runs, (source.stem,))
    return stage.find_pages(source, runs=runs, everything=everything)


def test_readers_results_come_before_the_reference(tmp_path: Path, source: Path) -> None:
    write_results(tmp_path / "reference" / "laptop", tmp_path / "reference" / "store", executed(source))
    [page] = pages_of(source, runs=tmp_path)
    assert (page.whose, page.warnings) == (stage.REFERENCE, ())
    write_results(tmp_path / "laptop", tmp_path / "store", executed(source))
    [page] = pages_of(source, runs=tmp_path)
    assert (page.whose, page.warnings) == (stage.YOURS, ())


def test_a_notebook_that_stopped_half_way_is_not_shown(tmp_path: Path, source: Path) -> None:
    write_results(tmp_path / "reference" / "laptop", tmp_path / "reference" / "store", executed(source))
    half = executed(source)
    half.cells[-1].execution_count = None
    write_results(tmp_path / "laptop", tmp_path / "store", half)
    [page] = pages_of(source, runs=tmp_path)
    assert page.whose == stage.REFERENCE
    assert "your results was not executed to its end" in page.warnings[0]


def with_digest(notebook: nbformat.NotebookNode, results: Path) -> nbformat.NotebookNode:
    """As `execute` leaves it: with the digest of the CSV that it shows."""
    notebook.metadata["results"] = execute.digest(results)
    return notebook


@pytest.mark.parametrize("recorded", [True, False], ids=["digest", "age of the files alone"])
def test_a_table_that_was_run_without_its_notebook_is_told(tmp_path: Path, source: Path, recorded: bool) -> None:
    """From JupyterLab, or by `python -m sarlib`: both write the CSV and not the executed notebook."""
    folder = tmp_path / "laptop"
    write_results(folder, tmp_path / "store", executed(source))
    notebook, results = folder / "table2.ipynb", folder / "table2.csv"
    if recorded:
        nbformat.write(with_digest(executed(source), results), notebook)
    os.utime(notebook, (2000, 2000))
    os.utime(results, (1000, 1000))
    [page] = pages_of(source, runs=tmp_path)
    assert page.warnings == ()
    pd.DataFrame({"seed": [0, 1, 2], "key": "00ff"}).to_csv(results, index=False)
    [page] = pages_of(source, runs=tmp_path)
    assert page.record.seeds == "3", "the box of the page is the new table's"
    assert page.warnings == ("`table2.csv` was written anew since, with other results than those on this page.",)
    assert ":::{warning}" in stage.compose(page, source).cells[1].source


def test_a_table_that_was_run_again_with_the_same_results_is_no_other(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "laptop"
    write_results(folder, tmp_path / "store", executed(source))
    nbformat.write(with_digest(executed(source), folder / "table2.csv"), folder / "table2.ipynb")
    os.utime(folder / "table2.ipynb", (1000, 1000))
    assert pages_of(source, runs=tmp_path)[0].warnings == ()


def test_a_failure_is_told_beside_the_results_that_there_are(tmp_path: Path, source: Path) -> None:
    write_results(tmp_path / "reference" / "laptop", tmp_path / "reference" / "store", executed(source))
    fail(tmp_path / "laptop")
    [page] = pages_of(source, runs=tmp_path)
    assert page.whose == stage.REFERENCE
    assert page.warnings == ("The last run failed with `ZeroDivisionError: division by zero`.",)


def test_a_page_without_results_shows_what_is_declared_and_no_empty_section(tmp_path: Path, source: Path) -> None:
    [page] = pages_of(source, runs=tmp_path)
    texts = [cell.source for cell in stage.compose(page, source, out=tmp_path).cells if cell.cell_type == "markdown"]
    assert [text for text in texts if text.startswith("## ")] == ["## How it is done"]
    assert any("shapes-sketch, 500 images" in text and "ViT + SAR" in text for text in texts)


def test_text_that_was_edited_is_shown_above_the_results_that_there_are(tmp_path: Path, source: Path) -> None:
    write_results(tmp_path / "laptop", tmp_path / "store", executed(source))
    edited = nbformat.read(source, 4)
    edited.cells[0].source = "# Another text"
    nbformat.write(edited, tmp_path / source.name)
    [page] = pages_of(tmp_path / source.name, runs=tmp_path)
    assert (page.whose, page.warnings) == (stage.YOURS, ())
    assert stage.compose(page, tmp_path / source.name).cells[0].source == "# Another text"


def test_results_without_records_of_their_runs_are_shown_all_the_same(tmp_path: Path, source: Path) -> None:
    write_results(tmp_path / "laptop", tmp_path / "store", executed(source))
    (tmp_path / "store" / "00ff" / "result.json").unlink()
    [page] = pages_of(source, runs=tmp_path)
    assert page.record.devices == "unknown" and "unknown" in page.record.in_words()


def test_results_of_an_earlier_declaration_say_so_at_the_top_and_at_the_end(tmp_path: Path) -> None:
    """In every such page of the committed reference; one of today's declaration says nothing of it."""
    said = "of an earlier declaration: version 1, today 2; recipe.epochs 36, today 200"
    [page] = pages_of(stage.NOTEBOOKS / "table2.ipynb", runs=ROOT / "runs")
    if said not in page.earlier:
        pytest.skip("the reference of Table 2 is of today's declaration")
    _, top, *_, end = stage.compose(page, stage.NOTEBOOKS / "table2.ipynb").cells
    assert f"These results are {said}" in top.source and ":::{warning}" in top.source
    assert end.source.startswith(f"These results are {said}") and "`make table2` trains what is declared today" in end.source
    write_results(tmp_path / "laptop", tmp_path / "store", executed(stage.NOTEBOOKS / "table2.ipynb"))
    [page] = pages_of(stage.NOTEBOOKS / "table2.ipynb", runs=tmp_path)
    assert page.earlier == "" and page.warnings == ()
