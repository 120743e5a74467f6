"""The dose: at which weight the loss lowers the entropy of the maps on a small machine, chosen by the entropy alone.

What a weight does adds up over steps and learning rates, of which the paper has 6 to 100 times as many as a laptop. So each
kind of set is trained on SAR's block without the loss and with five weights of it, on seeds that no other table uses. The
matched dose is the smallest weight that lowers the entropy by a quarter; where none does, there is none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets

NO_LOSS = "0"
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Two sets of photographs and one of drawings beside the embedded objects: a weight serves its kind of set.
REAL = ("imagenette", "cifar10", "pacs-cartoon")
FIRST_SEED = 100


def declare(sets: Sets) -> Table:
    """The embedded objects, and the smallest subset of those real sets that lie below DATA."""
    photographs = [subsets[0] for subsets in sets.real() if subsets[0].baseline.data.name in REAL]
    return Table(
        title="The weight at which the loss lowers the entropy",
        cells=tuple(cell for each in (sets.setting(sets.preset.in100), *photographs) for cell in _weights(each)),
        first_seed=FIRST_SEED,
        leads=("entropy", "components", "loss"),
    )


def _weights(setting: Setting) -> list[Cell]:
    losses = {weight: dataclasses.replace(setting.regularizer, weight=weight) for weight in WEIGHTS}
    rows = {NO_LOSS: setting.row("C")} | {f"{weight:g}": setting.regularized(loss) for weight, loss in losses.items()}
    return setting.cells("dose", rows)


def matched(dataset: str) -> float | None:
    """The matched dose for a set of this name, from `doses.yml`; None where no search found one."""
    return (yaml.safe_load(Path(__file__).with_name("doses.yml").read_text(encoding="utf-8")) or {}).get(dataset)
