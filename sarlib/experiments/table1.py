"""Table 1: ablations. (a) the weight lambda, (b) the number of epochs, (c) the components of SAR, rows A to F."""

from __future__ import annotations

import dataclasses
import functools

from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import ROWS, Cell, Setting, Table
from sarlib.experiments.settings import Sets

#: The weights that we try. The paper's text names only 0 and its choice, 0.01.
WEIGHTS = (0.0, 0.001, 0.01, 0.1)
CHOSEN_WEIGHT = 0.01
LONGER = 3  # Table 1b: 100 and 300 epochs in the paper

#: From row to row of Table 1c one thing changes at a time: what, the row with it, the row without it.
STEPS = (
    ("no attention skip", "B", "A"),
    ("no LayerNorm", "C", "B"),
    ("no MLP skip", "D", "C"),
    ("loss on the stock block", "E", "A"),
    ("loss on SAR's block", "F", "C"),
    ("SAR's block under the loss", "F", "E"),
)


def declare(sets: Sets) -> Table:
    """The smallest subset of the first real set joins part (c)."""
    main = sets.setting(sets.preset.in100)
    ablated = [main, *(subsets[0] for subsets in sets.real()[:1])]
    components = [cell for each in ablated for cell in each.cells("table1c", {row: each.row(row) for row in ROWS})]
    return Table(
        title="Ablations: weight of the loss, length of training, components of SAR",
        cells=(*_weights(main), *_epochs(main), *components),
        tests=_claims(main),
        contrasts=tuple(
            difference(row, than, table="table1c", dataset=each.dataset, note=f", {what}")
            for each in ablated
            for what, row, than in STEPS
        ),
    )


def _weights(setting: Setting) -> list[Cell]:
    """(a) lambda with the full last block of SAR; lambda = 0 is row C."""
    losses = {weight: (dataclasses.replace(setting.regularizer, weight=weight),) if weight else () for weight in WEIGHTS}
    return setting.cells("table1a", {f"{weight:g}": setting.regularized(*loss) for weight, loss in losses.items()})


def _epochs(setting: Setting) -> list[Cell]:
    """(b) baseline and SAR with the preset's epochs and with three times as many."""
    cells = []
    for factor in (1, LONGER):
        plain, sar = _epoch_rows(setting, factor)
        longer = setting.with_recipe(epochs=factor * setting.baseline.recipe.epochs)
        cells += longer.cells("table1b", {plain: longer.row("A"), sar: longer.row("F")})
    return cells


def _epoch_rows(setting: Setting, factor: int) -> tuple[str, str]:
    epochs = factor * setting.baseline.recipe.epochs
    return f"ViT, {epochs} epochs", f"ViT + SAR, {epochs} epochs"


def _claims(setting: Setting) -> tuple[ClaimTest, ...]:
    """The claims of section 5.1, each written so that it says "above 0"."""
    a, b, c = (functools.partial(difference, table=f"table1{part}", dataset=setting.dataset) for part in "abc")
    longer, short = (b(*reversed(_epoch_rows(setting, factor))) for factor in (LONGER, 1))
    growth = (*longer.terms, *((-weight, *cell) for weight, *cell in short.terms))
    chosen = tuple(a(f"{CHOSEN_WEIGHT:g}", f"{weight:g}") for weight in WEIGHTS if weight != CHOSEN_WEIGHT)
    return (
        ClaimTest("t1a-best-lambda", chosen, note="lambda = 0 and row C are one run here, by their key"),
        ClaimTest("t1b-300", (longer,)),
        ClaimTest("t1b-grows", (Contrast("gain at 3 x epochs - gain at 1 x", growth),)),
        ClaimTest("t1c-B", (c("B", "A"),)),
        ClaimTest("t1c-C", (c("C", "A"),)),
        ClaimTest("t1c-D", (c("A", "D"),), note="the contrast is A - D: the claim says that D falls below A"),
        ClaimTest("t1c-E", (c("E", "A"), c("F", "E")), note="'small' is read as: smaller than F's gain"),
        ClaimTest("t1c-F", tuple(c("F", row) for row in "ABCDE")),
    )
