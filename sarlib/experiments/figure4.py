"""Figure 4: all maps of the last block, without SAR above those with it, and by numbers whether they form fewer blobs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import Cell, Setting, Table, at_both_doses
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import BASELINE, DRLOC, SAR, rows, settings
from sarlib.run import Run

IMAGES = 3  # that are drawn, the first of the test set


def declare(sets: Sets) -> Table:
    """The runs of Table 4 on all their test images; pictures of the first setting's."""
    chosen = settings(sets)
    cells = [cell for setting in chosen for cell in compared("figure4", setting)]
    contrasts = tuple(contrast for setting in chosen for contrast in _fewer_blobs(setting.dataset))
    note = "by numbers: fewer components, and a lower entropy of their masses"
    return Table(
        title="The maps of the last block",
        cells=tuple(cells),
        tests=at_both_doses([ClaimTest("fig4", contrasts, note=note)], cells),
        drawn=drawn(compared("figure4", chosen[0], sets.published(chosen[0]))),
        leads=("components", "entropy"),
    )


def compared(table: str, setting: Setting, published: Mapping[str, Run] = MappingProxyType({})) -> list[Cell]:
    """The networks whose maps the paper sets beside each other, and `published` ones between them."""
    trained = rows(setting)
    baseline = {BASELINE: trained.pop(BASELINE)}
    del trained[DRLOC]
    return setting.cells(table, baseline | dict(published) | trained)


def drawn(cells: list[Cell]) -> tuple[Cell, ...]:
    """What is stored of these cells' runs to draw them: S of every head for a few test images of the first, and the images."""
    return tuple(cell.measured("heads", data=cells[0].run.data, images=IMAGES) for cell in cells)


def _fewer_blobs(dataset: str) -> list[Contrast]:
    return [
        difference(BASELINE, SAR, table="figure4", dataset=dataset, metric=metric, note=f", {metric}, {dataset}")
        for metric in ("components", "entropy")
    ]
