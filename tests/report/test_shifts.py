"""Errors against severity, drawn from a store of measurements: every number is where it belongs."""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the book extra is not installed")
pytest.importorskip("seaborn", reason="the book extra is not installed")
matplotlib.use("agg")

from matplotlib.figure import Figure  # noqa: E402

from sarlib import experiments, report  # noqa: E402
from sarlib.config import ConfigError  # noqa: E402
from sarlib.experiments import doses  # noqa: E402
from sarlib.experiments.declaration import Experiment  # noqa: E402
from sarlib.runner.store import Store  # noqa: E402

SEEDS = 3
NAMES = ("fog", "defocus_blur")


@pytest.fixture
def experiment() -> Experiment:
    return experiments.declare("table8", preset="tiny", seeds=SEEDS)


def measured(experiment: Experiment, store: Store, *, clean: bool) -> None:
    """Errors that say where they come from: 20 for each row, 6 for a corruption, 1 for a severity, 0.1 for a seed."""
    cells = [cell for cell in experiment.cells if cell.table == "table8c"]
    for place, cell in enumerate(cells):
        for seed in experiment.seeds:
            level = 20 * place + 0.1 * seed
            arrays = {name: [level + 6 * n + s for s in range(1, 6)] for n, name in enumerate(NAMES)}
            found = {"metrics": {"corrupted": 0.0}, "arrays": arrays | ({"clean": [level]} if clean else {})}
            store.write_measured(cell.with_seed(seed), cell.measurement, found)


def lines(figure: Figure) -> dict[str, list[tuple[list[float], list[float]]]]:
    """By the last line of a panel's title the lines in it, (x, y)."""
    figure.savefig(io.BytesIO(), dpi=40)
    drawn = {axes.get_title("left").splitlines()[-1]: axes.get_lines() for axes in figure.axes}
    return {
        name: [(list(line.get_xdata()), list(line.get_ydata())) for line in own if len(line.get_xdata())]
        for name, own in drawn.items()
    }


@pytest.mark.parametrize("clean", [True, False])
def test_a_line_is_the_mean_over_seeds(experiment: Experiment, store: Store, clean: bool) -> None:
    measured(experiment, store, clean=clean)
    panels = lines(report.severities(experiment, store=store))
    assert list(panels)[0] == "mean of all" and set(panels) == {"mean of all", "fog", "defocus blur"}
    for name, own in panels.items():
        offset = {"fog": 0.0, "defocus blur": 6.0, "mean of all": 3.0}[name]
        for place, (x, y) in enumerate(own):
            assert x == list(range(0 if clean else 1, 6))
            expected = [20 * place + 0.1 + offset + severity for severity in range(1, 6)]
            assert y[-5:] == pytest.approx(expected)
            assert not clean or y[0] == pytest.approx(20 * place + 0.1), "the same images for every corruption"
        assert len(own) == 3


def test_the_band_is_the_95_percent_interval(experiment: Experiment, store: Store) -> None:
    """Of seeds 0.1 apart: 4.303 standard errors to either side."""
    measured(experiment, store, clean=True)
    figure = report.severities(experiment, store=store)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    at_clean = band[np.isclose(band[:, 0], 0), 1]
    assert at_clean.max() - at_clean.min() == pytest.approx(2 * 4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert figure.legends and [text.get_text() for text in figure.legends[0].texts] == ["ViT", "ViT + DRLoc", "ViT + SAR"]


def test_a_fourth_row_has_a_look_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doses, "matched", lambda name, preset: 0.3)
    experiment = experiments.declare("table8", preset="tiny", seeds=SEEDS)
    measured(experiment, store, clean=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = report.severities(experiment, store=store).axes[0].get_lines()
    assert len({line.get_color() for line in drawn if len(line.get_xdata())}) == 4


def test_what_was_not_measured_is_said_in_one_line(experiment: Experiment, store: Store) -> None:
    with pytest.raises(ConfigError, match="errors of ViT, seed 0, are not in .*: run the table first"):
        report.severities(experiment, store=store)
    nothing = dataclasses.replace(experiment, cells=experiment.cells[:3])
    with pytest.raises(ConfigError, match="table8 measures no corruptions"):
        report.severities(nothing, store=store)
