"""Table 4: the largest set that is trained on, IN-1K in the paper, without SAR, with DRLoc and with SAR."""

from __future__ import annotations

import dataclasses

from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Setting, Table, trained
from sarlib.experiments.settings import Sets
from sarlib.run import Run

BASELINE, DRLOC, SAR = "ViT", "ViT + DRLoc", "ViT + SAR"
#: Figure 3 looks at these trainings after each sixth of their epochs: 50, 100, 150, 200, 250 and 300 in the paper.
EVALUATIONS = 6


def declare(sets: Sets) -> Table:
    chosen = settings(sets)
    gains = [difference(SAR, than, table="table4", dataset=each.dataset) for each in chosen for than in (BASELINE, DRLOC)]
    base = "a figure of IN-1K itself, no comparison: the table's first row at PRESET=paper is to be set beside it"
    return trained(
        "table4",
        chosen,
        title="Training on a large data set",
        cells=[cell for each in chosen for cell in each.cells("table4", rows(each))],
        tests=[
            ClaimTest("t4-base", untestable=base),
            ClaimTest("t4-sar", tuple(gains), note="'higher than DRLoc's gain' is SAR - DRLoc above 0"),
        ],
    )


def settings(sets: Sets) -> list[Setting]:
    """IN-1K or its stand-in, and the largest subset of each real set, evaluated after each sixth of six epochs or more."""
    chosen = [sets.setting(sets.preset.in1k), *(subsets[-1] for subsets in sets.real())]
    return [each.with_recipe(epochs=max(EVALUATIONS, each.baseline.recipe.epochs), evaluations=EVALUATIONS) for each in chosen]


def rows(setting: Setting) -> dict[str, Run]:
    """The runs of a setting (seed 0) by the name of their row."""
    drloc = dataclasses.replace(setting.baseline, regularizers=(setting.drloc,))
    return {BASELINE: setting.row("A"), DRLOC: drloc} | setting.sar(SAR)
