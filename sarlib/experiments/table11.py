"""Table 11: do the attention maps lie on objects? The networks of Table 4, measured on images whose objects have masks."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from sarlib.config import Data, require
from sarlib.data import voc
from sarlib.experiments.claims import ClaimTest, Contrast, differences
from sarlib.experiments.declaration import Cell, Setting, Table, at_both_doses
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import BASELINE, SAR, rows, settings
from sarlib.experiments.with_objects import PHOTOGRAPHS

#: The released evaluation shows VOC at 480 px to networks that were trained at 224: a grid of 30 x 30 instead of 14 x 14.
#: Photographs are shown larger by the same factor here.
LARGER = Fraction(480, 224)


def declare(sets: Sets) -> Table:
    """Networks trained on embedded images see embedded images, in all styles; those trained on Imagenette every set of
    photographs with masks below DATA. The images that are measured on are the same for every run and seed."""
    first, *real = settings(sets)
    seen = [(first, sets.identified(data), data.name) for data in sets.preset.with_masks]
    for name in (name for name in sets.with_objects() if name.rpartition("/")[2] in voc.WITH_MASKS):
        setting = next((each for each in real if each.baseline.data.name == PHOTOGRAPHS), None)
        lacking = f"{name} is shown to networks that were trained on {PHOTOGRAPHS}, which is not below {sets.root}"
        require(setting is not None, lacking)
        run = setting.baseline
        data = Data(name=name, image_size=run.model.patch_size * round(run.grid * LARGER))  # in whole tokens
        seen.append((setting, sets.identified(data), f"{name}, trained on {PHOTOGRAPHS}"))
    cells = tuple(cell for setting, data, label in seen for cell in _cells(sets, setting, data, label))
    names = [name for *_, name in seen]
    random = f"{BASELINE} - random cells"
    above = [Contrast(f"{random}, {name}", ((1, "table11", BASELINE, name),), "jaccard_gain") for name in names]
    better = differences(SAR, BASELINE, datasets=names, table="table11", metric="jaccard")
    note = "a map that lies on objects no better than random cells is no segmentation to improve"
    return Table(
        title="Attention masks against objects",
        cells=cells,
        tests=at_both_doses([ClaimTest("t11", better, requires=tuple(above), note=note)], cells),
        leads=("jaccard", "jaccard_released", "entropy", "components"),
    )


def _cells(sets: Sets, setting: Setting, data: Data, label: str) -> list[Cell]:
    cells = dataclasses.replace(setting, dataset=label).cells("table11", rows(setting) | sets.published(setting))
    return [cell.measured("objects", data=data) for cell in cells]
