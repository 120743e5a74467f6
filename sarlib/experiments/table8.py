"""Table 8: the networks of Table 4 on shifted images: ImageNet-A and ImageNet-C, or what stands in for them.

Embedded objects get cues in conflict, the shape of one class with the look of another, and the images of every set ten
corruptions of our own. Cues in conflict rather than images on which some network fails: those are biased against its family.
"""

from __future__ import annotations

import dataclasses

from sarlib import data as datasets
from sarlib.config import Data
from sarlib.data import CONFLICT, SHAPES, released
from sarlib.experiments import table4
from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.run import Measurement

NATURAL, CORRUPTED = "table8a", "table8c"


def declare(sets: Sets) -> Table:
    """Measurements of Table 4's runs on each of its sets; in photographs we can set no cues in conflict."""
    preset, chosen = sets.preset, table4.settings(sets)
    conflicting = [each for each in chosen if preset.natural or each.baseline.data.name in SHAPES]
    error = "mce" if preset.corrupted else "corrupted"
    return Table(
        title="Natural adversarial images and common corruptions",
        cells=(
            *(cell for each in conflicting for cell in _cells(NATURAL, each, _natural(sets, each))),
            *(cell for each in chosen for cell in _cells(CORRUPTED, each, _corrupted(sets, each))),
        ),
        tests=(
            ClaimTest("t8-a", tuple(_better(table4.SAR, table4.BASELINE, NATURAL, each, "natural") for each in conflicting)),
            ClaimTest(
                "t8-c",
                tuple(_better(table4.BASELINE, table4.SAR, CORRUPTED, each, error) for each in chosen),
                note="the contrast is ViT - SAR: the claim says that SAR has the smaller error",
            ),
        ),
        leads=("natural", "mce", "corrupted"),
    )


def _better(row: str, than: str, table: str, setting: Setting, metric: str) -> Contrast:
    return difference(row, than, table=table, dataset=setting.dataset, metric=metric, note=f", {setting.dataset}")


def _cells(table: str, setting: Setting, measurement: Measurement) -> list[Cell]:
    cells = setting.cells(table, table4.rows(setting))
    return [dataclasses.replace(cell, measurement=measurement) for cell in cells]


def _natural(sets: Sets, setting: Setting) -> Measurement:
    data = _fewer(sets, setting)
    conflict = dataclasses.replace(data, name=data.name + CONFLICT)
    return Measurement(name="natural", data=_released(sets, sets.preset.natural) or conflict)


def _corrupted(sets: Sets, setting: Setting) -> Measurement:
    return Measurement(name="corrupted", data=_released(sets, sets.preset.corrupted) or _fewer(sets, setting))


def _released(sets: Sets, data: Data | None) -> Data | None:
    """A released set with its fingerprint. `ConfigError` if it is not there."""
    return data and dataclasses.replace(data, fingerprint=released.fingerprint(data.name, root=sets.root))


def _fewer(sets: Sets, setting: Setting) -> Data:
    """The run's own test images, of each class equally many, at most as many as the preset looks at."""
    data, most = setting.baseline.data, sets.preset.shifted_images
    tested = data.test_size or datasets.inspect(data.name, root=sets.root)[1]
    return dataclasses.replace(data, test_size=min(most or tested, tested))
