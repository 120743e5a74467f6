"""The dose: at which weight the loss lowers the entropy of the maps on a small machine, chosen by the entropy alone.

What a weight does adds up over steps and learning rates, of which the paper has six times as many as a laptop, or more. So
each kind of set is trained on SAR's block without the loss and with five weights of it, on seeds that no other table uses. The
matched dose is the smallest weight that lowers the entropy by a quarter; where none does, there is none. What may stand in the
loss's place is trained at several weights too, of which the harmless ones are known by the training loss (`doses.py`).
"""

from __future__ import annotations

import dataclasses

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
    return trained(
        "dose",
        title="The weight at which the loss lowers the entropy",
        cells=[*(cell for each in settings for cell in _weights(each)), *_others(main)],
        first_seed=FIRST_SEED,
        leads=("entropy", "components", "loss"),
    )


def _weights(setting: Setting) -> list[Cell]:
    losses = {weight: dataclasses.replace(setting.regularizer, weight=weight) for weight in WEIGHTS}
    rows = {NO_LOSS: setting.row("C")} | {f"{weight:g}": setting.regularized(loss) for weight, loss in losses.items()}
    return setting.cells("dose", rows)


def _others(setting: Setting) -> list[Cell]:
    losses = {
        f"{name} {weight:g}": dataclasses.replace(setting.regularizer, name=name, weight=weight)
        for name, weights in OTHERS.items()
        for weight in weights
    }
    rows = {NO_LOSS: setting.row("C")} | {row: setting.regularized(loss) for row, loss in losses.items()}
    return setting.cells("dose-others", rows)
