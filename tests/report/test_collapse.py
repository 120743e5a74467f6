"""The collapse of section 4.3: what table and figure make of the measures of runs."""

from __future__ import annotations

import dataclasses
import io

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
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import COLUMNS
from sarlib.report import collapse, figures
from sarlib.run import Run
from sarlib.runner import measures
from sarlib.runner.store import Store


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
    expected = measures.collapse(collapse._similarity(run, store, measures.first_images(run.data, 6)))
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
    images = measures.first_images(declared.cells[1].run.data, 3)
    assert np.array_equal(np.asarray(panels[2].images[0].get_array()), images.pixels[2].permute(1, 2, 0).numpy())
    attention = measures.attention(collapse._similarity(declared.cells[1].run, store, images))[2, 1]
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
