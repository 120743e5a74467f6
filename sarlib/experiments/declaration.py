"""What a table is made of: settings (a data set and how to train on it), rows (what is done to the baseline there), cells and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sarlib.config import ConfigError, Model, Regularizer
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.run import Measurement, Run
from sarlib.tasks.metrics import MAIN_METRICS
from sarlib.trainer.recipes import DRLOC

#: The rows of Table 1c: variant of the last block, and whether the entropy loss is added.
ROWS = {"A": ("A", False), "B": ("B", False), "C": ("C", False), "D": ("D", False), "E": ("A", True), "F": ("C", True)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A data set under the name that the tables print, the baseline's run on it (seed 0), SAR's loss and its rival DRLoc there."""

    dataset: str
    baseline: Run
    regularizer: Regularizer
    rival: Regularizer

    def row(self, name: str, *, weight: float | None = None) -> Run:
        """The run of row A to F of Table 1c in this setting. `weight` overrides lambda; 0 is the row without the loss."""
        variant, regularized = ROWS[name]
        chosen = self.regularizer.weight if weight is None else weight
        return dataclasses.replace(
            self.baseline,
            model=dataclasses.replace(self.baseline.model, variant=variant),
            regularizers=(dataclasses.replace(self.regularizer, weight=chosen),) if regularized and chosen > 0 else (),
        )

    def drloc(self, *, with_sar: bool = False) -> Run:
        """The baseline with DRLoc (Liu et al. 2021); `with_sar`: row F with DRLoc beside SAR's loss."""
        if with_sar:
            return dataclasses.replace(self.row("F"), regularizers=(self.regularizer, self.rival))
        return dataclasses.replace(self.baseline, regularizers=(self.rival,))

    def with_model(self, model: Model) -> Setting:
        """The same setting for another architecture; DRLoc's weight is the one for it."""
        rival = dataclasses.replace(self.rival, weight=DRLOC[model.name].weight)
        return dataclasses.replace(self, baseline=dataclasses.replace(self.baseline, model=model), rival=rival)

    def trained_for(self, epochs: int) -> Setting:
        """The same setting with another number of epochs; warm-ups stay as they are."""
        return dataclasses.replace(
            self, baseline=dataclasses.replace(self.baseline, recipe=dataclasses.replace(self.baseline.recipe, epochs=epochs))
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of a table: `run` is its training with seed 0, `baseline` the row that it is compared with (None: it is one itself).

    With an `epoch`, the place shows what was measured after that many epochs instead of at the end; with a `measurement`, what that
    measured of the finished run.
    """

    table: str
    row: str
    dataset: str
    run: Run
    baseline: str | None = None
    epoch: int | None = None
    measurement: Measurement | None = None

    def with_seed(self, seed: int) -> Run:
        return self.run.with_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A declared table: its cells, the seeds that every cell is trained with (paired across rows), and the claims that it tests.

    `contrasts` are differences worth telling beside those from the baseline; `shown` are metrics that this table tells beside those of
    every table: "parameters" (millions, of the declaration) or what a run measures of the machine. `leads` are the metrics that it leads
    with.
    """

    name: str
    title: str
    preset: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    tests: tuple[ClaimTest, ...]
    contrasts: tuple[Contrast, ...] = ()
    shown: tuple[str, ...] = ()
    leads: tuple[str, ...] = MAIN_METRICS
    data_root: Path | None = None

    def runs(self) -> Iterator[Run]:
        """Every run of the table. Cells may share runs; the store trains a shared one once."""
        for cell in self.cells:
            for seed in self.seeds:
                yield cell.with_seed(seed)

    def measurements(self) -> Iterator[tuple[Run, Measurement]]:
        """What is measured of which finished run."""
        for cell in self.cells:
            if cell.measurement is not None:
                for seed in self.seeds:
                    yield cell.with_seed(seed), cell.measurement

    def frame(self) -> pd.DataFrame:
        """The declaration as a frame to read: one line a cell."""
        return pd.DataFrame([_describe(cell, seeds=len(self.seeds)) for cell in self.cells])

    def only(self, datasets: Iterable[str]) -> Experiment:
        """The table restricted to some of its data sets; claims that need the others become untestable. `ConfigError` for unknown ones."""
        known = list(dict.fromkeys(cell.dataset for cell in self.cells))
        chosen = set(datasets)
        if unknown := sorted(chosen - set(known)):
            raise ConfigError(
                f"{self.name} at preset {self.preset} has no data set {', '.join(unknown)}; it has {'; '.join(known)}"
            )
        contrasts = tuple(contrast for contrast in self.contrasts if all(dataset in chosen for *_, dataset in contrast.terms))
        return dataclasses.replace(
            self, cells=tuple(cell for cell in self.cells if cell.dataset in chosen), contrasts=contrasts
        )


def _describe(cell: Cell, *, seeds: int) -> dict[str, object]:
    run = cell.run
    return {
        "table": cell.table,
        "row": cell.row,
        "dataset": cell.dataset,
        "model": run.model.name,
        "last block": run.model.variant,
        "regulariser": " + ".join(each.name for each in run.regularizers) or "none",
        "lambda": run.regularizers[0].weight if run.regularizers else 0.0,
        "training images": run.data.train_size or "all",
        "epochs": run.recipe.epochs,
        "batch": run.recipe.batch_size,
        "pixels": run.data.image_size,
        "grid": f"{run.grid} x {run.grid}",
        "seeds": seeds,
        "key (seed 0)": run.key,
    }
