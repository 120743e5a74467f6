"""Timing several ways of doing the same thing in turns, so that whatever else the machine does falls on all of them alike.

In every round each side runs once. Their order is drawn anew and balanced: within as many rounds as there are sides, each side
comes once at every position. A ratio is formed within a round, where both sides have met the same clock speed and load.
"""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

LEVEL = 0.95
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)

Setting = str | int | float | bool


class Unequal(RuntimeError):
    """Two sides of a comparison give different results: their times cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way of doing the work: `run` does it `repeats` times a call."""

    name: str
    run: Callable[[], Any]
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a comparison is measured: about `seconds`, within the limits on rounds; a sample at least `sample_seconds`."""

    seconds: float
    rounds: tuple[int, int]
    sample_seconds: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that one side takes for the work once, one sample a round, each the mean over `calls` calls in a row."""

    name: str
    samples: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Smallest sample, quartiles, largest sample."""
        return tuple(np.quantile(self.samples, QUANTILES).tolist())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the median, in seconds."""
        return _interval_of_median(np.asarray(self.samples))


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of `side` over time of `over`: median over rounds, with its 95 % bootstrap interval."""

    side: str
    over: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """`side` gave the same `what` as `against`: the largest difference found, and the largest one allowed."""

    side: str
    against: str
    what: str
    difference: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One comparison: what was measured under which settings, and what was checked before. Ratios are over the first side."""

    name: str
    settings: dict[str, Setting]
    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number that is no time: a count, a share, a size."""

    name: str
    settings: dict[str, Setting]
    value: float
    unit: str


def measure(
    name: str,
    sides: Sequence[Side],
    *,
    effort: Effort,
    now: Callable[[], float],
    settings: dict[str, Setting],
    checks: Iterable[Check] = (),
    pairs: Iterable[tuple[str, str]] = (),
    seed: int = 0,
) -> Measurement:
    """Time `sides` in turns. Ratios: every side over the first one, and those of the `pairs` (side, over).

    `now` returns seconds; on a GPU it waits for the device first (`clock`).
    """
    timings = interleave(sides, effort=effort, now=now, seed=seed)
    by_name = {timing.name: timing for timing in timings}
    wanted = [(side.name, sides[0].name) for side in sides[1:]] + list(pairs)
    ratios = tuple(ratio(by_name[side], by_name[over]) for side, over in wanted)
    return Measurement(name=name, settings=settings, timings=timings, ratios=ratios, checks=tuple(checks))


def interleave(sides: Sequence[Side], *, effort: Effort, now: Callable[[], float], seed: int = 0) -> tuple[Timing, ...]:
    """One `Timing` a side, with as many samples each; the garbage collector waits meanwhile. First calls are not counted."""
    calls, expected = [], 0.0
    for side in sides:
        side.run()  # may compile
        once = timeit.timeit(side.run, number=1, timer=now)
        calls.append(max(1, math.ceil(effort.sample_seconds / max(once, 1e-9))))
        expected += once * calls[-1]
    samples: list[list[float]] = [[] for _ in sides]
    for order in orders(len(sides), _rounds(effort, expected, len(sides)), seed=seed):
        for i in order:
            elapsed = timeit.timeit(sides[i].run, number=calls[i], timer=now)
            samples[i].append(elapsed / (calls[i] * sides[i].repeats))
    measured = zip(sides, samples, calls, strict=True)
    return tuple(Timing(name=side.name, samples=tuple(taken), calls=count) for side, taken, count in measured)


def orders(sides: int, rounds: int, *, seed: int = 0) -> Iterator[list[int]]:
    """The order of `sides` in each of `rounds` rounds: blocks of all rotations of a permutation, drawn anew for each block."""
    rng = np.random.default_rng(seed)
    for start in range(0, rounds, sides):
        permutation = rng.permutation(sides)
        for shift in range(min(sides, rounds - start)):
            yield np.roll(permutation, -shift).tolist()


def ratio(side: Timing, over: Timing) -> Ratio:
    """Median over the rounds of side's time over `over`'s, and its percentile bootstrap interval over rounds.

    In logarithms, so that side over `over` and its inverse are judged alike and the effect of who comes first cancels.
    """
    logs = np.log(side.samples) - np.log(over.samples)
    low, high = _interval_of_median(logs)
    return Ratio(side=side.name, over=over.name, value=math.exp(np.median(logs)), low=math.exp(low), high=math.exp(high))


def require_equal(side: str, against: str, *, what: str, found: Tensor, reference: Tensor, tolerance: float) -> Check:
    """Check that `side` has `found` the `reference` of `against`; differences are relative to the reference's largest value.

    Raises `Unequal` where one exceeds `tolerance` or is NaN, or the shapes differ.
    """
    differ = f"{side} and {against} differ in {what}"
    if found.shape != reference.shape:
        raise Unequal(f"{differ}: shapes {tuple(found.shape)} and {tuple(reference.shape)}")
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    scale = reference.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    difference = ((found - reference).abs().max() / scale).item()
    if not difference <= tolerance:
        raise Unequal(f"{differ}: by {difference:.2g} of its largest value, allowed are {tolerance:.2g}")
    return Check(side=side, against=against, what=what, difference=difference, tolerance=tolerance)


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds of a monotonic clock; on a GPU read after all that was launched there is done."""
    if device.type != "cuda":
        return time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _interval_of_median(values: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap; the same values give the same interval."""
    outcome = stats.bootstrap((values,), np.median, confidence_level=LEVEL, method="percentile", rng=np.random.default_rng(0))
    return float(outcome.confidence_interval.low), float(outcome.confidence_interval.high)


def _rounds(effort: Effort, expected: float, sides: int) -> int:
    """As many as fit within the limits, in whole balanced blocks; fewer than one block only where the sides are that slow."""
    least, most = effort.rounds
    rounds = min(most, max(least, int(effort.seconds / max(expected, 1e-9))))
    return rounds - rounds % sides if rounds >= sides else rounds
