"""What a few seeds can tell: the values of a table's cells, their differences within a seed, and t intervals on both.

Three to eight values are a small sample, so every interval here is a t interval and never a normal one. Two cells share their
seeds, and with a seed its training subset and its initialisation; the variance these have in common cancels in the difference,
which is why contrasts are formed per seed before anything is averaged. Values that are not finite (failed runs) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sarlib.config import ConfigError, require
from sarlib.experiments.claims import Contrast, Term, difference
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.run import Measurement, Run
from sarlib.runner.store import Store
from sarlib.tasks.metrics import REFERENCES

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of `n` values and its two-sided interval, in the unit of the values; `low` and `high` are NaN for fewer than two.
    `p` is the two-sided p value of "the mean is 0"; it is NaN where there are too few values or no spread."""

    mean: float
    low: float
    high: float
    n: int
    p: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def degenerate(self) -> bool:
        """Whether all values are equal to within rounding. Such a sample estimates no variance: its interval is a point, not
        evidence. It happens where a test set is so small that few accuracies are possible."""
        return self.n >= 2 and self.high - self.low <= 1e-9 * max(1.0, abs(self.mean))

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: Iterable[float], *, level: float = LEVEL) -> Interval:
    """t interval of the mean of independent `values`; those that are not finite are left out."""
    sample = _finite(values)
    n = len(sample)
    if n < 2:
        return Interval(mean=float(sample[0]) if n else math.nan, low=math.nan, high=math.nan, n=n, p=math.nan)
    return _t_interval(float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n), df=n - 1, n=n, level=level)


def welch_interval(first: Iterable[float], second: Iterable[float], *, level: float = LEVEL) -> Interval:
    """Interval of mean(first) - mean(second) for two unpaired samples of unequal variance (Welch 1947). `n` is that of the
    smaller sample; below two values on either side the bounds are NaN."""
    samples = [_finite(first), _finite(second)]
    n = min(map(len, samples))
    if n < 2:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=n, p=math.nan)
    squares = [float(sample.var(ddof=1)) / len(sample) for sample in samples]  # squared standard errors
    total = sum(squares)
    freedom = sum(square**2 / (len(sample) - 1) for square, sample in zip(squares, samples, strict=True))
    df = total**2 / freedom if freedom > 0 else 1.0  # without any spread the interval is a point whatever df is
    mean = float(samples[0].mean() - samples[1].mean())
    return _t_interval(mean, math.sqrt(total), df=df, n=n, level=level)


def seeds_needed(interval: Interval, effect: float) -> int:
    """How many values like those of a 95 % interval it takes until a two-sided t test finds a mean of `effect` with `POWER`."""
    from scipy import special

    deviation = interval.half_width * math.sqrt(interval.n) / special.stdtrit(interval.n - 1, 0.5 + LEVEL / 2)
    z = special.ndtri([0.5 + LEVEL / 2, POWER]).sum()
    n = max(2, math.ceil((z * deviation / effect) ** 2))  # the normal approximation, which is never too many

    def power(n: int) -> float:
        return 1 - special.nctdtr(n - 1, effect / deviation * math.sqrt(n), special.stdtrit(n - 1, 0.5 + LEVEL / 2))

    while power(n) < POWER:
        n += 1
    return n


def _finite(values: Iterable[float]) -> np.ndarray:
    sample = np.asarray(list(values), dtype=float)
    return sample[np.isfinite(sample)]


def _t_interval(mean: float, error: float, *, df: float, n: int, level: float) -> Interval:
    from scipy import special  # scipy.stats has the same functions and takes seconds to import

    half = float(special.stdtrit(df, 0.5 + level / 2)) * error
    interval = Interval(mean=mean, low=mean - half, high=mean + half, n=n, p=math.nan)
    return interval if interval.degenerate else replace(interval, p=float(2 * special.stdtr(df, -abs(mean) / error)))


def lines(results: pd.DataFrame, table: str, row: str, dataset: str) -> pd.DataFrame:
    """The lines of `results` that belong to one cell."""
    return results[(results["table"] == table) & (results["row"] == row) & (results["dataset"] == dataset)]


def paired_values(results: pd.DataFrame, terms: Sequence[Term], *, metric: str) -> pd.Series:
    """The linear combination sum(coefficient * cell), once per seed, float64, indexed by seed in ascending order.

    Only seeds for which every cell has a finite value count: without it, different training subsets would be compared.
    """
    finite = results[(results["metric"] == metric) & np.isfinite(results["value"].astype(float))]
    cells = [coefficient * lines(finite, *place).set_index("seed")["value"] for coefficient, *place in terms]
    return pd.concat(cells, axis=1, join="inner").astype(float).sum(axis=1).sort_index()


def values(results: pd.DataFrame, cell: Cell, metric: str) -> pd.Series:
    """Finite values of the cell by seed; empty where it has none."""
    return paired_values(results, ((1.0, cell.table, cell.row, cell.dataset),), metric=metric)


def from_baselines(cells: Sequence[Cell]) -> list[Contrast]:
    """The differences of those cells that have a baseline from it."""
    compared = [cell for cell in cells if cell.baseline is not None]
    places = [{"table": cell.table, "dataset": cell.dataset, "label": f"{cell.row} − {cell.baseline}"} for cell in compared]
    return [difference(cell.row, cell.baseline, **place) for cell, place in zip(compared, places, strict=True)]


def groups(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Cells by (table, data set), in the order in which the declaration first names them."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell.table, cell.dataset), []).append(cell)
    return grouped


def part(experiment: Experiment, table: str | None) -> tuple[Cell, ...]:
    """The cells of one part of the table, such as "table1c", or all. `ConfigError` for a part that it does not have."""
    cells = tuple(cell for cell in experiment.cells if table in (None, cell.table))
    if not cells:
        known = ", ".join(dict.fromkeys(cell.table for cell in experiment.cells))
        raise ConfigError(f"{experiment.name} has no part {table!r}; choose from {known}")
    return cells


def leading(results: pd.DataFrame, experiment: Experiment, cells: Sequence[Cell]) -> list[str]:
    """What a table of these cells leads with, of what `results` hold: the experiment's metrics; where the cells show a
    measurement, all that it measured of the model, those first if it has them all."""
    if any(cell.measurement for cell in cells):
        there = pd.concat([lines(results, cell.table, cell.row, cell.dataset)["metric"] for cell in cells]).unique()
        others = [name for name in there if not any(name in beside for beside in REFERENCES.values())]
        named = experiment.leads if set(experiment.leads) <= set(others) else ()
        return list(dict.fromkeys([*named, *others]))
    there = results.loc[results["table"].isin({cell.table for cell in cells}), "metric"]
    return [name for name in experiment.leads if (there == name).any()]


def by_epoch(results: pd.DataFrame, cells: Sequence[Cell], metric: str) -> dict[str, pd.DataFrame]:
    """The metric of each row by seed (index) and epoch (columns), under the row's name without its epoch ("ViT, epoch 3")."""
    found: dict[str, dict[int, pd.Series]] = {}
    for cell in sorted(cells, key=lambda cell: cell.epoch):
        row = cell.row.removesuffix(f", epoch {cell.epoch}")
        found.setdefault(row, {})[cell.epoch] = values(results, cell, metric)
    return {row: pd.concat(epochs, axis=1) for row, epochs in found.items()}


def arrays(store: Store, run: Run, measurement: Measurement, *, what: str) -> dict[str, Any]:
    """What the `store` has of a measurement beside metrics. `ConfigError` where `what` that is is not there."""
    found = store.read_measured(run, measurement)
    require(found is not None, f"{what} are not in {store.root}: run the table first")
    return found["arrays"]
