"""Tidy results: what a cell shows, in an order that does not depend on where it comes from."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from sarlib.config import ConfigError
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import parameters, tidy
from sarlib.run import Measurement, Run
from sarlib.runner.store import Record, Store

METRICS = {"top1": 50.0, "entropy": 0.3, "top1_ema": 51.0, "seconds": 2.0}


class History:
    """Of a store, what epochs are read from."""

    def history(self, run: Run) -> pd.DataFrame:
        lines = [(epoch, split, name, epoch) for epoch in (1, 2) for split in ("train", "test") for name in ("loss", "entropy")]
        return pd.DataFrame(lines, columns=["epoch", "split", "metric", "value"])


def results(*cells: Cell, metrics: dict[str, float] = METRICS, measured: dict = {}, **table: object) -> pd.DataFrame:  # noqa: B006
    experiment = Experiment(name="t", title="a table", preset="tiny", cells=cells, seeds=(0, 1), **table)
    records = {run.key: Record(run=run, metrics=metrics, provenance={}) for run in experiment.runs()}
    return tidy(experiment, records, measured, store=History())


@pytest.fixture
def cell(smallest_run: Run) -> Cell:
    return Cell(table="t", row="ViT", dataset="shapes", run=smallest_run)


def test_a_line_for_each_metric_and_seed(cell: Cell, smallest_run: Run) -> None:
    """In the order of their names, as a record that was written and read again has them."""
    lines = [tuple(line) for line in results(cell).itertuples(index=False)]
    here = [("entropy", 0.3, "nats"), ("seconds", 2.0, "s"), ("top1", 50.0, "%"), ("top1_ema", 51.0, "%")]
    keys = [smallest_run.key, smallest_run.with_seed(1).key]
    assert lines == [("t", "ViT", "shapes", seed, *rest, keys[seed]) for seed in (0, 1) for rest in here]
    assert results(cell, metrics=dict(reversed(METRICS.items()))).equals(results(cell))


def test_an_epoch_shows_the_history(cell: Cell) -> None:
    found = results(dataclasses.replace(cell, epoch=2))
    lines = [(seed, name, 2) for seed in (0, 1) for name in ("loss", "entropy")]
    assert [*zip(found.seed, found.metric, found.value)] == lines


def test_a_measurement_shows_its_metrics_and_not_the_runs(cell: Cell) -> None:
    declared = [Measurement(name="collapse", data=cell.run.data, images=images) for images in (4, 8)]
    numbers = {(seed, one): {"peak": seed + one.images, "entropy": 0.1} for seed in (0, 1) for one in declared}
    measured = {
        (cell.with_seed(seed).key, one.key): {"metrics": found, "arrays": {"maps": [[1.0]]}}
        for (seed, one), found in numbers.items()
    }
    found = results(*(dataclasses.replace(cell, measurement=one) for one in declared), measured=measured)
    assert found.value[found.metric == "peak"].tolist() == [4, 5, 8, 9]
    assert set(zip(found.metric, found.unit)) == {("peak", "1"), ("entropy", "nats")}


def test_a_metric_without_a_unit_is_refused(cell: Cell) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'beauty'"):
        results(cell, metrics={"beauty": 1.0})


def test_parameters_are_counted_in_millions_where_the_table_shows_them(cell: Cell) -> None:
    found = results(cell, shown=("parameters",))
    assert found.metric[:5].tolist() == ["entropy", "seconds", "top1", "top1_ema", "parameters"]
    expected = parameters(cell.run.model, image_size=cell.run.data.image_size)
    assert found.value[4] == expected / 1e6 and found.unit[4] == "M"


def test_parameters_are_those_of_a_network_that_is_built(smallest_run: Run) -> None:
    from sarlib import models

    network = models.create(smallest_run.model, classes=1000, image_size=32)
    assert parameters(smallest_run.model, image_size=32) == sum(each.numel() for each in network.parameters())


def test_results_of_runs_that_are_not_there_are_an_error(cell: Cell, store: Store) -> None:
    experiment = Experiment(name="t", title="a table", preset="tiny", cells=(cell,), seeds=(0,))
    with pytest.raises(KeyError):
        tidy(experiment, {}, {}, store=store)
