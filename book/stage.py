"""Collects what the book is built from: the chapters, and for every source notebook what was really executed of it.

The reader's own executed notebooks come first, the reference ones stand in for them, and every page says which it shows. A
notebook that was not executed, whose last run failed, or whose code or results have changed since carries a warning on its page
and in the status chapter.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import api
import attention
import claims_page
import departures
import front
import interactions
import markup
import nbformat
import pictures
import recipes
import results
import small
import speed
import yaml
from chapter import compose
from execute import NOTEBOOKS, ROOT, digest, failed
from nbformat import NotebookNode
from record import Record, read_record
from results import MAIN_PRESET, REFERENCE, YOURS, Found, Place

from sarlib import report

BOOK = ROOT / "book"
#: Folders whose files chapters quote, and where these find them.
QUOTED = {"sarlib": "sarlib", "tests": "tests", "book/examples": "examples"}
NOBODY = "none"
NO_MAPS = "No maps of trained networks have been kept: `python book/attention.py` does it."
#: Cells that papermill adds to an executed notebook.
ADDED_TAGS = {"injected-parameters", "papermill-error-cell-tag"}


@dataclass(frozen=True, eq=False)
class Page(Place):
    """A notebook at a preset: which execution is shown (`shown`, a path or None), and the warnings it must carry."""

    shown: Path | None
    warnings: tuple[str, ...]
    record: Record | None = None
    found: Found | None = None  # its results, where they can be read

    @property
    def earlier(self) -> str:
        """In what these results are of another declaration than today's."""
        return self.found.earlier if self.found else ""


def stage(out: Path, *, runs: Path, notebooks: Path = NOTEBOOKS, repository: str | None = None) -> list[Page]:
    """Fill the folder `out` (replaced) with the book's sources for the results below `runs`; returns its notebook pages.

    `repository` is the address that buttons and links of the pages lead to (default: the environment's SAR_REPOSITORY, or
    none).
    """
    repository = (os.environ.get("SAR_REPOSITORY", "") if repository is None else repository).rstrip("/")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for pattern in ("references.bib", "*.md"):
        for path in BOOK.glob(pattern):
            shutil.copy(path, out)
    shutil.copytree(BOOK / "_assets", out / "_assets")
    report.blobs().savefig(out / "_assets" / "blobs.svg", metadata={"Date": None})
    for folder, to in QUOTED.items():
        shutil.copytree(ROOT / folder, out / to, ignore=shutil.ignore_patterns("__pycache__"))
    _vendor_mathjax(out / "_assets" / "mathjax")

    everything, refused = results.collect(runs)
    pages = [page for source in _in_order(notebooks) for page in find_pages(source, runs=runs, everything=everything)]
    (out / "_results").mkdir()
    for page in pages:
        if page.found:
            shutil.copy(page.found.path, out / "_results" / f"{page.file}.csv")
        nbformat.write(compose(page, notebooks / f"{page.name}.ipynb", out=out), out / f"{page.file}.ipynb")
    for name, content in (("_toc.yml", _table_of_contents(pages)), ("_config.yml", _configuration(repository))):
        (out / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    _chapters(out, runs, pages, everything, refused, repository)
    return pages


def _chapters(out: Path, runs: Path, pages: list[Page], everything: list[Found], refused: list[str], repository: str) -> None:
    """Fill the marks of the chapters that are made from results, and write the data of their interactions."""
    earlier, everything = {found.name for found in everything if found.earlier}, results.telling(everything)
    kept = attention.kept(runs)
    drawn = {"explained": "", "heads": NO_MAPS}
    for name, draw, what in (("explained", pictures.explained, front.STEPS), ("heads", pictures.heads, front.HEADS)):
        if kept:
            path = out / "_figures" / f"{name}.png"
            drawn[name] = pictures.directive(path, draw(kept, path), front.caption(what, kept))
    moved = interactions.seeds(everything)
    interactions.write(out / "_assets", attention=kept, seeds=moved)
    _fill(out / "intro.md", picture=drawn["explained"], headline=front.headline(everything),
          figure=front.figure(everything, out), where=front.where(everything, repository=repository))  # fmt: skip
    _fill(out / "attention.md", attention=drawn["heads"])
    judged = claims_page.page(everything, refused, out=out, pages=[page.file for page in pages], earlier=earlier)
    _fill(out / "claims.md", **judged)
    _fill(out / "small_machine.md", learned=small.learned(everything), manipulation=small.manipulation(everything),
          spread=small.spread(everything), seeds=interactions.as_table(moved))  # fmt: skip
    _fill(out / "departures.md", departures=departures.section(everything, repository=repository))
    _fill(out / "api.md", api=api.section())
    _fill(out / "status.md", status=status_table(pages))
    _fill(out / "speed.md", speed=speed.sections(runs))
    _fill(out / "baselines.md", baselines=recipes.section())


def _fill(chapter: Path, **made: str) -> None:
    """Put what was `made` in the place of the chapter's marks, `<!-- NAME -->`."""
    text = chapter.read_text(encoding="utf-8")
    for name, part in made.items():
        mark = f"<!-- {name} -->"
        assert mark in text, f"{chapter.name} lacks {mark}"
        text = text.replace(mark, part)
    chapter.write_text(text, encoding="utf-8")


def _configuration(repository: str) -> dict[str, Any]:
    """`book/_config.yml`; with buttons that open a notebook elsewhere and links to the sources where the address is known."""
    configuration = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    if repository:
        configuration["repository"] = {"url": repository, "path_to_book": "book/notebooks", "branch": "main"}
        configuration["html"] = {"use_repository_button": True, "use_issues_button": True}
        configuration["launch_buttons"] = {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        }
    return configuration


def find_pages(source: Path, *, runs: Path, everything: list[Found]) -> list[Page]:
    """The page of the main preset, executed or not, and one for every other preset at which the notebook was run.

    `everything`: the results below `runs`.
    """
    elsewhere = {path.parent.name for folder in (runs, runs / "reference") for path in folder.glob(f"*/{source.stem}.*ipynb")}
    presets = [MAIN_PRESET, *sorted(elsewhere - {MAIN_PRESET})]
    return [_find_page(source, preset, runs, everything) for preset in presets]


def _find_page(source: Path, preset: str, runs: Path, everything: list[Found]) -> Page:
    warnings = []
    if (unfinished := failed(runs / preset / source.name)).exists():
        warnings.append(f"The last run failed with {_error(unfinished)}.")
    for whose, folder in ((YOURS, runs), (REFERENCE, runs / "reference")):
        path = folder / preset / source.name
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
                written = path.with_suffix(".csv").name
                warnings.append(f"`{written}` was written anew since, with other results than those on this page.")
            record = read_record(executed, path.with_suffix(".csv"), store=folder / "store")
            place = (source.stem, preset, whose)
            found = next((one for one in everything if (one.name, one.preset, one.whose) == place), None)
            if found and found.earlier:
                warnings.append(f"These results are {found.earlier}.")
            return Page(*place, path, tuple(warnings), record, found)
    return Page(source.stem, preset, NOBODY, None, (*warnings, "There are no results yet."))


def is_whole(executed: NotebookNode) -> bool:
    """Whether every code cell was executed and none raised."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    return all(cell.execution_count and not any(output.output_type == "error" for output in cell.outputs) for cell in cells)


def is_stale(executed: NotebookNode, source: NotebookNode) -> bool:
    """Whether the code is another than what was executed; the text of a page is the source's, always."""
    kept = [cell for cell in executed.cells if not ADDED_TAGS & set(cell.metadata.get("tags", []))]
    before, now = ([cell.source for cell in cells if cell.cell_type == "code"] for cells in (kept, source.cells))
    return before != now


def has_newer_results(path: Path, executed: NotebookNode) -> bool:
    """Whether the CSV beside the notebook at `path` is not the one that the notebook shows.

    A table that was run again from JupyterLab or by `python -m sarlib` writes its CSV alone. Where the notebook carries no
    digest of what it shows, the files' times tell: a CSV that `make` leaves is as old as its notebook, to a second.
    """
    written = path.with_suffix(".csv")
    if "results" in executed.metadata:
        return digest(written) != executed.metadata["results"]
    return written.exists() and written.stat().st_mtime > path.stat().st_mtime + 1


def _error(notebook: Path) -> str:
    """The first error in a failed notebook, in a line."""
    for cell in nbformat.read(notebook, 4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"`{output.ename}: {(output.evalue.splitlines() or [''])[0]}`"
    return "an error that was not recorded"


def status_table(pages: list[Page]) -> str:
    """The status chapter's table, as Markdown."""
    rows = []
    for page in pages:
        shown = f"**{page.whose}**: {' '.join(page.warnings)}" if page.warnings else page.whose
        rows.append((page.link, shown, page.preset, *(page.record or ("—",) * 6)))
    return markup.table(("page", "results", "preset", "seeds", "device", "torch", "training", "executed", "commit"), rows)


def _in_order(notebooks: Path) -> list[Path]:
    """Source notebooks in the order of the book: the headline, tables, figures, the appendix, all others."""
    names = tuple(path.stem for path in sorted(notebooks.glob("*.ipynb")))
    return [notebooks / f"{name}.ipynb" for name in results.ordered(names)]


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
