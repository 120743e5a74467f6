"""Table 3: shares of IN-100, without SAR, with DRLoc, with SAR, and with both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import Setting, Table, trained
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import BASELINE, DRLOC, SAR, rows
from sarlib.run import Run

BOTH = "ViT + SAR + DRLoc"
#: What is compared beside each row with the baseline.
PAIRS = ((SAR, DRLOC), (BOTH, SAR), (BOTH, DRLOC))
ORDER = ((SAR, DRLOC), (DRLOC, BASELINE))
#: Per cent of the training images.
SHARES = (25, 50, 75, 100)


def declare(sets: Sets) -> Table:
    """Shares of the smallest subset of each real set join.

    In the paper every share is trained for as many epochs as the whole: a smaller one sees fewer steps. At the small presets
    a quarter of the steps would teach the baseline nothing: there, every share is trained for as many steps.
    """
    wholes = [sets.setting(sets.preset.in100), *(subsets[0] for subsets in reversed(sets.real()))]
    settings = [_share(sets, whole, share) for whole in wholes for share in SHARES]

    def pairs(*chosen: tuple[str, str], shares: Iterable[int] = SHARES) -> tuple[Contrast, ...]:
        places = [(each.dataset, share) for each, share in zip(settings, SHARES * len(wholes), strict=True) if share in shares]
        return tuple(
            difference(*pair, table="table3", dataset=dataset, note=f" at {share} %")
            for dataset, share in places
            for pair in chosen
        )

    return trained(
        "table3",
        title="Training on shares of a data set",
        cells=[cell for each in settings for cell in each.cells("table3", _rows(each))],
        tests=[
            ClaimTest("t3-75", pairs((SAR, BASELINE), shares=[75])),
            ClaimTest("t3-75-drloc", pairs((SAR, DRLOC), shares=[75])),
            ClaimTest("t3-order", pairs(*ORDER), note="SAR - DRLoc and DRLoc - ViT at each of the four shares"),
        ],
        contrasts=tuple(difference(*pair, table="table3", dataset=each.dataset) for each in settings for pair in PAIRS),
    )


def _share(sets: Sets, whole: Setting, share: int) -> Setting:
    """The setting on `share` per cent of its images; all of them are the same run as in other tables."""
    data = whole.baseline.data
    images = data.train_size or sets.inspect(data.name).train
    size = round(images * share / 100)
    smaller = whole if share == 100 else whole.with_parts(data=dataclasses.replace(data, train_size=size))
    if sets.preset.same_steps:
        batch = whole.baseline.recipe.batch_size
        smaller = smaller.stretched(max(1, images // batch) / max(1, size // batch))
    return dataclasses.replace(smaller, dataset=f"{data.name}, {size} images ({share} %)")


def _rows(setting: Setting) -> dict[str, Run]:
    return rows(setting) | {BOTH: setting.regularized(setting.regularizer, setting.drloc)}
