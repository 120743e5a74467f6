"""The first page's picture, its headline and what it says of block and loss; the README shows the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import findings
from results import Found

from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Cell
from sarlib.report.statistics import mean_interval, paired_values

HEADLINE = "headline"


def chosen(everything: Sequence[Found], name: str) -> Found | None:
    """The first results of a table: the reader's own before the reference."""
    return next((found for found in everything if found.name == name), None)


def headline(everything: Sequence[Found]) -> str:
    """What the headline experiment found, or that it is not there yet and what stands in for it."""
    if found := chosen(everything, HEADLINE):
        return "\n".join(f"- {line}" for line in (*findings.sentences(found), *parts(found)))
    missing = "The headline experiment, two sets of photographs with 500 training images each, has no committed results yet."
    stand_in = chosen(everything, "table2")
    if not stand_in:
        return missing
    said = [f"- {line}" for line in findings.sentences(stand_in)]
    block = chosen(everything, "table1")
    return "\n".join([f"{missing} Table 2 has these, at the preset `{stand_in.preset}`:", "", *said, *_listed(block)])


def _listed(found: Found | None) -> list[str]:
    return [f"- {line}" for line in parts(found)] if found else []


def parts(found: Found) -> list[str]:
    """What the last block without its skip does, and what the loss adds to it, on each data set whose rows tell them apart."""
    lines: dict[str, list[str]] = {"block": [], "loss": []}
    for table in dict.fromkeys(cell.table for cell in found.experiment.cells):
        own = [
            cell for cell in found.experiment.cells if cell.table == table and cell.measurement is None and cell.epoch is None
        ]
        for dataset in dict.fromkeys(cell.dataset for cell in own):
            here = [cell for cell in own if cell.dataset == dataset]
            stock, block = (_row(here, variant, regularized=False) for variant in "AC")
            full = _row(here, "C", regularized=True)
            if stock and block:
                lines["block"] += _difference(found, block, stock)
                lines["loss"] += _difference(found, full, block) if full else []
    names = {
        "block": "The last block without its skip and LayerNorm, alone",
        "loss": "What the entropy loss adds to that block",
    }
    return [f"**{names[part]}**, points of top-1: {'; '.join(said)}." for part, said in lines.items() if said]


def _row(cells: Sequence[Cell], variant: str, *, regularized: bool) -> Cell | None:
    """The row with this last block, without losses or with SAR's alone; of several weights the last."""
    wanted = ("spatial_entropy",) if regularized else ()
    found = [
        cell
        for cell in cells
        if cell.run.model.variant == variant and tuple(one.name for one in cell.run.regularizers) == wanted
    ]
    return found[-1] if found else None


def _difference(found: Found, one: Cell, other: Cell) -> list[str]:
    contrast = difference(one.row, other.row, table=one.table, dataset=one.dataset)
    interval = mean_interval(paired_values(found.results, contrast.terms, metric="top1"))
    return [f"{findings.difference(interval, 'top1')} on {one.dataset}"] if interval.n > 1 else []


def figure(everything: Sequence[Found], out: Path) -> str:
    """The headline's figure, or the one of the table that stands in for it, as Markdown."""
    found = chosen(everything, HEADLINE) or chosen(everything, "table2")
    if not found:
        return ""
    from sarlib import report

    path = out / "_figures" / "headline.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = report.forest if found.name == HEADLINE else report.figure
    draw(found.results, found.experiment).savefig(path, transparent=True, dpi=110)
    return f"```{{figure}} _figures/headline.png\n:alt: {findings.alternative(found, kind='figure')}\n:class: drawn\n```"


def where(everything: Sequence[Found], *, repository: str = "") -> str:
    """What was run and what not, and the addresses that are known."""
    names = list(dict.fromkeys(found.name.replace("table", "Table ").replace("figure", "Figure ") for found in everything))
    sets = {cell.data: cell.dataset in found.experiment.real for found in everything for cell in found.experiment.cells}
    real, drawn = ([name for name, photographs in sets.items() if photographs is kind] for kind in (True, False))
    keys = {key for found in everything for key in found.results["key"].unique()}
    said = [f"These pages rest on {len(keys)} trainings: {', '.join(names)}." if everything else "Nothing has been run yet."]
    if everything:
        said.append(f"Photographs: {', '.join(real) or 'none'}. Drawn by the code, or digits: {', '.join(drawn) or 'none'}.")
        sizes = ", ".join(dict.fromkeys(found.preset for found in everything))
        said.append(f"Sizes: {sizes}. " + ("" if "paper" in sizes else "Nothing was trained at the paper's own size."))
    own = f" · [this repository]({repository})" if repository else ""
    links = "[the paper](https://doi.org/10.1007/s10994-024-06570-7) · [its authors' code](https://github.com/helia95/SAR)"
    return " ".join(said) + f"\n\n{links}{own} · {{doc}}`licence MIT, how to cite <bibliography>`"


def caption(kept: dict[str, Any]) -> str:
    """Which network and which images a picture of kept maps is of."""
    row = kept["rows"][-1]
    return (
        f"Images of {kept['dataset']}; networks of the preset `{kept['preset']}` with seed 0, {row['row']} being run "
        f"`{row['key']}` at commit "
        f"{(row['commit'] or 'unknown')[:7]}. `{kept['command']}` makes them again; the map whose component lies best on an "
        f"object is shown "
        "where only one is."
    )


#: What the words of a verdict mean; the book explains those that `sarlib.report.judgement` has.
VERDICTS = {
    "supported": "The intervals lie above zero. If the claim is about all of several contrasts, all of them do "
    "{cite:p}`berger1982`; if it "
    "is about some of them, one does after correction for their number.",
    "contradicted": "The intervals lie below zero, by the mirror image of that rule.",
    "no effect": "The intervals lie within the smallest effect that would matter, which `claims.yml` states for each claim: "
    "whatever the "
    "difference is, it is too small to speak of.",
    "undecided": "Zero is inside, and so are effects that would matter: more seeds are needed, and the note says how many. A "
    "mean on the "
    "right side of zero is not enough, however large.",
    "not supported": "Zero is inside. The data of this size neither show the claim nor refute it. A mean on the right side of "
    "zero is not "
    "enough, however large: with three seeds a difference of several points comes and goes with the seeds.",
    "cannot be tested": "The preset lacks what the claim is about, something that the claim presupposes does not hold at this "
    "size, there "
    "are fewer than three seeds, or the seeds do not differ.",
}


def explained_verdicts(names: Sequence[str]) -> str:
    """The verdicts that there are, as a list of definitions."""
    meanings = {name: next((text for start, text in VERDICTS.items() if name.startswith(start)), "") for name in names}
    return "\n\n".join(f"{name}\n: {text or 'See `sarlib/report/judgement.py`.'}" for name, text in meanings.items())
