"""How measurements are written, in tables, in the terminal and in figures: decimals, units, mean ± half-width, intervals."""

from __future__ import annotations

import math

import pandas as pd

from sarlib.report.statistics import Interval

GAP = "–"  # where there is no number
_DECIMALS = {"top1": 2, "top5": 2, "components": 2, "seconds": 1, "images_per_second": 0, "parameters": 2}


def heading(results: pd.DataFrame, metric: str) -> str:
    """The metric with the unit that `results` give for it, if it has one."""
    units = results.loc[results["metric"] == metric, "unit"]
    unit = units.iloc[0] if len(units) else ""
    return metric if unit in ("", "1") else f"{metric} ({unit})"


def decimals(metric: str) -> int:
    return _DECIMALS.get(metric.removesuffix("_ema"), 3)  # x_ema: of an exponential moving average of the weights


def number(value: float, metric: str) -> str:
    return GAP if math.isnan(value) else f"{value:.{decimals(metric)}f}"


def signed(value: float, metric: str) -> str:
    return GAP if math.isnan(value) else f"{value:+.{decimals(metric)}f}"


def bounds(interval: Interval, metric: str) -> str:
    return GAP if math.isnan(interval.low) else f"[{signed(interval.low, metric)}, {signed(interval.high, metric)}]"


def plus_minus(interval: Interval, metric: str, *, n: int | None = None, difference: bool = False) -> str:
    """mean ± half-width; without ± below two values; with its own number of seeds where that is below the line's `n`."""
    mean = (signed if difference else number)(interval.mean, metric)
    spread = "" if interval.n < 2 else f" ± {number(interval.half_width, metric)}"
    return mean + spread + (f" (n={interval.n})" if n is not None and 0 < interval.n < n else "")
