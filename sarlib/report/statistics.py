"""What a few seeds can tell: Student's t intervals on per-seed values, contrasts paired by seed, Welch's interval.

A cell is one (table, row, data set). Its values over seeds are a small sample, three to eight numbers, so every interval here
is a t interval and never a normal one. Two cells share their seeds, and with a seed its training subset and its initialisation;
the variance these have in common cancels in the difference within a seed, which is why contrasts are formed per seed before
anything is averaged. Values that are not finite (failed runs) are left out, and `n` says how many remained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special  # scipy.stats has the same functions and takes seconds to import

from sarlib.experiments.claims import Term

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of `n` values and its two-sided interval, in the unit of the values.

    `low` and `high` are NaN for fewer than two values. `p` is the two-sided p value of "the mean is 0"; it is NaN where there
    are too few values or no spread.
    """

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
    sample = np.asarray(list(values), dtype=float)
    sample = sample[np.isfinite(sample)]
    n = len(sample)
    if n < 2:
        return Interval(mean=float(sample[0]) if n else math.nan, low=math.nan, high=math.nan, n=n, p=math.nan)
    return _t_interval(float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n), df=n - 1, n=n, level=level)


def welch_interval(first: Iterable[float], second: Iterable[float], *, level: float = LEVEL) -> Interval:
    """Interval of mean(first) - mean(second) for two unpaired samples of unequal variance (Welch 1947). `n` is that of the
    smaller sample; below two values on either side the bounds are NaN."""
    samples = [np.asarray(list(sample), dtype=float) for sample in (first, second)]
    samples = [sample[np.isfinite(sample)] for sample in samples]
    n = min(map(len, samples))
    if n < 2:
        return Interval(mean=math.nan, low=math.nan, high=math.nan, n=n, p=math.nan)
    squares = [float(sample.var(ddof=1)) / len(sample) for sample in samples]  # squared standard errors
    total = sum(squares)
    freedom = sum(square**2 / (len(sample) - 1) for square, sample in zip(squares, samples, strict=True))
    df = total**2 / freedom if freedom > 0 else 1.0  # without any spread the interval is a point whatever df is
    mean = float(samples[0].mean() - samples[1].mean())
    return _t_interval(mean, math.sqrt(total), df=df, n=n, level=level)


def _t_interval(mean: float, error: float, *, df: float, n: int, level: float) -> Interval:
    half = float(special.stdtrit(df, 0.5 + level / 2)) * error
    interval = Interval(mean=mean, low=mean - half, high=mean + half, n=n, p=math.nan)
    if interval.degenerate:
        return interval
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n, p=float(2 * special.stdtr(df, -abs(mean) / error)))


def cell_values(results: pd.DataFrame, table: str, row: str, dataset: str, *, metric: str) -> pd.Series:
    """Finite values of one cell, float64, indexed by seed in ascending order; empty where the cell has none."""
    here = (
        (results["table"] == table) & (results["row"] == row) & (results["dataset"] == dataset) & (results["metric"] == metric)
    )
    values = results.loc[here].set_index("seed")["value"].astype(float).sort_index()
    return values[np.isfinite(values)]


def paired_values(results: pd.DataFrame, terms: Sequence[Term], *, metric: str) -> pd.Series:
    """The linear combination sum(coefficient * cell), once per seed, indexed by seed.

    Only seeds for which every cell has a finite value count: without it, different training subsets would be compared.
    """
    cells = [coefficient * cell_values(results, *cell, metric=metric) for coefficient, *cell in terms]
    return pd.concat(cells, axis=1, join="inner").sum(axis=1)
