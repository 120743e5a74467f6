"""Every table of results below a folder of runs, the reader's own and the committed ones, with the declaration to read it
by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sarlib import experiments, report
from sarlib.config import ConfigError
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import read_csv
from sarlib.run import Run
from sarlib.runner.store import Store

YOURS, REFERENCE = "yours", "reference"


@dataclass(frozen=True, eq=False)
class Found:
    """The results of one table at one preset: `whose`, and the declaration with the seeds and the data sets that they have."""

    name: str
    preset: str
    whose: str
    path: Path
    results: pd.DataFrame
    declared: Experiment  # as it is declared today: the paper's claims are tested on this
    experiment: Experiment  # the same with the rows that are in the results
    earlier: str = ""  # in what the results are of another declaration than today's

    @property
    def store(self) -> Path:
        return self.path.parent.parent / "store"

    @property
    def command(self) -> str:
        return f"make {self.name}" + ("" if self.preset == "laptop" else f" PRESET={self.preset}")

    @property
    def page(self) -> str:
        return self.name if self.preset == "laptop" else f"{self.name}-{self.preset}"


def collect(runs: Path) -> tuple[list[Found], list[str]]:
    """All that is there, in the order of the tables and with the reader's own before the reference, and what cannot be read."""
    found, refused = [], []
    for name in ordered(experiments.TABLES):
        for whose, folder in ((YOURS, runs), (REFERENCE, runs / "reference")):
            for path in sorted(folder.glob(f"*/{name}.csv")):
                if path.parent.name in experiments.PRESETS:
                    try:
                        found.append(read(path, whose))
                    except ConfigError as error:
                        refused.append(f"{whose} {path.parent.name}/{path.name}: {_from_runs(str(error), runs)}")
    return found, refused


def telling(everything: Iterable[Found]) -> list[Found]:
    """Those that the chapters speak of and claims are judged by. Not so `tiny`, which is too small to say anything, and what is
    of an earlier declaration and answers another question: they have their own pages and no more."""
    return [found for found in everything if found.preset != "tiny" and not found.earlier]


def _from_runs(message: str, runs: Path) -> str:
    return message.replace(f"{runs}/", "")


def read(path: Path, whose: str) -> Found:
    """Results and declaration of the CSV at <preset>/<table>.csv. `ConfigError` if one cannot be had."""
    results, name, preset, store = read_csv(path), path.stem, path.parent.name, Store(path.parent.parent / "store")
    declared = experiments.declare_again(name, results, preset=preset, store=store)
    earlier = report.of_earlier(results, declared, store.root)
    return Found(name, preset, whose, path, results, declared, with_rows_of(results, declared, store.root), earlier)


def with_rows_of(results: pd.DataFrame, experiment: Experiment, store: Path) -> Experiment:
    """The declaration of what the results hold: with the rows and sets that only they have, as those of an earlier declaration,
    and without sets that they lack. A cell shows the run that the `store` has of it."""
    declared = {(cell.table, cell.dataset, cell.row): cell for cell in experiment.cells}
    baselines = {(cell.table, cell.row): cell.baseline for cell in experiment.cells}
    cells, firsts = [], {}
    places = results.drop_duplicates(["table", "dataset", "row"])[["table", "dataset", "row", "key"]]
    for table, dataset, row, key in places.itertuples(index=False):
        first = firsts.setdefault((table, dataset), row)
        cell, run = declared.get((table, dataset, row)), _stored(store, key)
        if cell and run:
            cell = dataclasses.replace(cell, run=run)  # what was really run, where the declaration has changed since
        elif run:
            baseline = baselines.get((table, row), None if row == first else first)
            cell = Cell(table=table, row=row, dataset=dataset, run=run, baseline=baseline)
        cells += [cell] if cell else []
    there = {(cell.table, cell.dataset, cell.row) for cell in cells}
    sets = {place[:2] for place in there}
    cells += [cell for place, cell in declared.items() if place[:2] in sets and place not in there]  # failed rows
    return dataclasses.replace(experiment, cells=tuple(cells))


def _stored(store: Path, key: str) -> Run | None:
    """The run called `key`, from its declaration in the store; None where that is not there or of another version."""
    try:
        return Run.from_dict(json.loads((store / key / "config.json").read_text(encoding="utf-8"))).with_seed(0)
    except (OSError, ValueError, KeyError, TypeError):  # ConfigError is a ValueError
        return None


def ordered(names: tuple[str, ...]) -> list[str]:
    """The headline first, then tables and figures by number, then all others as they come."""

    def place(name: str) -> tuple[int, int, int]:
        kind = name.rstrip("0123456789")
        first = ["headline", "table", "figure", "appendix"]
        kinds = first.index(kind) if kind in first else len(first)
        return kinds, int(name.removeprefix(kind) or 0), names.index(name)

    return sorted(names, key=place)
