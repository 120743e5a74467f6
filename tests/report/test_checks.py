"""What has to hold before a verdict means something: floors, the manipulation check, and how strongly the loss pulls."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from sarlib import experiments, report
from sarlib.experiments.declaration import Experiment
from sarlib.experiments.results import COLUMNS
from sarlib.run import Run
from sarlib.runner.store import Record, Store
from sarlib.tasks.masks import white_noise

CHANCE = math.log(10)


@pytest.fixture
def table2() -> Experiment:
    return experiments.declare("table2", preset="tiny", seeds=4).only(["digits, 48 images", "shapes-sketch, 48 images"])


def learned(experiment: Experiment, losses: dict[str, list[float]]) -> pd.DataFrame:
    """Results in which the baseline ends with these training losses, by data set and seed."""
    lines = []
    for cell in (*experiment.cells, *experiment.floors):
        for index, seed in enumerate(experiment.seeds):
            loss = losses[cell.dataset.partition(",")[0]][index]
            found = {"top1": 60.0, "train_loss": loss if cell.baseline is None else 0.6}
            if cell.measurement is not None:
                found = {"nearest_neighbour": 30.0, "logistic": 45.0, "train_top1": 99.0, "chance_loss": CHANCE}
            key = cell.with_seed(seed).key
            lines += [(cell.table, cell.row, cell.dataset, seed, name, value, "", key) for name, value in found.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def test_a_set_in_which_nothing_was_learned_is_named(table2: Experiment) -> None:
    results = learned(table2, {"digits": [0.6] * 4, "shapes-sketch": [2.29, 2.30, 2.25, 2.20]})
    floors = report.floors(results, table2)
    assert floors["learned"].to_dict() == {"digits, 48 images": "yes", "shapes-sketch, 48 images": "NOTHING"}
    assert floors.loc["digits, 48 images", ["nearest_neighbour", "logistic", "top1", "above pixels"]].tolist() == [
        "30.00",
        "45.00",
        "60.00",
        "+15.00",
    ]
    assert set(floors["steps"]) == {2 * (48 // 16)} and set(floors["n"]) == {4}
    printed = " ".join(report.text(results, table2).split())
    assert "shapes-sketch, 48 images: the baseline learned NOTHING; its training loss ends at 2.260 nats" in printed
    assert "digits, 48 images: the baseline" not in printed


def test_seeds_that_never_left_the_plateau_are_counted(table2: Experiment) -> None:
    results = learned(table2, {"digits": [0.6, 2.30, 0.6, 2.17], "shapes-sketch": [0.6] * 4})
    assert report.floors(results, table2)["learned"].tolist() == ["yes", "on 2 of 4 seeds"]


def test_floors_without_results_are_gaps(table2: Experiment) -> None:
    assert report.floors(nothing(), table2)["learned"].tolist() == ["–", "–"]
    assert "learned" not in report.text(nothing(), table2)


def nothing() -> pd.DataFrame:
    """No results yet."""
    return pd.DataFrame({name: [] for name in COLUMNS}).astype({"value": float})


def with_entropies(experiment: Experiment, lowered: float) -> pd.DataFrame:
    rng, lines = np.random.default_rng(0), []
    for cell in experiment.cells:
        for seed in experiment.seeds:
            loss = any(each.name == "spatial_entropy" for each in cell.run.regularizers)
            for name, value in (("entropy", 0.4 - lowered * loss + rng.normal(0, 0.01)), ("components", 2.5), ("top1", 50.0)):
                lines.append((cell.table, cell.row, cell.dataset, seed, name, value, "", ""))
    return pd.DataFrame(lines, columns=list(COLUMNS))


@pytest.mark.parametrize(("lowered", "said"), [(0.1, "yes"), (-0.1, "no")])
def test_the_manipulation_check_sets_each_row_beside_the_one_that_lacks_the_loss(lowered: float, said: str) -> None:
    table1 = experiments.declare("table1", preset="tiny", seeds=8)
    found = report.manipulation(with_entropies(table1, lowered), table1)
    pairs = {(table, row): than for (table, _, row), than in found["without the loss"].items()}
    assert {
        ("table1c", "E"): "A",
        ("table1c", "F"): "C",
        ("table1a", "0.01"): "0",
        ("table1a", "0.1"): "0",
    }.items() <= pairs.items()
    assert "noise" in found["entropy"].iloc[0] and set(found["lowers it"]) == {said}


def test_a_row_without_the_loss_is_set_beside_none() -> None:
    """Even where the same training stands in several rows, as in results of other epochs of it."""
    table1 = experiments.declare("table1", preset="tiny", seeds=8)
    again = [dataclasses.replace(cell, row=f"{cell.row} again") for cell in table1.cells]
    doubled = dataclasses.replace(table1, cells=(*table1.cells, *again))
    found = report.manipulation(with_entropies(doubled, -0.1), doubled)
    assert len(found) == 2 * len(report.manipulation(with_entropies(table1, -0.1), table1))


def test_white_noise_is_what_an_independent_count_finds() -> None:
    """By scipy's labels and Equation 7 written out, on the same maps."""
    from scipy.ndimage import label

    noise = torch.randn(1, 500, 8, 8, generator=torch.Generator().manual_seed(3)).numpy()[0]
    entropies, counts = [], []
    for one in noise:
        mass = np.maximum(one - one.mean(), 0)
        labels, count = label(mass > 0, np.ones((3, 3)))
        shares = np.array([mass[labels == i].sum() for i in range(1, count + 1)]) / mass.sum()
        entropies.append(-(shares * np.log(shares)).sum())
        counts.append(count)
    found = white_noise(8, maps=500, seed=3)
    assert found["entropy"] == pytest.approx(np.mean(entropies), abs=1e-5) and found["components"] == pytest.approx(
        np.mean(counts)
    )
    assert white_noise(8)["entropy"] == pytest.approx(0.39, abs=0.02) and white_noise(14)["components"] == pytest.approx(
        3.9, abs=0.1
    )


def test_gradients_are_drawn_from_the_histories(store: Store, smallest_run: Run) -> None:
    """Weight times gradient over the task's, as a geometric mean over seeds, without epochs of no weight and missing runs."""
    table1 = experiments.declare("table1", preset="tiny", seeds=3)
    chosen = [cell for cell in table1.cells if (cell.table, cell.row) == ("table1c", "F")]
    for seed, ratio in ((0, 0.1), (1, 10.0)):
        run = chosen[0].with_seed(seed)
        rows = [(epoch, "train", "gradient_task", 2.0) for epoch in (0, 1)]
        rows += [(epoch, "train", "gradient_regularizer", 4.0 * ratio) for epoch in (0, 1)]
        rows += [(0, "train", "weight", 0.0), (1, "train", "weight", 0.01), (2, "test", "top1", 1.0)]
        history = [dict(zip(("epoch", "split", "metric", "value"), row, strict=True)) for row in rows]
        store.write(run, record=Record(run=run, metrics={}, provenance={}), history=history, weights={"w": torch.zeros(1)})
    figure = report.gradients(dataclasses.replace(table1, cells=tuple(chosen)), store=store, table="table1c")
    (line, _) = figure.axes[0].get_lines()
    assert line.get_xdata().tolist() == [1] and line.get_ydata() == pytest.approx([0.02])
    assert figure.axes[0].get_ylabel().startswith("gradient of")


def test_the_forest_has_every_declared_difference_once_in_each_metric() -> None:
    headline = experiments.declare("headline", preset="tiny", seeds=3)
    figure = report.forest(with_entropies(headline, 0.1), headline)
    assert [axes.get_xlabel() for axes in figure.axes] == ["top1 (points)", "entropy (nats)", "components (per map)"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "ViT + SAR - ViT",
        "SAR's block - ViT",
        "ViT + SAR - SAR's block",
    ]
    assert report.forest(nothing(), headline).axes, "also before there are results"
