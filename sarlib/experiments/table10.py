"""Table 10: four architectures on many images, IN-1K in the paper, without SAR and with it, each under its own recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib.config import Data
from sarlib.experiments import table4
from sarlib.experiments.architectures import VIT, architectures
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Experiment, Setting
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings
from sarlib.experiments.table9 import COSTS, cells, gains
from sarlib.trainer.recipes import PROTOCOLS

TITLE = "Other architectures on many images"
#: The protocol of `sarlib.trainer.recipes` that those who published an architecture trained it by.
PROTOCOL = {"vit": "deit", "t2t": "t2t", "pvt": "pvt", "cvt": "cvt"}


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 10 at `preset`; only `paper` has a recipe for each architecture. At presets with embedded data, the largest subset of each
    real set below `root` joins."""
    largest = {setting.baseline.data.name: setting for setting in low_data_settings(preset, root)}
    main, *others = (_by_architecture(preset, setting) for setting in (_many_images(preset, root), *largest.values()))
    return Experiment(
        name="table10",
        title=TITLE,
        preset=preset.name,
        cells=tuple(cell for models in (main, *others) for cell in cells("table10", models)),
        seeds=seeds,
        tests=(
            ClaimTest(
                "t10",
                gains("table10", main),
                note="the gains are tested; that they are smaller than Table 9's, and 'comparable', are for the reader to judge",
            ),
        ),
        contrasts=tuple(contrast for models in (main, *others) for contrast in _against_hybrids(models)),
        shown=COSTS,
        data_root=root,
    )


def _many_images(preset: Preset, root: Path | None) -> Setting:
    """Four times the images of Table 9 for a quarter of the epochs, as many optimizer steps; at `paper` the runs of Table 4."""
    match preset.name:
        case "tiny":
            data = Data(name="shapes-object", image_size=32, train_size=96, test_size=40)
            return preset.setting("shapes-object, 96 images", data)
        case "laptop":
            data = Data(name="shapes-object", image_size=64, train_size=2000, test_size=2000)
            return preset.setting("shapes-object, 2000 images", data, epochs=9, warmup_epochs=1.0)
        case "gpu":
            data = Data(name="shapes-object", image_size=112, train_size=20000, test_size=5000)
            return preset.setting("shapes-object, 20000 images", data, epochs=15, warmup_epochs=1.5)
        case _:
            return table4.settings(preset, root)[0]


def _by_architecture(preset: Preset, setting: Setting) -> dict[str, Setting]:
    models = architectures(preset, setting.baseline.model.patch_size)
    return {name: _own_recipe(preset, setting.with_model(model)) for name, model in models.items()}


def _own_recipe(preset: Preset, setting: Setting) -> Setting:
    if preset.name != "paper" or setting.baseline.model == preset.model:  # DeiT's is in the setting already
        return setting
    protocol = PROTOCOLS[PROTOCOL[setting.baseline.model.name]]
    model = dataclasses.replace(setting.baseline.model, drop_path=protocol.drop_path)
    baseline = dataclasses.replace(setting.baseline, model=model, recipe=protocol.recipe, augmentation=protocol.augmentation)
    return dataclasses.replace(setting, baseline=baseline)


def _against_hybrids(models: dict[str, Setting]) -> list[Contrast]:
    """ViT + SAR beside each hybrid without it."""
    dataset = models[VIT].dataset
    return [
        Contrast(f"{VIT} + SAR - {name}", ((1, "table10", f"{VIT} + SAR", dataset), (-1, "table10", name, dataset)))
        for name in models
        if name != VIT
    ]
