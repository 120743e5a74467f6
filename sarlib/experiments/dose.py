"""The dose: at which weight the loss lowers the entropy of the maps on a small machine, chosen by the entropy alone.

What a weight does adds up over steps and learning rates, of which the paper has 6 to 100 times as many as a
laptop. So each kind of set is trained on SAR's block without the loss and with five weights of it, on seeds that no other table
uses. The matched dose is the smallest weight that lowers the entropy by a quarter; where none does, there is none.
"""

from __future__ import annotations

import dataclasses

from sarlib.config import Data, require
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.presets import STYLES, Training
from sarlib.experiments.settings import Sets

WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Two sets of photographs and one of drawings beside the embedded objects: a weight serves its kind of set.
REAL = ("imagenette", "cifar10", "pacs-cartoon")


def declare(sets: Sets) -> Table:
    """The embedded objects, and those of the real sets that lie below `root`."""
    low_data = sets.preset.low_data
    require(low_data is not None, f"the search for the dose is for small presets, not for {sets.preset.name}")
    size, epochs, warmup = low_data.subsets[0]
    objects = Data(name=STYLES[0], image_size=low_data.pixels, train_size=size, test_size=low_data.test_images)
    embedded = sets.setting(Training(data=objects, epochs=epochs, warmup_epochs=warmup))
    photographs = [each for (each,) in sets.real(low_data) if each.baseline.data.name in REAL]
    return Table(
        title="The weight at which the loss lowers the entropy",
        cells=tuple(cell for each in (embedded, *photographs) for cell in _weights(each.with_parts(numerics=2))),
        first_seed=100,
    )


def _weights(setting: Setting) -> list[Cell]:
    losses = {weight: dataclasses.replace(setting.regularizer, weight=weight) for weight in WEIGHTS}
    rows = {"0": setting.row("C")} | {f"{weight:g}": setting.regularized(loss) for weight, loss in losses.items()}
    return setting.cells("dose", rows)
