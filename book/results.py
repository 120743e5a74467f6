"""Reads every table of results below a folder of runs, the reader's own and the committed ones, with its declaration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sarlib import experiments, report
from sarlib.config import ConfigError
from sarlib.experiments.claims import Contrast
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import read_csv
from sarlib.report.statistics import Interval, mean_interval, paired_values
from sarlib.run import Run
from sarlib.runner.store import Store

YOURS, REFERENCE = "yours", "reference"
MAIN_PRESET = "laptop"  # the one that a notebook's own page shows; other presets with results get a page below it


@dataclass(frozen=True, eq=False)
class Place:
    """A table at a preset, and whose results of it are meant."""

    name: str
    preset: str
    whose: str

    @property
    def file(self) -> str:
        """Its page, without ending."""
        return self.name if self.preset == MAIN_PRESET else f"{self.name}-{self.preset}"

    @property
    def link(self) -> str:
        return f"[{self.name}]({self.file})"

    @property
    def command(self) -> str:
        return f"make {self.name}" + ("" if self.preset == MAIN_PRESET else f" PRESET={self.preset}")


@dataclass(frozen=True, eq=False)
class Found(Place):
    """The results of one table at one preset, and the declaration with the seeds and the data sets that they have."""

    path: Path
    results: pd.DataFrame
    declared: Experiment  # as it is declared today: the paper's claims are tested on this
    experiment: Experiment  # the same with the rows that are in the results
    earlier: str = ""  # in what the results are of another declaration than today's

    @property
    def again(self) -> str:
        """The command that makes these results again."""
        seeds = self.results["seed"].nunique()
        own = "" if seeds == experiments.PRESETS[self.preset].seeds else f" SEEDS={seeds}"
        return self.command + own + (" DATA=folder" if self.declared.real else "")

    @property
    def store(self) -> Path:
        return self.path.parent.parent / "store"

    def interval(self, contrast: Contrast, metric: str) -> Interval:
        """Of a difference, over the seeds that it can be paired by."""
        return mean_interval(paired_values(self.results, contrast.terms, metric=metric))

    def course(self, key: str) -> pd.DataFrame | None:
        """epoch, split, metric and value of a run over its training; None where the store lacks it."""
        path = self.store / key / "metrics.csv"
        return pd.read_csv(path) if path.exists() else None


def telling(everything: Iterable[Found]) -> list[Found]:
    """Those that the chapters speak of and claims are judged by. Not so `tiny`, which is too small to say anything, and what is
    of an earlier declaration and answers another question: they have their own pages and no more."""
    return [found for found in everything if found.preset != "tiny" and not found.earlier]


def collect(runs: Path, names: tuple[str, ...] = experiments.TABLES) -> tuple[list[Found], list[str]]:
    """All that is there, in the order of the tables and with the reader's own before the reference, and what cannot be read."""
    found, refused = [], []
    for name in ordered(names):
        for whose, folder in ((YOURS, runs), (REFERENCE, runs / "reference")):
            for path in sorted(folder.glob(f"*/{name}.csv")):
                if path.parent.name in experiments.PRESETS:
                    try:
                        found.append(read(path, whose))
                    except ConfigError as error:
                        refused.append(f"{whose} {path.parent.name}/{path.name}: {str(error).replace(f'{runs}/', '')}")
    return found, refused


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
    rows = results[~results["table"].isin([cell.table for cell in experiment.floors])]  # which are shown apart
    places = rows.drop_duplicates(["table", "dataset", "row"])[["table", "dataset", "row", "key"]]
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
