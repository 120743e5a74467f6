"""How measurements are written, in tables, in the terminal and in figures: decimals, units, mean ± half-width, intervals."""

from __future__ import annotations

import codecs
import math

from sarlib.report.statistics import Interval
from sarlib.tasks import metrics

GAP = "–"  # where there is no number
#: What is written where a terminal cannot show a character; a ? stands for all others.
_PLAIN = {"±": "+/-", "−": "-", "–": "-", "·": "-", "…": "...", "λ": "lambda"}


def heading(metric: str) -> str:
    """The metric with its unit, if it has one."""
    unit = metrics.metric(metric).unit
    return metric if unit in ("", "1") else f"{metric} ({unit})"


def number(value: float, metric: str, sign: str = "") -> str:
    return GAP if math.isnan(value) else f"{value:{sign}.{metrics.metric(metric).decimals}f}"


def bounds(interval: Interval, metric: str) -> str:
    return GAP if math.isnan(interval.low) else f"[{number(interval.low, metric, '+')}, {number(interval.high, metric, '+')}]"


def plus_minus(interval: Interval, metric: str, *, n: int | None = None, difference: bool = False) -> str:
    """mean ± half-width; without ± below two values; with its own number of seeds where that is below the line's `n`."""
    mean = number(interval.mean, metric, "+" if difference else "")
    spread = "" if interval.n < 2 else f" ± {number(interval.half_width, metric)}"
    return mean + spread + (f" (n={interval.n})" if n is not None and 0 < interval.n < n else "")


def encodable(text: str, encoding: str) -> str:
    """`text` in characters that `encoding` has: "+/-" for "±" where it must be."""
    return text.encode(encoding, "sarlib.plain").decode(encoding)


codecs.register_error("sarlib.plain", lambda error: (_PLAIN.get(error.object[error.start], "?"), error.start + 1))
