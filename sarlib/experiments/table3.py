"""Table 3: shares of IN-100, without SAR, with DRLoc, with SAR, and with both."""

from __future__ import annotations

import dataclasses

from sarlib import data as datasets
from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.run import Run

BASELINE, DRLOC, SAR, BOTH = "ViT", "ViT + DRLoc", "ViT + SAR", "ViT + SAR + DRLoc"
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
    names = {share: setting.dataset for share, setting in zip(SHARES, settings)}
    order = [
        difference(*pair, table="table3", dataset=names[share], note=f" at {share} %") for share in SHARES for pair in ORDER
    ]
    return Table(
        title="Training on shares of a data set",
        cells=tuple(cell for each in settings for cell in each.cells("table3", _rows(each))),
        tests=(
            ClaimTest("t3-75", (difference(SAR, BASELINE, table="table3", dataset=names[75]),)),
            ClaimTest("t3-75-drloc", (difference(SAR, DRLOC, table="table3", dataset=names[75]),)),
            ClaimTest("t3-order", tuple(order), note="SAR - DRLoc and DRLoc - ViT at each of the four shares"),
        ),
        contrasts=tuple(difference(*pair, table="table3", dataset=each.dataset) for each in settings for pair in PAIRS),
    )


def _share(sets: Sets, whole: Setting, share: int) -> Setting:
    """The setting on `share` per cent of its images; all of them are the same run as in other tables."""
    data = whole.baseline.data
    images = data.train_size or datasets.inspect(data.name, root=sets.root)[0]
    size = round(images * share / 100)
    smaller = whole if share == 100 else whole.with_parts(data=dataclasses.replace(data, train_size=size))
    if sets.preset.same_steps:
        batch = whole.baseline.recipe.batch_size
        smaller = smaller.stretched(max(1, images // batch) / max(1, size // batch))
    return dataclasses.replace(smaller, dataset=f"{data.name}, {size} images ({share} %)")


def _rows(setting: Setting) -> dict[str, Run]:
    drloc = dataclasses.replace(setting.baseline, regularizers=(setting.drloc,))
    both = setting.regularized(setting.regularizer, setting.drloc)
    return {BASELINE: setting.row("A"), DRLOC: drloc, SAR: setting.row("F"), BOTH: both}
