"""Table 11: do the attention maps lie on objects? The networks of Table 4, measured on images whose objects have masks."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from sarlib import data as datasets
from sarlib.config import Data
from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import BASELINE, SAR, rows, settings
from sarlib.run import Measurement, Run

#: The released evaluation shows VOC at 480 px to networks that were trained at 224: a grid of 30 x 30 instead of 14 x 14.
LARGER = Fraction(480, 224)


def declare(sets: Sets) -> Table:
    """Networks trained on embedded images see embedded images, in all styles; those trained on photographs, all sets of
    photographs with masks below DATA. The images that are measured on are the same for every run and seed."""
    first, *real = settings(sets)
    cells = [
        cell
        for data in sets.preset.with_masks
        for cell in _cells(rows(first) | sets.published(first), first, _identified(data, sets), data.name)
    ]
    for setting in real:
        for name in datasets.with_masks(sets.root):
            data = _identified(Data(name=name, image_size=_larger(setting)), sets)
            cells += _cells(rows(setting), setting, data, f"{name}, trained on {setting.baseline.data.name}")
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    above = [
        Contrast(f"{BASELINE} - random cells, {name}", ((1, "table11", BASELINE, name),), "jaccard_gain") for name in names
    ]
    better = [difference(SAR, BASELINE, table="table11", dataset=name, note=f", {name}", metric="jaccard") for name in names]
    note = "a map that lies on objects no better than random cells is no segmentation to improve"
    return Table(
        title="Attention masks against objects",
        cells=tuple(cells),
        tests=(ClaimTest("t11", tuple(better), requires=tuple(above), note=note),),
        leads=("jaccard", "jaccard_released", "entropy", "components"),
    )


def _cells(runs: dict[str, Run], setting: Setting, data: Data, label: str) -> list[Cell]:
    measurement = Measurement(name="objects", data=data)
    cells = dataclasses.replace(setting, dataset=label).cells("table11", runs)
    return [dataclasses.replace(cell, measurement=measurement) for cell in cells]


def _identified(data: Data, sets: Sets) -> Data:
    return dataclasses.replace(data, fingerprint=datasets.fingerprint(data.name, root=sets.root))


def _larger(setting: Setting) -> int:
    """As much larger than in training as in the released evaluation, in whole tokens."""
    run = setting.baseline
    return run.model.patch_size * round(run.grid * LARGER)
