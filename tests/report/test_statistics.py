"""Intervals against scipy's own tests; pairing by seed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sarlib.report.statistics import mean_interval, paired_values, welch_interval

SAMPLES = [np.random.default_rng(n).normal(0.4, 2.0, n) for n in (2, 3, 8, 30)]


@pytest.mark.parametrize("level", [0.95, 0.99])
@pytest.mark.parametrize("sample", SAMPLES, ids=len)
def test_mean_interval_is_the_one_sample_t_interval(sample: np.ndarray, level: float) -> None:
    expected = stats.ttest_1samp(sample, 0.0)
    bounds = expected.confidence_interval(level)
    ours = mean_interval(sample, level=level)
    assert (ours.low, ours.high, ours.p) == pytest.approx((bounds.low, bounds.high, expected.pvalue), rel=1e-12)
    assert (ours.mean, ours.n) == (pytest.approx(sample.mean()), len(sample))
    assert ours.half_width == pytest.approx((bounds.high - bounds.low) / 2)


def test_a_value_that_is_not_finite_is_left_out() -> None:
    assert mean_interval([1.0, math.nan, 2.0, math.inf, 4.0]) == mean_interval([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("sample", "mean"), [([], math.nan), ([math.nan], math.nan), ([3.5], 3.5)], ids=["none", "failed", "one"]
)
def test_fewer_than_two_values_have_no_interval(sample: list[float], mean: float) -> None:
    interval = mean_interval(sample)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(bound) for bound in (interval.low, interval.high, interval.p))
    assert not interval.degenerate and not interval.contains(mean)


def test_equal_values_have_a_point_that_is_marked_as_no_evidence() -> None:
    interval = mean_interval([81.2 - 80.1, 51.2 - 50.1, 1.1])  # equal but for rounding
    assert interval.degenerate and interval.high - interval.low < 1e-9 and math.isnan(interval.p)
    assert not mean_interval([1.0, 1.001, 1.0]).degenerate


def test_welch_interval_is_scipys() -> None:
    first, second = SAMPLES[1], SAMPLES[2]
    expected = stats.ttest_ind(first, second, equal_var=False)
    bounds = expected.confidence_interval(0.95)
    ours = welch_interval(first, [*second, math.nan])
    assert (ours.low, ours.high, ours.p) == pytest.approx((bounds.low, bounds.high, expected.pvalue), rel=1e-12)
    assert math.isnan(welch_interval(first, [1.0]).low)
    assert (point := welch_interval([2.0, 2.0], [1.0, 1.0])).low == point.high == 1.0


def frame(cells: dict[str, dict[int, float]]) -> pd.DataFrame:
    lines = [
        ("table2", row, "shapes", seed, "top1", value, "%", "")
        for row, values in cells.items()
        for seed, value in values.items()
    ]
    return pd.DataFrame(lines, columns=["table", "row", "dataset", "seed", "metric", "value", "unit", "key"])


def test_a_paired_difference_is_the_related_samples_t_test_whatever_the_order_of_the_lines() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(50, 10, 6)
    other = base + rng.normal(1, 1, 6)
    results = frame({"A": dict(enumerate(base)), "F": dict(enumerate(other))}).sample(frac=1, random_state=0)
    values = paired_values(results, ((1, "table2", "F", "shapes"), (-1, "table2", "A", "shapes")), metric="top1")
    expected = stats.ttest_rel(other, base)
    bounds = expected.confidence_interval(0.95)
    ours = mean_interval(values)
    assert (ours.low, ours.high, ours.p) == pytest.approx((bounds.low, bounds.high, expected.pvalue), rel=1e-9)
    assert list(values.index) == list(range(6))


def test_a_seed_counts_only_where_every_cell_has_a_finite_value() -> None:
    results = frame({"A": {0: 10.0, 1: 20.0, 2: math.nan, 4: 1.0}, "F": {0: 11.0, 1: 23.0, 2: 5.0, 3: 9.0}})
    values = paired_values(results, ((1, "table2", "F", "shapes"), (-1, "table2", "A", "shapes")), metric="top1")
    assert values.to_dict() == {0: 1.0, 1: 3.0}
    assert paired_values(results, ((1, "table2", "F", "shapes"), (-1, "table2", "B", "shapes")), metric="top1").empty


def test_a_difference_of_differences_takes_four_cells() -> None:
    results = frame({"a": {0: 1.0, 1: 2.0}, "b": {0: 10.0, 1: 40.0}, "c": {0: 100.0, 1: 500.0}, "d": {0: 1000.0, 1: 9000.0}})
    terms = tuple((sign, "table2", row, "shapes") for sign, row in ((1, "d"), (-1, "c"), (-1, "b"), (1, "a")))
    assert paired_values(results, terms, metric="top1").to_dict() == {0: 891.0, 1: 8462.0}
