"""The dose: at which weight the loss lowers the entropy of the maps on a small machine, chosen by the entropy alone.

What a weight does adds up over steps and learning rates, of which the paper's trainings have 6 to 100 times as many as those of a laptop.
So each kind of set is trained on SAR's block without the loss and with five weights of it, on seeds that no other table uses. The matched
dose is the smallest weight that lowers the entropy by a quarter; where none does, there is none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib import data as datasets
from sarlib.config import Data
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.presets import Preset

TITLE = "The weight at which the loss lowers the entropy"
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Seeds of the search, four of them by default; nothing else is trained with them.
FIRST_SEED, SEEDS = 100, 4
NO_LOSS = "0"
#: Of the entropy without the loss: what the matched dose has to take away.
LOWERED_BY = 0.25
#: One embedded set, two of photographs, one of drawings: a weight serves its kind of set.
REAL = {"imagenette": 64, "cifar10": 32, "pacs-cartoon": 64}


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """The search at `preset`, on the embedded objects and those of its real sets that lie below `root`."""
    return Experiment(
        name="dose",
        title=TITLE,
        preset=preset.name,
        cells=tuple(cell for setting in _settings(preset, root) for cell in _weights(setting)),
        seeds=tuple(FIRST_SEED + seed for seed in seeds),
        tests=(),
        data_root=root,
    )


def _settings(preset: Preset, root: Path | None) -> list[Setting]:
    few = Data(name="shapes-object", image_size=64, train_size=500, test_size=1000)
    found = [_trained_for_long(preset, "shapes-object, 500 images", few, root)]
    for name, pixels in REAL.items():
        if root is not None and name in datasets.discover(root):
            fingerprint = datasets.inspect(name, root=root)[2]
            data = Data(name=name, image_size=pixels, train_size=500, test_size=1000, fingerprint=fingerprint)
            if datasets.inspect(name, root=root)[1] <= 1000:
                data = dataclasses.replace(data, test_size=None)
            found.append(_trained_for_long(preset, f"{name}, 500 images", data, root))
    return found


def _trained_for_long(preset: Preset, dataset: str, data: Data, root: Path | None) -> Setting:
    """200 epochs of 500 images: 2,000 optimizer steps on 100,000 images, a tenth of them warm-up."""
    setting = preset.setting(dataset, data, patch_size=data.image_size // 8, root=root, epochs=200, warmup_epochs=20.0)
    return dataclasses.replace(setting, baseline=dataclasses.replace(setting.baseline, numerics=2))


def _weights(setting: Setting) -> list[Cell]:
    return [
        Cell(
            table="dose",
            row=f"{weight:g}",
            dataset=setting.dataset,
            run=setting.row("F", weight=weight),
            baseline=NO_LOSS if weight else None,
        )
        for weight in (0.0, *WEIGHTS)
    ]
