"""Table 9: four architectures on IN-100, without SAR and with it, all under one recipe."""

from __future__ import annotations

from pathlib import Path

from sarlib.experiments.architectures import architectures
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.in100 import in100
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings

TITLE = "Other architectures on few images"
#: What the table tells beside accuracy: millions of parameters, and the speed at which the machine trained.
COSTS = ("parameters", "images_per_second")


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 9 at `preset`. At presets with embedded data, the smallest subset of each real set below `root` joins."""
    smallest = {setting.baseline.data.name: setting for setting in reversed(low_data_settings(preset, root))}
    main, *others = (_by_architecture(preset, setting) for setting in (in100(preset, root), *smallest.values()))
    return Experiment(
        name="table9",
        title=TITLE,
        preset=preset.name,
        cells=tuple(cell for models in (main, *others) for cell in cells("table9", models)),
        seeds=seeds,
        tests=(ClaimTest("t9", gains("table9", main)),),
        shown=COSTS,
        data_root=root,
    )


def _by_architecture(preset: Preset, setting: Setting) -> dict[str, Setting]:
    models = architectures(preset, setting.baseline.model.patch_size)
    return {name: setting.with_model(model) for name, model in models.items()}


def cells(table: str, models: dict[str, Setting]) -> list[Cell]:
    """Each architecture without SAR and with it; `models` by the architecture's name."""
    return [
        cell
        for name, setting in models.items()
        for cell in (
            Cell(table=table, row=name, dataset=setting.dataset, run=setting.row("A")),
            Cell(table=table, row=f"{name} + SAR", dataset=setting.dataset, run=setting.row("F"), baseline=name),
        )
    ]


def gains(table: str, models: dict[str, Setting]) -> tuple[Contrast, ...]:
    """What SAR adds to each architecture."""
    return tuple(
        Contrast(f"{name} + SAR - {name}", ((1, table, f"{name} + SAR", setting.dataset), (-1, table, name, setting.dataset)))
        for name, setting in models.items()
    )
