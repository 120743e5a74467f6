"""Gains against sizes, and what intervals say by themselves, from constructed results."""

from __future__ import annotations

import io
import warnings

import pandas as pd
import pytest
from constructed import cell, declared

matplotlib = pytest.importorskip("matplotlib", reason="the book extra is not installed")
pytest.importorskip("seaborn", reason="the book extra is not installed")
matplotlib.use("agg")

from sarlib import report  # noqa: E402
from sarlib.config import ConfigError  # noqa: E402
from sarlib.experiments.claims import difference  # noqa: E402
from sarlib.experiments.results import COLUMNS  # noqa: E402
from sarlib.report.figures import ACCENT, BELOW, INK  # noqa: E402

#: By size: millions of parameters, and what SAR adds to each seed.
SIZES = {"small": (0.5, (4.0, 5.0, 6.0)), "medium": (2.0, (-1.0, 0.0, 2.0)), "large": (8.0, (-4.0, -5.0, -4.5))}
TABLE = declared(
    [cell("future-size", f"{size}{sar}", "d", size if sar else None) for size in SIZES for sar in ("", " + SAR")],
    seeds=(0, 1, 2),
    contrasts=(difference("large + SAR", "small + SAR", table="future-size", dataset="d", label="large above small"),),
)


def results() -> pd.DataFrame:
    lines = []
    for size, (parameters, added) in SIZES.items():
        for seed, more in enumerate(added):
            for row, value in ((size, 50.0 + seed), (f"{size} + SAR", 50.0 + seed + more)):
                lines += [("future-size", row, "d", seed, "top1", value, "%", "k")]
                lines += [("future-size", row, "d", seed, "parameters", parameters, "M", "k")]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def test_gains_stand_above_their_parameters_in_the_colour_of_what_they_say() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = report.gains(results(), TABLE, table="future-size")
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and "parameters (M)" in axes.get_xlabel() and "points" in axes.get_ylabel()
    drawn = {
        line.get_xdata()[0]: (line.get_ydata()[0], line.get_color()) for line in axes.get_lines() if line.get_marker() == "D"
    }
    assert {size: round(mean, 6) for size, (mean, _) in drawn.items()} == {0.5: 5.0, 2.0: round(1 / 3, 6), 8.0: -4.5}
    assert [colour for _, colour in drawn.values()] == [ACCENT, INK, BELOW]
    shown = {value for points in axes.collections for _, value in points.get_offsets() if hasattr(points, "get_sizes")}
    assert shown == {value for _, added in SIZES.values() for value in added}, "every seed"


def test_gaps_stay_empty_and_a_part_that_is_not_there_is_named() -> None:
    some = results()
    figure = report.gains(some[some["row"].str.startswith("small")], TABLE, table="future-size")
    assert len([line for line in figure.axes[0].get_lines() if line.get_marker() == "D"]) == 1
    one = report.gains(some[some["seed"] == 0], TABLE, table="future-size")
    assert len([line for line in one.axes[0].get_lines() if line.get_marker() == "D"]) == 3
    with pytest.raises(ConfigError, match="no part 'table5'"):
        report.gains(some, TABLE, table="table5")


def test_what_was_learned_is_what_the_interval_says() -> None:
    found = report.learned(results(), TABLE).set_index("difference")["learned"]
    assert found.to_dict() == {
        "small + SAR − small": "above 0",
        "medium + SAR − medium": "not settled",
        "large + SAR − large": "below 0",
        "large above small": "below 0",
    }
    two = report.learned(results()[lambda lines: lines["seed"] < 2], TABLE)
    assert set(two["learned"]) == {"too few seeds"}
    assert report.learned(results()[:0], TABLE).empty
