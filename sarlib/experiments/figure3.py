"""Figure 3: how accuracy grows over the trainings of Table 4, and how many epochs SAR saves."""

from __future__ import annotations

from pathlib import Path

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.presets import Preset
from sarlib.experiments.table4 import BASELINE, SAR, rows, settings
from sarlib.trainer.schedules import evaluation_epochs

TITLE = "Accuracy against epochs of training"


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Figure 3 at `preset`: the same runs as Table 4, looked at after each sixth of their epochs."""
    chosen = settings(preset, root)
    return Experiment(
        name="figure3",
        title=TITLE,
        preset=preset.name,
        cells=tuple(cell for setting in chosen for cell in _curves(setting)),
        seeds=seeds,
        tests=_claims(chosen[0]),
        data_root=root,
    )


def _curves(setting: Setting) -> list[Cell]:
    return [
        Cell(
            table="figure3",
            row=_label(row, epoch),
            dataset=setting.dataset,
            run=run,
            baseline=None if row == BASELINE else _label(BASELINE, epoch),
            epoch=epoch,
        )
        for epoch in _epochs(setting)
        for row, run in rows(setting).items()
    ]


def _label(row: str, epoch: int) -> str:
    return f"{row}, epoch {epoch}"


def _epochs(setting: Setting) -> list[int]:
    return sorted(evaluation_epochs(setting.baseline.recipe))


def _claims(setting: Setting) -> tuple[ClaimTest, ...]:
    """Epochs 100, 150, 250 and 300 of the paper are the second, third, fifth and last sixth of the training here."""
    _, third, half, _, late, end = _epochs(setting)

    def term(weight: float, row: str, epoch: int) -> tuple[float, str, str, str]:
        return (weight, "figure3", _label(row, epoch), setting.dataset)

    return (
        ClaimTest(
            "fig3-250", (Contrast(f"SAR at epoch {late} - ViT at epoch {end}", (term(1, SAR, late), term(-1, BASELINE, end))),)
        ),
        ClaimTest(
            "fig3-100",
            (
                Contrast(
                    f"SAR at epoch {third} - half way from ViT at {third} to ViT at {half}",
                    (term(1, SAR, third), term(-0.5, BASELINE, third), term(-0.5, BASELINE, half)),
                ),
            ),
            note="'almost' is read as: nearer to the baseline at half of the epochs than to the baseline at a third",
        ),
    )
