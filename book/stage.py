"""Collect what the book is built from: the chapters, and for every source notebook what was really executed of it.

The reader's own executed notebooks come first, the reference ones stand in for them, and every page says which it shows. A
notebook that was not executed, whose last run failed, or whose source or results have changed since carries a warning on its
page and in the status chapter.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import markup
import nbformat
import recipes
import speed
import yaml
from execute import NOTEBOOKS, ROOT, digest, failed
from nbformat import NotebookNode
from record import Record, read_record

from sarlib import experiments, report
from sarlib.config import ConfigError
from sarlib.experiments.results import read_csv
from sarlib.runner.store import Store

BOOK = ROOT / "book"
MAIN_PRESET = "laptop"  # the one that a notebook's own page shows; other presets with results get a page below it
#: A cell of a frame that holds sentences; book.css lets these wrap and keeps numbers in one piece.
LONG_CELL = re.compile(r"<td>([^<]{29,})</td>")
KINDS = ("headline", "dose", "table", "figure", "appendix", "self_supervised", "multilabel", "future_work")
#: Folders whose files chapters quote, and where these find them.
QUOTED = {"sarlib": "sarlib", "tests": "tests", "book/examples": "examples"}
YOURS, REFERENCE, NOBODY = "yours", "reference", "none"
#: Cells that papermill adds to an executed notebook.
ADDED_TAGS = {"injected-parameters", "papermill-error-cell-tag"}


@dataclass(frozen=True)
class Page:
    """A notebook at a preset: whose execution is shown (`shown`, a path or None) and the warnings it must carry."""

    name: str
    preset: str
    whose: str
    shown: Path | None
    warnings: tuple[str, ...]
    record: Record | None
    earlier: str = ""  # in what these results are of another declaration than today's

    @property
    def file(self) -> str:
        return self.name if self.preset == MAIN_PRESET else f"{self.name}-{self.preset}"

    @property
    def command(self) -> str:
        return f"make {self.name}" + ("" if self.preset == MAIN_PRESET else f" PRESET={self.preset}")


def stage(out: Path, *, runs: Path, notebooks: Path = NOTEBOOKS) -> list[Page]:
    """Fill the folder `out` (replaced) with the book's sources for the results below `runs`; returns its notebook pages."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for pattern in ("_config.yml", "references.bib", "*.md"):
        for path in BOOK.glob(pattern):
            shutil.copy(path, out)
    shutil.copytree(BOOK / "_assets", out / "_assets")
    report.blobs().savefig(out / "_assets" / "blobs.svg", metadata={"Date": None})
    for folder, to in QUOTED.items():
        shutil.copytree(ROOT / folder, out / to, ignore=shutil.ignore_patterns("__pycache__"))
    _vendor_mathjax(out / "_assets" / "mathjax")

    pages = [page for source in _in_order(notebooks) for page in find_pages(source, runs=runs)]
    for page in pages:
        nbformat.write(compose(page, notebooks / f"{page.name}.ipynb"), out / f"{page.file}.ipynb")
    (out / "_toc.yml").write_text(yaml.safe_dump(_table_of_contents(pages), sort_keys=False), encoding="utf-8")
    _fill(out / "status.md", status_table(pages))
    _fill(out / "speed.md", speed.sections(runs))
    _fill(out / "baselines.md", recipes.section())
    return pages


def _fill(chapter: Path, made: str) -> None:
    """Put what was `made` in the place of the chapter's mark, `<!-- NAME -->` with the chapter's name."""
    mark, text = f"<!-- {chapter.stem} -->", chapter.read_text(encoding="utf-8")
    assert mark in text, f"{chapter.name} lacks {mark}"
    chapter.write_text(text.replace(mark, made), encoding="utf-8")


def find_pages(source: Path, *, runs: Path) -> list[Page]:
    """The page of the main preset, executed or not, and one for every other preset at which the notebook was run."""
    elsewhere = {path.parent.name for folder in (runs, runs / "reference") for path in folder.glob(f"*/{source.stem}.*ipynb")}
    presets = [MAIN_PRESET, *sorted(elsewhere - {MAIN_PRESET})]
    return [_find_page(source, preset, runs=runs) for preset in presets]


def _find_page(source: Path, preset: str, *, runs: Path) -> Page:
    mine = runs / preset / source.name
    candidates = (
        (YOURS, mine, runs / "store"),
        (REFERENCE, runs / "reference" / preset / source.name, runs / "reference" / "store"),
    )
    warnings = []
    if failed(mine).exists():
        warnings.append(f"The last run failed with {_error(failed(mine))}.")
    for whose, path, store in candidates:
        if path.exists():
            executed = nbformat.read(path, 4)
            if not is_whole(executed):
                warnings.append(
                    f"The notebook of {'your' if whose == YOURS else 'the reference'} results was not executed to its end."
                )
                continue
            if is_stale(executed, nbformat.read(source, 4)):
                warnings.append("The notebook has changed since these results were made.")
            if whose == YOURS and has_newer_results(path, executed):
                results = path.with_suffix(".csv").name
                warnings.append(f"`{results}` was written anew since, with other results than those on this page.")
            results = path.with_suffix(".csv")
            record = read_record(executed, results, store=store)
            earlier = _earlier(results, preset, store)
            if earlier:
                warnings.append(f"These results are {earlier}.")
            return Page(source.stem, preset, whose, path, tuple(warnings), record, earlier)
    return Page(source.stem, preset, NOBODY, None, (*warnings, "There are no results yet."), None)


def _earlier(results: Path, preset: str, store: Path) -> str:
    """In what the results are of another declaration than today's; "" where they are not, or cannot be read."""
    try:
        found = read_csv(results)
        declared = experiments.declare_again(results.stem, found, preset=preset, store=Store(store))
        return report.of_earlier(found, declared, store)
    except ConfigError:
        return ""


def is_whole(executed: NotebookNode) -> bool:
    """Whether every code cell was executed and none raised."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    return all(cell.execution_count and not any(output.output_type == "error" for output in cell.outputs) for cell in cells)


def is_stale(executed: NotebookNode, source: NotebookNode) -> bool:
    """Whether the source is another than the one that was executed."""
    kept = [cell for cell in executed.cells if not ADDED_TAGS & set(cell.metadata.get("tags", []))]
    return [(cell.cell_type, cell.source) for cell in kept] != [(cell.cell_type, cell.source) for cell in source.cells]


def has_newer_results(path: Path, executed: NotebookNode) -> bool:
    """Whether the CSV beside the notebook at `path` is not the one that the notebook shows.

    A table that was run again from JupyterLab or by `python -m sarlib` writes its CSV alone. Where the notebook carries no
    digest of what it shows, the files' times tell: a CSV that `make` leaves is as old as its notebook, to a second.
    """
    results = path.with_suffix(".csv")
    if "results" in executed.metadata:
        return digest(results) != executed.metadata["results"]
    return results.exists() and results.stat().st_mtime > path.stat().st_mtime + 1


def _error(notebook: Path) -> str:
    """The first error in a failed notebook, in a line."""
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"`{output.ename}: {(output.evalue.splitlines() or [''])[0]}`"
    return "an error that was not recorded"


def compose(page: Page, source: Path) -> NotebookNode:
    """The notebook that the page shows: title, then what these results are, then the cells."""
    notebook = nbformat.read(page.shown or source, 4)
    title, *cells = notebook.cells
    if page.preset != MAIN_PRESET:
        heading, *rest = title.source.split("\n")
        title.source = "\n".join((f"{heading} ({page.preset})", *rest))
    injected = any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    for cell in cells:
        if injected and "parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "remove-cell"]  # defaults that were not used
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = LONG_CELL.sub(r'<td class="text">\1</td>', output.data["text/html"])
    notebook.metadata.pop("widgets", None)
    notebook.cells = [title, nbformat.v4.new_markdown_cell(_banner(page), id="what-is-shown"), *cells]
    if page.earlier:
        again = f"These results are {page.earlier}. `{page.command}` trains what is declared today."
        notebook.cells.append(nbformat.v4.new_markdown_cell(again, id="earlier-declaration"))
    return notebook


def _banner(page: Page) -> str:
    """Whose results the page shows and what they must not be taken for, as admonitions."""
    admonitions = []
    if page.whose == YOURS:
        admonitions.append(f":::{{admonition}} Your own results\n:class: tip\nPreset {page.preset}{_behind(page)}.\n:::")
    if page.whose == REFERENCE:
        text = f"Preset {page.preset}{_behind(page)}. `{page.command}` puts your own here. "
        text += "Where the page sets results beside the reference, it sets these beside themselves."
        admonitions.append(f":::{{admonition}} Reference results\n:class: note\n{text}\n:::")
    if page.warnings:
        admonitions.append(f":::{{warning}}\n{' '.join(page.warnings)} `{page.command}` runs it.\n:::")
    return "\n\n".join(admonitions)


def _behind(page: Page) -> str:
    return page.record.in_words() if page.record else ""


def status_table(pages: list[Page]) -> str:
    """The status chapter's table, as Markdown."""
    rows = []
    for page in pages:
        results = f"**{page.whose}**: {' '.join(page.warnings)}" if page.warnings else page.whose
        record = page.record.as_row() if page.record else ("—",) * 6
        rows.append((f"[{page.name}]({page.file})", results, page.preset, *record))
    return markup.table(("page", "results", "preset", "seeds", "device", "torch", "training", "executed", "commit"), rows)


def _in_order(notebooks: Path) -> list[Path]:
    """Source notebooks by kind, then by number: table2 before table10."""

    def place(path: Path) -> tuple[int, int]:
        kind = path.stem.rstrip("0123456789")
        return KINDS.index(kind), int(path.stem.removeprefix(kind) or 0)

    return sorted(notebooks.glob("*.ipynb"), key=place)


def _table_of_contents(pages: list[Page]) -> dict[str, Any]:
    """`book/_toc.yml`, with the notebook pages in the part that is empty there."""
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    [part] = [part for part in contents["parts"] if not part.get("chapters")]
    part["chapters"] = []
    for page in pages:
        if page.preset == MAIN_PRESET:
            part["chapters"].append({"file": page.file})
        else:
            part["chapters"][-1].setdefault("sections", []).append({"file": page.file})
    return contents


def _vendor_mathjax(folder: Path) -> None:
    """MathJax in one file, out of the wheel sphinx-mathjax-offline: no page asks another machine for it."""
    [script] = [path for path in metadata.files("sphinx-mathjax-offline") if path.name == "tex-svg.js"]
    folder.mkdir(parents=True)
    shutil.copy(script.locate(), folder)
