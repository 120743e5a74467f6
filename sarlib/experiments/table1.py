"""Table 1: ablations. (a) the weight lambda, (b) the number of epochs, (c) the components of SAR, rows A to F."""

from __future__ import annotations

import dataclasses
import functools

from sarlib.experiments.claims import ClaimTest, Contrast, difference, load
from sarlib.experiments.declaration import ROWS, Cell, Setting, Table, trained
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
    ("SAR", "F", "B"),
    ("SAR", "F", "D"),
)


def declare(sets: Sets) -> Table:
    """The smallest subset of the first real set joins."""
    ablated = [sets.setting(sets.preset.in100), *(subsets[0] for subsets in sets.real()[:1])]
    parts = (_weights, _epochs, _components)
    return trained(
        "table1",
        title="Ablations: weight of the loss, length of training, components of SAR",
        cells=[cell for part in parts for each in ablated for cell in part(each)],
        tests=_claims(ablated),
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


def _components(setting: Setting) -> list[Cell]:
    """(c) one thing after the other; the loss also at the matched dose."""
    rows = {row: setting.row(row) for row in ROWS}
    return setting.cells("table1c", rows | setting.sar("E", row="E") | setting.sar("F"))


def _epoch_rows(setting: Setting, factor: int) -> tuple[str, str]:
    epochs = factor * setting.baseline.recipe.epochs
    return f"ViT, {epochs} epochs", f"ViT + SAR, {epochs} epochs"


def _claims(ablated: list[Setting]) -> tuple[ClaimTest, ...]:
    """The claims of section 5.1, each written so that it says "above 0". Those about the loss by itself require that it does
    something: that it lowers the entropy of the maps of SAR's block."""
    tests: dict[str, tuple[list[Contrast], list[Contrast]]] = {}
    for setting in ablated:
        for name, (contrasts, requires) in _contrasts(setting).items():
            of_all = tests.setdefault(name, ([], []))
            of_all[0].extend(contrasts)
            of_all[1].extend(requires)
    notes = {
        "t1a-best-lambda": "lambda = 0 and row C are one run here, by their key",
        "t1c-D": "the contrast is A - D: the claim says that D falls below A",
        "t1c-E": "'small' is read as: below the gain of SAR's block (C), and not below A by the smallest effect of interest",
        "t1c-F": "the text compares F with A; F less each other row stands among the other differences",
    }
    return tuple(
        ClaimTest(name, tuple(contrasts), note=notes.get(name, ""), requires=tuple(requires))
        for name, (contrasts, requires) in tests.items()
    )


def _contrasts(setting: Setting) -> dict[str, tuple[list[Contrast], list[Contrast]]]:
    """By claim its contrasts on a data set, and what it requires there."""
    a, b, c = (functools.partial(difference, table=f"table1{part}", dataset=setting.dataset) for part in "abc")
    longer, short = (b(*reversed(_epoch_rows(setting, factor))) for factor in (LONGER, 1))
    growth = (*longer.terms, *((-weight, *cell) for weight, *cell in short.terms))
    chosen = [a(f"{CHOSEN_WEIGHT:g}", f"{weight:g}") for weight in WEIGHTS if weight != CHOSEN_WEIGHT]
    lowered = [
        part(than, row, label=f"the entropy that the loss takes away ({than} - {row})", metric="entropy")
        for part, row, than in ((a, f"{CHOSEN_WEIGHT:g}", "0"), (c, "F", "C"))
    ]
    return {
        "t1a-best-lambda": (chosen, lowered[:1]),
        "t1b-300": ([longer], []),
        "t1b-grows": ([Contrast("gain at 3 x epochs - gain at 1 x", growth)], []),
        "t1c-B": ([c("B", "A")], []),
        "t1c-C": ([c("C", "A")], []),
        "t1c-D": ([c("A", "D")], []),
        "t1c-E": ([c("E", "A", margin=load()["t1c-E"].smallest), c("C", "E")], lowered[1:]),
        "t1c-F": ([c("F", "A")], []),
    }
