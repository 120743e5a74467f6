"""Makes the page of a notebook: what was found comes first, then how, with images, curves, and the runs behind every result.

Code and outputs stay as they were executed; sections, sentences and provenance are put between them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import findings
import frames
import nbformat
import pictures
from nbformat import NotebookNode
from results import MAIN_PRESET, Found

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments.declaration import Experiment

if TYPE_CHECKING:
    from stage import Page

FIGURE_CALLS = tuple(f"report.{name}(" for name in findings.SHOWS if name != "gradients")
#: The first cell that calls one of these opens the section.
SECTIONS = {
    "How it was done": ("preset =", "experiments.declare("),
    "Results": ("experiments.run(", "report.table("),
    "Figures": FIGURE_CALLS,
    "Verdicts": ("report.verdicts(",),
    "Was anything learned, and did the loss do something?": tuple(
        f"report.{name}(" for name in ("floors", "gradients", "manipulation", "learned")
    ),
    "Beside the reference results": ("report.agreement(",),
}


def compose(page: Page, source: Path, *, out: Path | None = None) -> NotebookNode:
    """The notebook that the page shows, with its sections, below the text of its `source`. `out`: the folder that takes its
    pictures."""
    notebook, found = nbformat.read(page.shown or source, 4), page.found
    title, cells = nbformat.read(source, 4).cells[0], notebook.cells[1:]
    if page.preset != MAIN_PRESET:
        heading, *rest = title.source.split("\n")
        title.source = "\n".join((f"{heading} ({page.preset})", *rest))
    injected = any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    experiment = found.experiment if found else _declared(page)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [title, _text("what-is-shown", banner(page))]
    if found:
        notebook.cells.append(_text("found", _found(found)))
    # Without results, headings would stand above nothing.
    open_sections, drawn = dict(SECTIONS) if page.shown else {"How it is done": SECTIONS["How it was done"]}, False
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if injected and "parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]  # defaults that were not used
            continue
        for name in [name for name, calls in open_sections.items() if _calls(cell, calls)]:
            del open_sections[name]
            if name == "Beside the reference results" and found:
                notebook.cells.append(_text("meaning", "## What it means\n\n" + "\n\n".join(findings.meaning(found))))
            anchor = f"({page.file}-verdicts)=\n" if name == "Verdicts" else ""
            notebook.cells.append(_text(f"section-{len(notebook.cells)}", f"{anchor}## {name}"))
        if cell.cell_type == "code":
            first = _calls(cell, SECTIONS["Figures"]) and not drawn
            drawn = drawn or first
            notebook.cells += [*_before(page, cell, experiment, out), _shown(page, cell), *_after(page, cell, out, first=first)]
        else:
            notebook.cells.append(cell)
    if page.earlier:
        again = f"These results are {page.earlier}. `{page.command}` trains what is declared today."
        notebook.cells.append(_text("earlier-declaration", again))
    return notebook


def _declared(page: Page) -> Experiment | None:
    """The declaration of a page without results, for its images; None where it needs data that are not here."""
    try:
        return experiments.declare(page.name, preset=page.preset)
    except ConfigError:
        return None


def _found(found: Found) -> str:
    said = [f"- {line}" for line in findings.sentences(found)] or ["- See the tables below: nothing here has a baseline."]
    verdict = "No claim is judged by these results: they are of an earlier declaration, as are the verdicts below, if any."
    verdict = verdict if found.earlier else findings.verdict_sentence(found)
    return "\n".join(["## What was found", "", *said, "", verdict]).strip()


def _before(page: Page, cell: NotebookNode, experiment: Experiment | None, out: Path | None) -> Iterator[NotebookNode]:
    """Sample images above the declaration of the sets that they come from; what is declared, where it was not executed."""
    if out and experiment and _calls(cell, ("experiments.declare(",)):
        path = out / "_figures" / f"{page.file}-samples.png"
        alternative, hidden = pictures.samples(experiment, path)
        text = [pictures.directive(path, alternative)] if alternative else []
        if hidden:
            text.append(f"Images of {', '.join(hidden)} do not come with the code and are not shown.")
        if not page.shown:
            text.append(f"```{{raw}} html\n{frames.laid_out(experiment.frame().to_html(index=False))}\n```")
        if text:
            yield _text("samples", "\n\n".join(text))


def _shown(page: Page, cell: NotebookNode) -> NotebookNode:
    """The cell with its frames laid out, its figures described and its code folded, where there is anything else."""
    pictured = False
    for output in cell.get("outputs", []):
        if "text/html" in output.get("data", {}):
            output.data["text/html"] = frames.laid_out(output.data["text/html"])
        pictured = pictured or any(kind.startswith("image/") for kind in output.get("data", {}))
    if pictured:
        kind = next((kind for kind in findings.SHOWS if _calls(cell, (f"report.{kind}(",))), "figure")
        alternative = findings.alternative(page.found, kind=kind) if page.found else f"A figure of {page.name}."
        cell.metadata["mystnb"] = {"image": {"alt": alternative}}
    if page.shown and "parameters" not in cell.metadata.get("tags", []):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return cell


def _after(page: Page, cell: NotebookNode, out: Path | None, *, first: bool) -> Iterator[NotebookNode]:
    """Provenance below what shows results, and learning curves below the `first` figure."""
    if page.found and page.record and cell.get("outputs") and _calls(cell, ("report.",)):
        yield _text(f"provenance-{cell.get('id', hashlib.sha256(cell.source.encode()).hexdigest()[:16])}", provenance(page))
    if page.found and out and first:
        path = out / "_figures" / f"{page.file}-curves.png"
        if alternative := pictures.learning_curves(page.found, path):
            yield _text("curves", f"### Learning curves\n\nMeans over seeds.\n\n{pictures.directive(path, alternative)}")


def provenance(page: Page) -> str:
    """What stands behind a table or a figure, folded: runs, seeds, device, commit, time; command, CSV, the runs' keys."""
    found, record = page.found, page.record
    keys = list(dict.fromkeys(found.results["key"]))
    summary = f"{len(keys)} runs · {record.seeds} seeds · {record.devices} · commit {record.commits} · {record.training}"
    return "\n".join(
        [
            f"::::{{dropdown}} {summary}",
            ":class-container: provenance",
            "```{code-block} console",
            f"$ {found.again}",
            "```",
            f"Every measurement: {{download}}`{page.file}.csv <_results/{page.file}.csv>`. The runs' keys in the store:",
            "",
            f'<p class="keys">{" ".join(keys)}</p>',
            "::::",
        ]
    )


def _calls(cell: NotebookNode, names: tuple[str, ...]) -> bool:
    return cell.cell_type == "code" and any(name in cell.source for name in names)


def _text(name: str, source: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(source, id=f"book-{name}"[:60].replace(" ", "-"))


def banner(page: Page) -> str:
    """Whose results the page shows and what they must not be taken for, as admonitions."""
    admonitions = []
    behind = page.record.in_words() if page.record else ""
    if page.whose == "yours":
        admonitions.append(f":::{{admonition}} Your own results\n:class: tip\nPreset {page.preset}{behind}.\n:::")
    if page.whose == "reference":
        text = f"Preset {page.preset}{behind}. `{page.command}` puts your own here. "
        text += "Where the page sets results beside the reference, it sets these beside themselves."
        admonitions.append(f":::{{admonition}} Reference results\n:class: note\n{text}\n:::")
    if page.warnings:
        admonitions.append(f":::{{warning}}\n{' '.join(page.warnings)} `{page.command}` runs it.\n:::")
    return "\n\n".join(admonitions)
