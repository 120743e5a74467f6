"""Calculates what all claims of the book say together: correction for their number, and the mean effect over data sets.

holm            p values of many claims, corrected so that the chance of one false decision among all stays 5 % (Holm 1979).
random_effects  the mean of an effect that differs between data sets, and where that of a new set is expected: DerSimonian and
                Laird's variance between sets (1986), Hartung and Knapp's interval of the mean (2001), and the prediction
                interval of Higgins, Thompson and Spiegelhalter (2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from sarlib.report.judgement import CONTRADICTED, FEWEST_SEEDS, SUPPORTED
from sarlib.report.statistics import LEVEL, Interval

#: Fewer sets estimate no variance between sets.
FEWEST_SETS = 3


class Effects(NamedTuple):
    """Over data sets: the mean with its 95 % interval, a new set's interval, and the standard deviation between sets."""

    mean: Interval
    new: Interval
    between: float


def random_effects(intervals: Sequence[Interval]) -> Effects | None:
    """Of one effect measured on several data sets; None for fewer than three, or where one has no spread."""
    used = [each for each in intervals if each.n >= FEWEST_SEEDS and not each.degenerate]
    if len(used) < max(FEWEST_SETS, len(intervals)):
        return None
    means = np.array([each.mean for each in used])
    quantiles = special.stdtrit(np.array([each.n - 1 for each in used]), 0.5 + LEVEL / 2)
    variances = (np.array([each.half_width for each in used]) / quantiles) ** 2
    n, weights = len(used), 1 / variances
    fixed = (weights * means).sum() / weights.sum()
    excess = (weights * (means - fixed) ** 2).sum() - (n - 1)
    between = max(0.0, excess / (weights.sum() - (weights**2).sum() / weights.sum()))
    weights = 1 / (variances + between)
    mean = (weights * means).sum() / weights.sum()
    error = math.sqrt((weights * (means - mean) ** 2).sum() / ((n - 1) * weights.sum()))
    half = special.stdtrit(n - 1, 0.5 + LEVEL / 2) * error
    new = special.stdtrit(n - 2, 0.5 + LEVEL / 2) * math.sqrt(between + 1 / weights.sum())
    over, another = (
        Interval(mean=float(mean), low=float(mean - each), high=float(mean + each), n=n, p=math.nan) for each in (half, new)
    )
    return Effects(over, another, math.sqrt(between))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order given; NaN stays NaN and does not count."""
    known = sorted((value, index) for index, value in enumerate(values) if not math.isnan(value))
    corrected, largest = [math.nan] * len(values), 0.0
    for rank, (value, index) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        corrected[index] = largest
    return corrected


def p_value(intervals: Sequence[Interval], verdict: str, *, rule: str) -> float:
    """Two-sided p of the verdict's direction by the rules of `sarlib.report.judgement`, of the likelier one without a verdict.

    NaN where a contrast has no interval. Of m contrasts, a conjunction needs the largest p, a choice m times the smallest.
    """
    if not intervals or any(each.n < FEWEST_SEEDS or math.isnan(each.p) for each in intervals):
        return math.nan
    above = [each.p / 2 if each.mean > 0 else 1 - each.p / 2 for each in intervals]
    below = [1 - p for p in above]
    conjunction, choice = max, lambda ps: len(ps) * min(ps)
    support, contradict = (conjunction, choice) if rule == "all" else (choice, conjunction)
    chosen = {SUPPORTED: support(above), CONTRADICTED: contradict(below)}
    return min(1.0, 2 * chosen.get(verdict, min(chosen.values())))
