"""Makes the first page's captions, its headline and what it says of block and loss; the README shows the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import findings
import pictures
from results import Found

from sarlib import report
from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Cell
from sarlib.report.statistics import from_baselines, groups

HEADLINE = "headline"


def chosen(everything: Sequence[Found], name: str) -> Found | None:
    """The first results of a table: the reader's own before the reference."""
    return next((found for found in everything if found.name == name), None)


def headline(everything: Sequence[Found]) -> str:
    """What the headline experiment found, or that it is not there yet and what stands in for it."""
    if found := chosen(everything, HEADLINE):
        said = "\n".join(f"- {line}" for line in (*findings.sentences(found), *parts(found)))
        return f"{in_words(found)}\n\n{said}"
    missing = "The headline experiment, two sets of photographs with 500 training images each, has no committed results yet."
    stand_in = chosen(everything, "table2") or chosen(everything, "dose")
    if not stand_in:
        return missing
    said = [*findings.sentences(stand_in), *(parts(block) if (block := chosen(everything, "table1")) else ())]
    first = f"{missing} {findings.title(stand_in.name)} has these, at the preset `{stand_in.preset}`:"
    return "\n".join([first, "", *(f"- {line}" for line in said)])


def in_words(found: Found) -> str:
    """The experiment in one sentence, and where each row is better than the plain network by its interval, where not."""
    cells = [cell for cell in found.experiment.cells if cell.measurement is None]
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for contrast in from_baselines(cells):
        (_, _, row, dataset), (_, _, than, _) = contrast.terms
        interval = found.interval(contrast, "top1")
        side = "is better than" if interval.low > 0 else "is worse than" if interval.high < 0 else "cannot be told from"
        rows.setdefault((row, than), {}).setdefault(side, []).append(dataset.partition(",")[0])
    said = [
        f"{row}{',' * (',' in row)} " + " and ".join(f"{side} {than} on {' and '.join(sets)}" for side, sets in own.items())
        for (row, than), own in reversed(rows.items())
    ]
    sets = dict.fromkeys(cell.dataset for cell in cells)
    seeds = found.results["seed"].nunique()
    return f"The headline experiment ({'; '.join(sets)}; {seeds} paired seeds), by accuracy: {'; '.join(said)}."


def parts(found: Found) -> list[str]:
    """What the last block without its skip does, and what the loss adds to it, on each data set whose rows tell them apart."""
    alone, added = (
        "The last block without its skip and LayerNorm, alone",
        "What the entropy loss adds to that block",
    )
    lines: dict[str, list[str]] = {}
    for cells in groups([cell for cell in found.experiment.cells if cell.measurement is None and cell.epoch is None]).values():
        stock, block = (_rows(cells, variant) for variant in "AC")
        if stock and block:
            lines.setdefault(alone, []).extend(_difference(found, block[-1], stock[-1]))
            for full in _rows(cells, "C", "spatial_entropy"):
                weight = full.run.regularizers[0].weight
                lines.setdefault(f"{added} at λ = {weight:g}", []).extend(_difference(found, full, block[-1]))
    return [f"**{what}**, points of top-1: {'; '.join(said)}." for what, said in lines.items() if said]


def _rows(cells: Sequence[Cell], variant: str, *losses: str) -> list[Cell]:
    """The rows with this last block and these losses alone, at each of their weights."""
    fitting = [cell for cell in cells if cell.run.model.variant == variant]
    return [cell for cell in fitting if [one.name for one in cell.run.regularizers] == [*losses]]


def _difference(found: Found, one: Cell, other: Cell) -> list[str]:
    interval = found.interval(difference(one.row, other.row, table=one.table, dataset=one.dataset), "top1")
    return [f"{findings.difference(interval, 'top1')} on {one.dataset}"] if interval.n > 1 else []


def figure(everything: Sequence[Found], out: Path) -> str:
    """The headline's figure, or the one of the table that stands in for it, as Markdown."""
    found = chosen(everything, HEADLINE) or chosen(everything, "table2")
    if not found:
        return ""
    path = out / "_figures" / "headline.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "forest" if found.name == HEADLINE else "figure"
    look = {"transparent": True, "dpi": 110, "metadata": {"Software": None}}
    getattr(report, kind)(found.results, found.experiment).savefig(path, **look)
    return pictures.directive(path, findings.alternative(found, kind=kind))


def where(everything: Sequence[Found], *, repository: str = "") -> str:
    """What was run and what not, and the addresses that are known."""
    names = dict.fromkeys(findings.title(found.name) for found in everything)
    sets = {cell.data: cell.dataset in found.experiment.real for found in everything for cell in found.experiment.cells}
    real, drawn = ([name for name, is_real in sets.items() if is_real is kind] for kind in (True, False))
    keys = {key for found in everything for key in found.results["key"].unique()}
    said = [f"These pages rest on {len(keys)} trainings: {', '.join(names)}." if keys else "Nothing has been run yet."]
    if keys:
        said.append(f"Real images: {', '.join(real) or 'none'}. Drawn by the code, or digits: {', '.join(drawn) or 'none'}.")
        sizes = ", ".join(dict.fromkeys(found.preset for found in everything))
        said.append(f"Sizes: {sizes}. " + ("" if "paper" in sizes else "Nothing was trained at the paper's own size."))
    own = f" · [this repository]({repository})" if repository else ""
    links = "[the paper](https://doi.org/10.1007/s10994-024-06570-7) · [its authors' code](https://github.com/helia95/SAR)"
    return " ".join(said) + f"\n\n{links}{own} · {{doc}}`licence MIT, how to cite <bibliography>`"


#: What the pictures of trained networks show, before the networks are named.
STEPS = (
    "From an image to the entropy of one map, in a trained network. S: how well the key of each patch fits the class token's "
    "query. B: what exceeds the mean of S. B falls into connected components; P is the share of B that each of them holds. Of "
    "the maps with two to four components the one is shown that lies best on the objects."
)
HEADS = "Bright is where the class token looks; a line runs around the patches above a map's mean, whose components count."


def caption(what: str, kept: dict[str, Any]) -> str:
    """Below a picture of kept maps: `what` it shows, which networks and which images."""
    row = kept["rows"][-1]
    return (
        f"{what} Images of {kept['dataset']}; networks of the preset `{kept['preset']}` with seed 0, {row['row']} being run "
        f"`{row['key']}` at commit {(row['commit'] or 'unknown')[:7]}. `{kept['command']}` makes them again."
    )
