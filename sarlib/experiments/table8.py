"""Table 8: the networks of Table 4 on shifted images: ImageNet-A and ImageNet-C, or what stands in for them.

Embedded objects get cues in conflict, the shape of one class with the look of another, and the images of every set ten
corruptions of our own. Cues in conflict rather than images on which some network fails: those are biased against its family.
"""

from __future__ import annotations

import dataclasses

from sarlib.config import Data
from sarlib.data import CONFLICT, SHAPES
from sarlib.experiments import table4
from sarlib.experiments.claims import ClaimTest, differences
from sarlib.experiments.declaration import Cell, Setting, Table, at_both_doses
from sarlib.experiments.settings import Sets

NATURAL, CORRUPTED = "table8a", "table8c"


def declare(sets: Sets) -> Table:
    """Measurements of Table 4's runs on each of its sets; in photographs we can set no cues in conflict."""
    preset, chosen = sets.preset, table4.settings(sets)
    conflicting = [each for each in chosen if preset.natural or each.baseline.data.name in SHAPES]
    cells = [cell for each in conflicting for cell in _cells(NATURAL, each, "natural", _conflicting(sets, each))]
    for each in chosen:
        cells += _cells(CORRUPTED, each, "corrupted", _test_set(sets, each, preset.corrupted))
    names, error = [each.dataset for each in chosen], "mce" if preset.corrupted else "corrupted"
    named = [each.dataset for each in conflicting]
    better = differences(table4.SAR, table4.BASELINE, datasets=named, table=NATURAL, metric="natural")
    fewer = differences(table4.BASELINE, table4.SAR, datasets=names, table=CORRUPTED, metric=error)
    note = "the contrast is ViT - SAR: the claim says that SAR has the smaller error"
    tests = (ClaimTest("t8-a", better), ClaimTest("t8-c", fewer, note=note))
    return Table(
        title="Natural adversarial images and common corruptions",
        cells=tuple(cells),
        tests=at_both_doses(tests, cells),
        leads=("natural", "mce", "corrupted"),
    )


def _cells(table: str, setting: Setting, measured: str, data: Data) -> list[Cell]:
    return [cell.measured(measured, data=data) for cell in setting.cells(table, table4.rows(setting))]


def _conflicting(sets: Sets, setting: Setting) -> Data:
    data = _test_set(sets, setting, sets.preset.natural)
    return data if sets.preset.natural else dataclasses.replace(data, name=data.name + CONFLICT)


def _test_set(sets: Sets, setting: Setting, other: Data | None) -> Data:
    """The run's own test images, of each class equally many, at most as many as the preset looks at; or the released set that
    it names instead, with its fingerprint. `ConfigError` if that is not there."""
    if other is not None:
        return sets.identified(other)
    data, most = setting.baseline.data, sets.preset.shifted_images
    tested = data.test_size or sets.inspect(data.name).test or most
    return dataclasses.replace(data, test_size=min(most or tested, tested))
