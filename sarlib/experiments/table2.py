"""Table 2: training from scratch on small and medium data sets, without SAR and with it."""

from __future__ import annotations

from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Table, trained
from sarlib.experiments.settings import Sets

BASELINE, SAR = "ViT", "ViT + SAR"


def declare(sets: Sets) -> Table:
    """All subsets of the real sets join. The claims are about the smallest and the largest gain over all data sets; outside the
    paper's protocol, only their signs can be compared."""
    settings = [*map(sets.setting, sets.preset.small_sets), *(each for subsets in sets.real() for each in subsets)]
    gains = tuple(difference(SAR, BASELINE, table="table2", dataset=each.dataset, label=each.dataset) for each in settings)
    return trained(
        "table2",
        settings,
        title="Training from scratch on small and medium data sets",
        cells=[cell for each in settings for cell in each.cells("table2", {BASELINE: each.row("A")} | each.sar(SAR))],
        tests=[
            ClaimTest("t2-min", gains, rule="all", note="the smallest gain is above 0: SAR gains on every data set"),
            ClaimTest("t2-max", gains, rule="any", note="the largest gain is above 0: SAR gains on some data set"),
        ],
    )
