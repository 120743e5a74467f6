"""Table 2: training from scratch on small and medium data sets, without SAR and with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib.config import Data
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings
from sarlib.trainer.recipes import DEIT_RECIPE

TITLE = "Training from scratch on small and medium data sets"
BASELINE, SAR = "ViT", "ViT + SAR"
#: The embedded stand-ins for the paper's four sets: one world of objects, four ways of rendering it.
STYLES = ("shapes-object", "shapes-clipart", "shapes-painting", "shapes-sketch")
#: El-Nouby et al. 2021, whose protocol the paper follows; what FACTS and text leave open is DeiT's recipe.
PAPER_RECIPE = dataclasses.replace(DEIT_RECIPE, epochs=5000)


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 2 at `preset`. At presets with embedded data, real sets below `root` join as low-data subsets."""
    settings = _settings(preset, root)
    return Experiment(
        name="table2",
        title=TITLE,
        preset=preset.name,
        cells=tuple(cell for setting in settings for cell in _rows(setting)),
        seeds=seeds,
        tests=_claims(settings),
        data_root=root,
    )


def _settings(preset: Preset, root: Path | None) -> tuple[Setting, ...]:
    match preset.name:
        case "tiny":
            sets = [(name, Data(name=name, image_size=32, train_size=48, test_size=40)) for name in (*STYLES, "digits")]
            return (*(preset.setting(f"{name}, 48 images", data) for name, data in sets), *low_data_settings(preset, root))
        case "laptop":
            few = [Data(name=name, image_size=64, train_size=500, test_size=2000) for name in STYLES]
            # Beside the low-data setting, four times the images for a quarter of the epochs: the same number of optimizer steps.
            many = Data(name=STYLES[0], image_size=64, train_size=2000, test_size=2000)
            digits = Data(name="digits", image_size=32, train_size=500)
            return (
                *(preset.setting(f"{data.name}, 500 images", data) for data in few),
                preset.setting("digits, 500 images", digits, patch_size=4),
                preset.setting("shapes-object, 2000 images", many, epochs=9, warmup_epochs=1.0),
                *low_data_settings(preset, root),
            )
        case "gpu":
            few = [Data(name=name, image_size=112, train_size=5000, test_size=5000) for name in STYLES]
            return (*(preset.setting(f"{data.name}, 5000 images", data) for data in few), *low_data_settings(preset, root))
        case _:
            names = ("stanford-cars", "domainnet-clipart", "domainnet-painting", "domainnet-sketch")
            return tuple(
                preset.setting(name, Data(name=name, image_size=224), root=root, recipe=PAPER_RECIPE) for name in names
            )


def _rows(setting: Setting) -> tuple[Cell, Cell]:
    dataset = setting.dataset
    return (
        Cell(table="table2", row=BASELINE, dataset=dataset, run=setting.row("A")),
        Cell(table="table2", row=SAR, dataset=dataset, run=setting.row("F"), baseline=BASELINE),
    )


def _claims(settings: tuple[Setting, ...]) -> tuple[ClaimTest, ...]:
    """Smallest and largest gain, over all data sets of the table. Outside the paper's protocol only their signs can be compared."""
    gains = tuple(
        Contrast(setting.dataset, ((1, "table2", SAR, setting.dataset), (-1, "table2", BASELINE, setting.dataset)))
        for setting in settings
    )
    return (
        ClaimTest("t2-min", gains, rule="all", note="the smallest gain is above 0: SAR gains on every data set"),
        ClaimTest("t2-max", gains, rule="any", note="the largest gain is above 0: SAR gains on some data set"),
    )
