"""The collapse of section 4.3: measures of maps made by hand, and what table and figure make of runs."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats
from untrained import keep, scale_scores

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments.results import COLUMNS
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.report import collapse, figures
from sarlib.run import Run
from sarlib.runner import maps
from sarlib.runner.store import Store

SHARPEST = 60.0  # e^-60 is nothing beside 1 in float32


def lit(*tokens: tuple[int, int], height: float = SHARPEST) -> torch.Tensor:
    """One map of one head, 8 x 8, that is 0 but for some tokens."""
    similarity = torch.zeros(1, 1, 8, 8)
    for row, column in tokens:
        similarity[..., row, column] = height
    return similarity


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        pytest.param(lit((2, 3)), {"peak": 1, "single": 100, "tokens": 1, "softmax_entropy": 0, "entropy": 0}, id="one peak"),
        pytest.param(
            lit((0, 0), (5, 6)),
            {"peak": 1 / 2, "single": 0, "tokens": 2, "softmax_entropy": math.log(2), "entropy": math.log(2)},
            id="two peaks apart",
        ),
        pytest.param(lit((2, 3), (3, 4)), {"peak": 1 / 2, "single": 0, "tokens": 2, "softmax_entropy": 0}, id="two that touch"),
        pytest.param(
            torch.full((1, 1, 8, 8), 3.0),
            {"peak": 1 / 64, "single": 0, "tokens": 0, "softmax_entropy": 0, "entropy": 0, "spread": 0},
            id="flat",
        ),
        pytest.param(
            torch.cat([lit((2, 3)), lit((0, 0), (5, 6))]).view(1, 2, 8, 8),
            {"peak": 3 / 4, "single": 50, "tokens": 3 / 2, "softmax_entropy": math.log(2) / 2},
            id="means over heads",
        ),
    ],
)
def test_measures_of_maps_made_by_hand(similarity: torch.Tensor, expected: dict[str, float]) -> None:
    found = collapse.measures(similarity)
    assert found.keys() == collapse.UNITS.keys()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_spread_is_the_standard_deviation_within_maps() -> None:
    similarity = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.arange(3)[:, None, None]
    assert collapse.measures(similarity)["spread"] == pytest.approx(similarity.numpy().std(axis=(2, 3)).mean(), rel=1e-5)


def test_larger_scores_collapse_the_softmax_and_leave_the_entropy() -> None:
    """What section 4.3 calls cheating: nothing but the scale of S has changed."""
    similarity = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before, after = collapse.measures(similarity), collapse.measures(10 * similarity)
    assert after["entropy"] == pytest.approx(before["entropy"], rel=1e-5)
    assert after["spread"] == pytest.approx(10 * before["spread"], rel=1e-5)
    assert after["peak"] > 3 * before["peak"] and after["single"] > before["single"] and after["tokens"] < before["tokens"] / 3
    assert after["softmax_entropy"] < before["softmax_entropy"] / 2


@pytest.fixture
def declared(smallest_run: Run, store: Store) -> Experiment:
    """Two rows, two seeds, in the store; the scores of the second row are large. A cell of another part is not."""
    longer = dataclasses.replace(smallest_run.recipe, epochs=4)
    rows = {"no loss": smallest_run, "collapsed": dataclasses.replace(smallest_run, recipe=longer)}
    cells = [Cell(table=collapse.PART, row=row, dataset="d", run=run) for row, run in rows.items()]
    other = Cell(table="appendix-losses", row="no loss", dataset="e", run=dataclasses.replace(smallest_run, seed=9))
    experiment = Experiment(name="appendix", title="", preset="tiny", cells=(other, *cells), seeds=(0, 1), tests=())
    for cell, factor in zip(cells, (30.0, 1e6), strict=True):
        for seed in experiment.seeds:
            keep(cell.with_seed(seed), store=store, change=scale_scores(factor))
    return experiment


@pytest.fixture
def measured(declared: Experiment, store: Store) -> pd.DataFrame:
    return collapse.measured(declared, store=store, images=6)


def test_every_run_of_the_part_is_measured(declared: Experiment, measured: pd.DataFrame, store: Store) -> None:
    assert tuple(measured.columns) == COLUMNS and set(measured["table"]) == {collapse.PART}
    assert list(measured["row"].unique()) == ["no loss", "collapsed"]
    assert len(measured) == 2 * 2 * len(collapse.UNITS) and not measured.duplicated(["row", "seed", "metric"]).any()
    run = declared.cells[2].with_seed(1)
    own = measured[(measured["row"] == "collapsed") & (measured["seed"] == 1)]
    expected = collapse.measures(maps.similarity(run, store=store, images=maps.first_images(run, 6)))
    assert dict(zip(own["metric"], own["value"], strict=True)) == expected and set(own["key"]) == {run.key}


def test_the_table_has_the_mean_and_its_interval(measured: pd.DataFrame) -> None:
    table = collapse.table(measured)
    assert list(table.index) == [("d", "no loss"), ("d", "collapsed")]
    assert list(table.columns) == ["n", "peak", "single (%)", "tokens", "softmax_entropy (nats)", "entropy (nats)", "spread"]
    values = measured[(measured["row"] == "no loss") & (measured["metric"] == "peak")]["value"]
    half = stats.t.ppf(0.975, 1) * stats.sem(values)
    assert table.loc[("d", "no loss"), "peak"] == f"{values.mean():.3f} ± {half:.3f}" and set(table["n"]) == {2}


@pytest.fixture
def figure(declared: Experiment, measured: pd.DataFrame, store: Store) -> Figure:
    return collapse.figure(measured, declared, store=store, images=3, head=1)


def test_the_figure_shows_pictures_and_the_maps_of_one_head(figure: Figure, declared: Experiment, store: Store) -> None:
    *panels, bar = figure.axes
    assert len(panels) == 3 * 3 and plt.get_fignums() == []
    images = maps.first_images(declared.cells[1].run, 3)
    assert np.array_equal(np.asarray(panels[2].images[0].get_array()), images.pixels[2].permute(1, 2, 0).numpy())
    attention = maps.attention(maps.similarity(declared.cells[1].run, store=store, images=images))[2, 1]
    shown = panels[5].images[0]
    np.testing.assert_allclose(np.asarray(shown.get_array()), (attention / attention.max()).numpy(), rtol=1e-6)
    assert {panel.images[0].get_clim() for panel in panels[3:]} == {(0, 1)}
    assert "softmax(S)" in bar.get_ylabel()


def test_the_figures_rows_say_how_collapsed_they_are(figure: Figure, measured: pd.DataFrame) -> None:
    means = measured.groupby(["row", "metric"])["value"].mean()
    labels = [axes.get_ylabel() for axes in figure.axes[3:9:3]]
    expected = [
        f"{row}\npeak {means[row, 'peak']:.2f}, single {means[row, 'single']:.0f} %" for row in ("no loss", "collapsed")
    ]
    assert labels == expected and labels[0] != labels[1]


def test_a_line_surrounds_the_tokens_above_the_mean() -> None:
    """The second token of the third row: its edges are at 0.5 and 1.5 across, 1.5 and 2.5 down. A flat map has no line."""
    _, axes = plt.subplots()
    attention = torch.full((4, 4), 0.01)
    attention[2, 1] = 0.85
    collapse._draw(axes, attention)
    (contour,) = axes.collections
    (line,) = contour.get_paths()
    np.testing.assert_allclose([line.vertices.min(0), line.vertices.max(0)], [[0.5, 1.5], [1.5, 2.5]], atol=0.1)
    axes.clear()
    collapse._draw(axes, torch.full((4, 4), 1 / 16))
    assert not axes.collections
    plt.close()


def test_the_figure_reads_on_any_page_and_is_reproducible(
    figure: Figure, declared: Experiment, measured: pd.DataFrame, store: Store
) -> None:
    assert all(patch.get_facecolor()[3] == 0 for patch in (figure.patch, *(axes.patch for axes in figure.axes)))
    assert {text.get_color() for text in figure.findobj(Text) if text.get_text()} == {figures.INK}
    files = []
    for one in (figure, collapse.figure(measured, declared, store=store, images=3, head=1)):
        file = io.BytesIO()
        one.savefig(file, format="svg", metadata={"Date": None})
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_only_one_data_set_can_be_compared(declared: Experiment, store: Store) -> None:
    other = dataclasses.replace(declared.cells[1], dataset="e")
    for cells in (declared.cells[:1], (*declared.cells, other)):
        with pytest.raises(ConfigError, match="one data set.*appendix-collapse"):
            collapse.measured(dataclasses.replace(declared, cells=cells), store=store)


def test_a_run_that_is_not_in_the_store_is_named(declared: Experiment, store: Store) -> None:
    with pytest.raises(ConfigError, match=declared.cells[1].with_seed(2).key):
        collapse.measured(dataclasses.replace(declared, seeds=(0, 1, 2)), store=store, images=1)


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_the_appendix_declares_the_runs(preset: str) -> None:
    """Without a loss, with the entropy of the softmaxed map, with SAR's at the same weight: alike in everything else."""
    runs = [cell.run for cell in collapse._cells(experiments.declare("appendix", preset=preset))]
    names, weights = zip(
        *((run.regularizers[0].name, run.regularizers[0].weight) if run.regularizers else ("none", 0.0) for run in runs),
        strict=True,
    )
    assert names == ("none", "softmax_entropy", "spatial_entropy") and weights[1] == weights[2] > 0
    assert len({dataclasses.replace(run, regularizers=()) for run in runs}) == 1
