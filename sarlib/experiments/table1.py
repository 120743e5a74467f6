"""Table 1: ablations. (a) the weight lambda, (b) the number of epochs, (c) the components of SAR, rows A to F."""

from __future__ import annotations

from pathlib import Path

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import ROWS, Cell, Experiment, Setting
from sarlib.experiments.in100 import in100
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings

TITLE = "Ablations: weight of the loss, length of training, components of SAR"

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


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 1 at `preset`. Real sets below `root` join part (c) at presets whose main data are embedded."""
    main, others = in100(preset, root), low_data_settings(preset, root)[:1]
    return Experiment(
        name="table1",
        title=TITLE,
        preset=preset.name,
        cells=(*_weights(main), *_epochs(main), *(cell for setting in (main, *others) for cell in _components(setting))),
        seeds=seeds,
        tests=_claims(main),
        contrasts=tuple(contrast for setting in (main, *others) for contrast in _steps(setting)),
        data_root=root,
    )


def _weights(setting: Setting) -> list[Cell]:
    """(a) lambda with the full last block of SAR; lambda = 0 is row C."""
    return [
        Cell(
            table="table1a",
            row=f"{weight:g}",
            dataset=setting.dataset,
            run=setting.row("F", weight=weight),
            baseline="0" if weight else None,
        )
        for weight in WEIGHTS
    ]


def _epochs(setting: Setting) -> list[Cell]:
    """(b) baseline and SAR with the preset's epochs and with three times as many."""
    cells = []
    for epochs in (setting.baseline.recipe.epochs, LONGER * setting.baseline.recipe.epochs):
        longer = setting.trained_for(epochs)
        plain, sar = _epoch_rows(epochs)
        cells.append(Cell(table="table1b", row=plain, dataset=setting.dataset, run=longer.row("A")))
        cells.append(Cell(table="table1b", row=sar, dataset=setting.dataset, run=longer.row("F"), baseline=plain))
    return cells


def _epoch_rows(epochs: int) -> tuple[str, str]:
    return f"ViT, {epochs} epochs", f"ViT + SAR, {epochs} epochs"


def _components(setting: Setting) -> list[Cell]:
    """(c) rows A to F, each against A."""
    return [
        Cell(table="table1c", row=row, dataset=setting.dataset, run=setting.row(row), baseline=None if row == "A" else "A")
        for row in ROWS
    ]


def _steps(setting: Setting) -> list[Contrast]:
    """(c) what each single change contributes."""
    dataset = setting.dataset
    return [
        Contrast(f"{after} - {before}, {what}", ((1, "table1c", after, dataset), (-1, "table1c", before, dataset)))
        for what, after, before in STEPS
    ]


def _claims(setting: Setting) -> tuple[ClaimTest, ...]:
    """The claims of section 5.1, each written so that it says "above 0"."""
    dataset = setting.dataset

    def better(table: str, row: str, than: str) -> Contrast:
        return Contrast(f"{row} - {than}", ((1, table, row, dataset), (-1, table, than, dataset)))

    chosen = f"{CHOSEN_WEIGHT:g}"
    short, long = (_epoch_rows(epochs * setting.baseline.recipe.epochs) for epochs in (1, LONGER))
    growth = ((1, long[1]), (-1, long[0]), (-1, short[1]), (1, short[0]))
    return (
        ClaimTest(
            "t1a-best-lambda",
            tuple(better("table1a", chosen, f"{weight:g}") for weight in WEIGHTS if weight != CHOSEN_WEIGHT),
            note="lambda = 0 and row C are one run here, by their key",
        ),
        ClaimTest("t1b-300", (better("table1b", long[1], long[0]),)),
        ClaimTest(
            "t1b-grows",
            (Contrast("gain at 3 x epochs - gain at 1 x", tuple((sign, "table1b", row, dataset) for sign, row in growth)),),
        ),
        ClaimTest("t1c-B", (better("table1c", "B", "A"),)),
        ClaimTest("t1c-C", (better("table1c", "C", "A"),)),
        ClaimTest("t1c-D", (better("table1c", "A", "D"),), note="the contrast is A - D: the claim says that D falls below A"),
        ClaimTest(
            "t1c-E",
            (better("table1c", "E", "A"), better("table1c", "F", "E")),
            note="'small' is read as: smaller than F's gain",
        ),
        ClaimTest("t1c-F", tuple(better("table1c", "F", row) for row in "ABCDE")),
    )
