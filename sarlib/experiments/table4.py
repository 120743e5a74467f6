"""Table 4: the largest set that is trained on, IN-1K in the paper, without SAR, with DRLoc and with SAR."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib.config import Data
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings
from sarlib.run import Run
from sarlib.trainer.recipes import DEIT_RECIPE

TITLE = "Training on a large data set"
BASELINE, DRLOC, SAR = "ViT", "ViT + DRLoc", "ViT + SAR"
#: Figure 3 looks at these trainings after each sixth of their epochs: 50, 100, 150, 200, 250 and 300 in the paper.
EVALUATIONS = 6


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 4 at `preset`. At presets with embedded data, the largest subset of each real set below `root` joins."""
    chosen = settings(preset, root)
    return Experiment(
        name="table4",
        title=TITLE,
        preset=preset.name,
        cells=tuple(
            Cell(table="table4", row=row, dataset=setting.dataset, run=run, baseline=None if row == BASELINE else BASELINE)
            for setting in chosen
            for row, run in rows(setting).items()
        ),
        seeds=seeds,
        tests=_claims(chosen[0]),
        data_root=root,
    )


def settings(preset: Preset, root: Path | None) -> tuple[Setting, ...]:
    """The stand-in for IN-1K comes first: more images than in any other table, each of them seen less often."""
    match preset.name:
        case "tiny":
            data = Data(name="shapes-object", image_size=32, train_size=96, test_size=40)
            main = preset.setting("shapes-object, 96 images", data)
        case "laptop":
            data = Data(name="shapes-object", image_size=64, train_size=3000, test_size=2000)
            main = preset.setting("shapes-object, 3000 images", data, epochs=18, warmup_epochs=2.0)
        case "gpu":
            data = Data(name="shapes-object", image_size=112, train_size=30000, test_size=5000)
            main = preset.setting("shapes-object, 30000 images", data, epochs=36, warmup_epochs=4.0)
        case _:
            return (_observed(preset.setting("IN-1K", Data(name="imagenet", image_size=224), root=root, recipe=DEIT_RECIPE)),)
    largest = {setting.baseline.data.name: setting for setting in low_data_settings(preset, root)}
    return tuple(map(_observed, (main, *largest.values())))


def rows(setting: Setting) -> dict[str, Run]:
    """The runs of a setting (seed 0) by the name of their row."""
    return {BASELINE: setting.row("A"), DRLOC: setting.drloc(), SAR: setting.row("F")}


def _observed(setting: Setting) -> Setting:
    """Evaluated after each sixth of the training, which therefore has at least six epochs."""
    recipe = setting.baseline.recipe
    recipe = dataclasses.replace(recipe, epochs=max(EVALUATIONS, recipe.epochs), evaluations=EVALUATIONS)
    return dataclasses.replace(setting, baseline=dataclasses.replace(setting.baseline, recipe=recipe))


def _claims(setting: Setting) -> tuple[ClaimTest, ...]:
    def better(row: str, than: str) -> Contrast:
        return Contrast(
            f"{row} - ({than})" if "+" in than else f"{row} - {than}",
            ((1, "table4", row, setting.dataset), (-1, "table4", than, setting.dataset)),
        )

    return (
        ClaimTest(
            "t4-base",
            untestable="a figure of IN-1K itself, no comparison: the table's first row at PRESET=paper is to be set beside it",
        ),
        ClaimTest(
            "t4-sar", (better(SAR, BASELINE), better(SAR, DRLOC)), note="'higher than DRLoc's gain' is SAR - DRLoc above 0"
        ),
    )
