"""Table 8: the networks of Table 4 on shifted images: ImageNet-A and ImageNet-C, or what stands in for them.

Embedded objects get cues in conflict, the shape of one class with the look of another, and the images of every set ten
corruptions of our own. Cues in conflict rather than images on which some network fails: those are biased against its family.
"""

from __future__ import annotations

import dataclasses

from sarlib import data as datasets
from sarlib.config import Data
from sarlib.data import SHAPES, released
from sarlib.data.folders import CONFLICT
from sarlib.experiments import table4
from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.run import Measurement

NATURAL, CORRUPTED = "table8a", "table8c"


def declare(sets: Sets) -> Table:
    """Measurements of Table 4's runs on each of its sets; in photographs we can set no cues in conflict."""
    shifted, chosen = sets.preset.shifted, table4.settings(sets)
    conflicting = [each for each in chosen if shifted.natural or each.baseline.data.name in SHAPES]
    natural = [cell for each in conflicting for cell in _cells(NATURAL, each, _natural(sets, each))]
    corrupted = [cell for each in chosen for cell in _cells(CORRUPTED, each, _corrupted(sets, each))]
    better = [(table4.SAR, table4.BASELINE, NATURAL, "natural", each.dataset) for each in conflicting]
    less = "mce" if shifted.corrupted else "corrupted"
    fewer = [(table4.BASELINE, table4.SAR, CORRUPTED, less, each.dataset) for each in chosen]
    a, c = (
        tuple(
            difference(row, than, table=table, dataset=dataset, metric=metric, note=f", {dataset}")
            for row, than, table, metric, dataset in compared
        )
        for compared in (better, fewer)
    )
    note = "the contrast is ViT - SAR: the claim says that SAR has the smaller error"
    return Table(
        title="Natural adversarial images and common corruptions",
        cells=(*natural, *corrupted),
        tests=(ClaimTest("t8-a", a), ClaimTest("t8-c", c, note=note)),
        leads=("natural", "mce", "corrupted"),
    )


def _cells(table: str, setting: Setting, measurement: Measurement) -> list[Cell]:
    cells = setting.cells(table, table4.rows(setting))
    return [dataclasses.replace(cell, measurement=measurement) for cell in cells]


def _natural(sets: Sets, setting: Setting) -> Measurement:
    data = _fewer(sets, setting)
    conflict = dataclasses.replace(data, name=data.name + CONFLICT)
    return Measurement(name="natural", data=_released(sets, sets.preset.shifted.natural) or conflict)


def _corrupted(sets: Sets, setting: Setting) -> Measurement:
    return Measurement(name="corrupted", data=_released(sets, sets.preset.shifted.corrupted) or _fewer(sets, setting))


def _released(sets: Sets, data: Data | None) -> Data | None:
    """The declaration of a released set with its fingerprint, None for none. `ConfigError` if the set is not there."""
    return data and dataclasses.replace(data, fingerprint=released.fingerprint(data.name, root=sets.root))


def _fewer(sets: Sets, setting: Setting) -> Data:
    """The test images that the setting's run knows, of each class equally many, at most as many as the preset looks at."""
    data, most = setting.baseline.data, sets.preset.shifted.images
    tested = data.test_size or datasets.inspect(data.name, root=sets.root)[1]
    return dataclasses.replace(data, test_size=min(most or tested, tested))
