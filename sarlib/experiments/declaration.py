"""What a table is made of: settings (a data set and how to train on it), rows (changes to the baseline there), cells, seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarlib.config import Data, Model, Recipe, Regularizer, require
from sarlib.data import Inspected, is_embedded
from sarlib.experiments.claims import MATCHED, ClaimTest, Contrast
from sarlib.run import Measurement, Run
from sarlib.tasks.metrics import MAIN_METRICS
from sarlib.trainer.recipes import DRLOC, Protocol

if TYPE_CHECKING:
    import pandas as pd

#: The rows of Table 1c: variant of the last block, and whether the entropy loss is added.
ROWS = {"A": ("A", False), "B": ("B", False), "C": ("C", False), "D": ("D", False), "E": ("A", True), "F": ("C", True)}


#: Nearest neighbours and regressions on pixels are not for sets of more images than these.
LARGE = 10_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A data set, and how to train on it without SAR, with it and with DRLoc."""

    dataset: str  # its name in the tables
    baseline: Run  # with seed 0
    regularizer: Regularizer  # SAR's loss
    drloc: Regularizer  # Liu et al. 2021
    dose: float | None = None  # the weight of SAR's loss at which it lowers the entropy on such a set, where one is known

    def row(self, name: str) -> Run:
        """The run of row A to F of Table 1c in this setting."""
        variant, regularized = ROWS[name]
        model = dataclasses.replace(self.baseline.model, variant=variant)
        return dataclasses.replace(self.baseline, model=model, regularizers=(self.regularizer,) if regularized else ())

    def sar(self, name: str, row: str = "F") -> dict[str, Run]:
        """Row F under its name in a table, and beside it at the matched dose, where one is known for such a set."""
        rows = {name: self.row(row)}
        if self.dose not in (None, self.regularizer.weight):
            loss = dataclasses.replace(self.regularizer, weight=self.dose)
            rows[name + MATCHED] = dataclasses.replace(self.row(row), regularizers=(loss,))
        return rows

    def regularized(self, *regularizers: Regularizer) -> Run:
        """SAR's last block (row C) under these losses: row F under SAR's."""
        return dataclasses.replace(self.row("C"), regularizers=regularizers)

    def with_recipe(self, **changes: object) -> Setting:
        """The same setting with other epochs, evaluations, …; warm-ups stay as they are."""
        return self.with_parts(recipe=dataclasses.replace(self.baseline.recipe, **changes))

    def stretched(self, factor: float) -> Setting:
        """The same setting with `factor` times as many epochs, rounded up, and warm-ups in proportion."""

        def warmup(part: Recipe | Regularizer) -> Any:
            return dataclasses.replace(part, warmup_epochs=round(part.warmup_epochs * factor))

        longer = self.with_recipe(epochs=math.ceil(self.baseline.recipe.epochs * factor))
        longer = longer.with_parts(recipe=warmup(longer.baseline.recipe))
        return dataclasses.replace(longer, regularizer=warmup(self.regularizer), drloc=warmup(self.drloc))

    def with_parts(self, **parts: object) -> Setting:
        """The same setting with other data, another recipe, … of the baseline."""
        return dataclasses.replace(self, baseline=dataclasses.replace(self.baseline, **parts))

    def under(self, protocol: Protocol) -> Setting:
        """The same setting under a protocol of its own instead of the preset's, but for the architecture."""
        model = dataclasses.replace(self.baseline.model, drop_path=protocol.drop_path)
        return self.with_parts(model=model, task=protocol.task, recipe=protocol.recipe, augmentation=protocol.augmentation)

    def with_model(self, model: Model) -> Setting:
        """The same setting for another architecture; DRLoc's weight is the one for it."""
        drloc = dataclasses.replace(self.drloc, weight=DRLOC[model.name].weight)
        return dataclasses.replace(self.with_parts(model=model), drloc=drloc)

    def cells(self, table: str, rows: Mapping[str, Run], *, epoch: int | None = None) -> list[Cell]:
        """The rows of a table on this data set. The first is the baseline that the others are compared with."""
        first = next(iter(rows))
        return [
            Cell(table=table, row=row, dataset=self.dataset, run=run, baseline=None if row == first else first, epoch=epoch)
            for row, run in rows.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of a table, which shows the final metrics of its run unless it says otherwise."""

    table: str
    row: str
    dataset: str
    run: Run  # with seed 0
    baseline: str | None = None  # the row that it is compared with; None: it is one itself
    epoch: int | None = None  # shows the metrics after so many epochs
    measurement: Measurement | None = None  # shows what is measured of the finished run

    def with_seed(self, seed: int) -> Run:
        return self.run.with_seed(seed)

    def measured(self, name: str, *, data: Data | None = None, images: int | None = None) -> Cell:
        """The same place, which shows what is measured of its finished run, by default on the run's own images."""
        return dataclasses.replace(self, measurement=Measurement(name=name, data=data or self.run.data, images=images))

    @property
    def shows_training(self) -> bool:
        """Whether it shows how the training of its run ended."""
        return self.measurement is None and self.epoch is None

    @property
    def data(self) -> str:
        """The name of the image set that it shows."""
        return (self.measurement or self.run).data.name


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the file of a table declares."""

    title: str
    cells: tuple[Cell, ...]
    tests: tuple[ClaimTest, ...] = ()
    contrasts: tuple[Contrast, ...] = ()  # differences of interest beside those from the baseline
    drawn: tuple[Cell, ...] = ()  # of a figure: what is measured of the first seed's run is arrays, not lines of the results
    floors: tuple[Cell, ...] = ()  # what cheap methods reach on the same images; shown apart, as `report.floors`
    leads: tuple[str, ...] = MAIN_METRICS
    shown: tuple[str, ...] = ()  # metrics of this table alone: "parameters", "train_loss", or of the machine
    first_seed: int = 0  # above 0 where no run may be one of another table


def at_both_doses(tests: Iterable[ClaimTest], cells: Iterable[Cell]) -> tuple[ClaimTest, ...]:
    """Each test, and on the data sets with such a row among the `cells` the same about SAR at the matched dose."""
    there = {(cell.table, cell.row, cell.dataset) for cell in cells}

    def matched(contrast: Contrast) -> Contrast:
        """The same with each row at the matched dose that has such a one."""
        terms = tuple(
            (one, *(name, row + MATCHED * ((name, row + MATCHED, on) in there), on)) for one, name, row, on in contrast.terms
        )
        label = contrast.label + MATCHED * (terms != contrast.terms)
        return dataclasses.replace(contrast, label=label, terms=terms)

    found = []
    for test in tests:
        found.append(test)
        if datasets := {one.dataset for one in test.contrasts if matched(one) != one}:
            own = test.on(datasets)
            changed = {"contrasts": tuple(map(matched, own.contrasts)), "requires": tuple(map(matched, own.requires))}
            found.append(dataclasses.replace(own, dose="matched dose", **changed))
    return tuple(found)


def trained(name: str, *, cells: Iterable[Cell], tests: Iterable[ClaimTest] = (), **rest: Any) -> Table:
    """A table of trainings from scratch: its claims at both doses of SAR's loss, the floors of its sets that are not large,
    measured beside the baseline, and how far each training got."""
    cells = tuple(cells)
    plain: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.baseline is None and cell.measurement is None and 0 < (cell.run.data.train_size or 0) <= LARGE:
            plain.setdefault(cell.dataset, []).append(cell)
    # of several in a table, the stock block's with the shortest training
    beside = [min(own, key=lambda cell: (cell.run.model.variant, cell.run.recipe.epochs)) for own in plain.values()]
    floors = tuple(dataclasses.replace(cell.measured("floors"), table=f"{name}-floors") for cell in beside)
    shown = ("train_loss", *rest.pop("shown", ()))
    return Table(cells=cells, tests=at_both_doses(tests, cells), floors=floors, shown=shown, **rest)


@dataclass(frozen=True, kw_only=True)
class Experiment(Table):
    """A table at one size, and the seeds that every cell is trained with (paired across rows)."""

    name: str
    preset: str
    seeds: tuple[int, ...]
    data_root: Path | None = None
    found: Mapping[str, Inspected] = field(default_factory=dict, compare=False)  # by name, what its sets below that hold

    def runs(self) -> Iterator[Run]:
        """Every run of the table, after those that it starts from. Cells may share runs; the store trains a shared one once."""
        for cell, seed in self._places():
            yield from cell.with_seed(seed).lineage()

    def measurements(self) -> Iterator[tuple[Run, Measurement]]:
        """What is measured of which finished run."""
        for cell, seed in self._places():
            if cell.measurement is not None:
                yield cell.with_seed(seed), cell.measurement

    def _places(self) -> Iterator[tuple[Cell, int]]:
        yield from ((cell, seed) for cell in (*self.cells, *self.floors) for seed in self.seeds)
        yield from ((cell, self.seeds[0]) for cell in self.drawn)

    @property
    def real(self) -> frozenset[str]:
        """The data sets of the table that are not embedded, by their names in it."""
        return frozenset(cell.dataset for cell in self.cells if not is_embedded(cell.data))

    def frame(self) -> pd.DataFrame:
        """The declaration as a frame to read: one line a cell."""
        import pandas as pd

        return pd.DataFrame([_describe(cell, seeds=len(self.seeds)) for cell in self.cells]).fillna("–")

    def only(self, datasets: Iterable[str]) -> Experiment:
        """The table on some of its data sets; claims are then about these, and untestable where they need others.

        `ConfigError` for unknown ones.
        """
        chosen, known = set(datasets), dict.fromkeys(cell.dataset for cell in self.cells)
        unknown = ", ".join(sorted(chosen.difference(known)))
        require(not unknown, f"{self.name} at preset {self.preset} has no data set {unknown}; it has {'; '.join(known)}")
        return dataclasses.replace(
            self,
            cells=tuple(cell for cell in self.cells if cell.dataset in chosen),
            tests=tuple(test.on(chosen) if chosen & set(test.datasets) else test for test in self.tests),
            floors=tuple(cell for cell in self.floors if cell.dataset in chosen),
            drawn=tuple(cell for cell in self.drawn if cell.dataset in chosen),
            contrasts=tuple(one for one in self.contrasts if all(dataset in chosen for *_, dataset in one.terms)),
        )


def _describe(cell: Cell, *, seeds: int) -> dict[str, object]:
    run = cell.run
    line = {
        "table": cell.table,
        "row": cell.row,
        "dataset": cell.dataset,
        "model": run.model.name,
        "last block": run.model.variant,
        "regulariser": " + ".join(each.name for each in run.regularizers) or "none",
        "lambda": run.regularizers[0].weight if run.regularizers else 0.0,
        "training images": run.data.train_size or "all",
        "epochs": run.recipe.epochs,
        "steps": run.recipe.epochs * max(1, size // run.recipe.batch_size) if (size := run.data.train_size) else "–",
        "batch": run.recipe.batch_size,
        "pixels": run.data.image_size,
        "grid": f"{run.grid} x {run.grid}",
        "seeds": seeds,
        "key (seed 0)": run.key,
    }
    return line if cell.measurement is None else line | {"measured": cell.measurement.name}
