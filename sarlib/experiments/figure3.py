"""Figure 3: how accuracy grows over the trainings of Table 4, and how many epochs SAR saves."""

from __future__ import annotations

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import BASELINE, SAR, rows, settings
from sarlib.trainer.schedules import evaluation_epochs


def declare(sets: Sets) -> Table:
    """The runs of Table 4, looked at after each sixth of their epochs."""
    chosen = settings(sets)
    cells = tuple(cell for setting in chosen for cell in _curves(setting))
    passes, almost = zip(*map(_contrasts, chosen), strict=True)
    note = "'almost' is read as: nearer to the baseline at half of the epochs than to the baseline at a third"
    tests = (ClaimTest("fig3-250", passes), ClaimTest("fig3-100", almost, note=note))
    return Table(title="Accuracy against epochs of training", cells=cells, tests=tests)


def _curves(setting: Setting) -> list[Cell]:
    runs, epochs = rows(setting), sorted(evaluation_epochs(setting.baseline.recipe))
    labelled = {epoch: {_label(row, epoch): run for row, run in runs.items()} for epoch in epochs}
    return [cell for epoch, line in labelled.items() for cell in setting.cells("figure3", line, epoch=epoch)]


def _label(row: str, epoch: int) -> str:
    return f"{row}, epoch {epoch}"


def _contrasts(setting: Setting) -> tuple[Contrast, Contrast]:
    """Epochs 100, 150, 250 and 300 of the paper are the second, third, fifth and last sixth of the training here."""
    _, third, half, _, late, end = sorted(evaluation_epochs(setting.baseline.recipe))

    def term(weight: float, row: str, epoch: int) -> tuple[float, str, str, str]:
        return (weight, "figure3", _label(row, epoch), setting.dataset)

    passes = Contrast(f"SAR at epoch {late} - ViT at epoch {end}", (term(1, SAR, late), term(-1, BASELINE, end)))
    almost = Contrast(
        f"SAR at epoch {third} - half way from ViT at {third} to ViT at {half}",
        (term(1, SAR, third), term(-0.5, BASELINE, third), term(-0.5, BASELINE, half)),
    )
    return passes, almost
