"""The dose: at which weight the loss lowers the entropy of the maps on a small machine, chosen by the entropy alone.

What a weight does adds up over steps and learning rates, of which the paper has six times as many as a laptop, or more. So
each kind of set is trained on SAR's block without the loss and with five weights of it, on seeds that no other table uses. The
matched dose is the smallest weight that lowers the entropy by a quarter; where none does, there is none. What may stand in the
loss's place is trained at several weights too, of which the harmless ones are known by the training loss (`doses.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sarlib.experiments.declaration import Cell, Setting, Table, trained
from sarlib.experiments.doses import NO_LOSS
from sarlib.experiments.settings import Sets

WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Two sets of photographs and one of drawings beside the embedded objects: a weight serves its kind of set.
REAL = ("imagenette", "cifar10", "pacs-cartoon")
#: Total variation is a sum over all neighbours of a map, more than a hundred, where the others do not grow with it.
OTHERS = {
    "total_variation": (0.0001, 0.001, 0.01),
    "disagreement": (0.01, 0.1, 1.0),
    "softmax_entropy": (0.01, 0.1, 1.0),
    "pixel_entropy": (0.01, 0.1, 1.0),
}
FIRST_SEED = 100


def declare(sets: Sets) -> Table:
    """The embedded objects, and the smallest subset of those real sets that lie below DATA."""
    main = sets.setting(sets.preset.in100)
    settings = [main, *(subsets[0] for subsets in sets.real() if subsets[0].baseline.data.name in REAL)]
    weights = {f"{weight:g}": {"weight": weight} for weight in WEIGHTS}
    others = {f"{name} {weight:g}": {"name": name, "weight": weight} for name, own in OTHERS.items() for weight in own}
    return trained(
        "dose",
        title="The weight at which the loss lowers the entropy",
        cells=[*(cell for each in settings for cell in _cells("dose", each, weights)), *_cells("dose-others", main, others)],
        first_seed=FIRST_SEED,
        leads=("entropy", "components", "loss"),
    )


def _cells(table: str, setting: Setting, losses: dict[str, dict[str, Any]]) -> list[Cell]:
    """SAR's block without a loss, and under SAR's with these changes, by row."""
    changed = {row: dataclasses.replace(setting.regularizer, **changes) for row, changes in losses.items()}
    rows = {NO_LOSS: setting.row("C")} | {row: setting.regularized(loss) for row, loss in changed.items()}
    return setting.cells(table, rows)
