"""The appendix: SAR's loss beside other regularisers of the same block, and what becomes of the entropy after the softmax."""

from __future__ import annotations

import dataclasses
import functools

from sarlib.config import Regularizer
from sarlib.experiments import doses
from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Cell, Setting, Table, trained
from sarlib.experiments.settings import Sets

LOSSES, COLLAPSE, MAPS = "appendix-losses", "appendix-collapse", "appendix-maps"
NO_LOSS = "no loss"
#: All act on SAR's block (row C of Table 1c) and have SAR's schedule. The text gives no weight for the alternatives: each is
#: tried at SAR's and at ten times it, SAR's loss too. Total variation is a sum over all neighbours of a map, more than a
#: hundred, where the others do not grow with it: a smaller weight is fair to it. Where the table `dose` found SAR's matched
#: dose, or a harmless weight of another, it is tried too.
SAR_WEIGHT = 0.01
WEIGHTS = {
    "spatial_entropy": (SAR_WEIGHT, 0.1),
    "pixel_entropy": (SAR_WEIGHT, 0.1),
    "softmax_entropy": (SAR_WEIGHT, 0.1),
    "total_variation": (0.001, SAR_WEIGHT),
    "disagreement": (SAR_WEIGHT, 0.1),
}
#: What happens where the entropy is minimised in earnest (section 4.3): it weighs as much as the cross entropy, throughout.
EARNEST = [Regularizer(name=name, weight=1.0) for name in ("softmax_entropy", "spatial_entropy")]


def declare(sets: Sets) -> Table:
    """On the setting of Table 1. The text states no claim that these runs could test; the contrasts are SAR's loss at its
    weight minus each other one at each of its weights."""
    setting = sets.setting(sets.preset.in100)
    found = {name: {weight} for name, weight in doses.harmless(sets.preset.doses).items()}
    found["spatial_entropy"] = {setting.dose} - {None}
    losses = [
        dataclasses.replace(setting.regularizer, name=name, weight=weight)
        for name, weights in WEIGHTS.items()
        for weight in sorted({*weights, *found.get(name, ())})
    ]
    sar, others = losses[0], [loss for loss in losses if loss.name != losses[0].name]
    than_sar = functools.partial(difference, _label(sar), table=LOSSES, dataset=setting.dataset)
    collapse = _rows(COLLAPSE, setting, EARNEST)
    return trained(
        "appendix",
        title="Other regularisers, and the collapse of the softmaxed map",
        cells=(*_rows(LOSSES, setting, losses), *collapse, *_measured(collapse, "collapse", images=500)),
        contrasts=tuple(than_sar(_label(loss), label=f"spatial entropy - {_label(loss)}") for loss in others),
        drawn=_measured(collapse, "maps", images=8),
    )


def _rows(table: str, setting: Setting, losses: list[Regularizer]) -> list[Cell]:
    return setting.cells(table, {NO_LOSS: setting.row("C")} | {_label(loss): setting.regularized(loss) for loss in losses})


def _label(loss: Regularizer) -> str:
    return f"{loss.name.replace('_', ' ')}, λ = {loss.weight:g}"


def _measured(cells: list[Cell], name: str, *, images: int) -> tuple[Cell, ...]:
    """What is measured of these cells' runs, on the first of their test images."""
    return tuple(dataclasses.replace(cell.measured(name, images=images), table=MAPS) for cell in cells)
