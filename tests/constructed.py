"""Declarations and results made by hand: what reports are tested with."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import COLUMNS

UNITS = {"top1": "%", "jaccard": "1", "entropy": "nats", "components": "per map", "jaccard_random": "1", "seconds": "s"}
SETS = ("shapes-object, 500 images", "digits, 500 images")


def cell(table: str, row: str, dataset: str, baseline: str | None = None, **rest: Any) -> Cell:
    """A cell whose run is no more than the name of its images and a key: a report looks at results only."""
    trained = SimpleNamespace(key="declared today", to_dict=dict)
    run = SimpleNamespace(data=SimpleNamespace(name=dataset.partition(",")[0]), with_seed=lambda seed: trained)
    return Cell(table=table, row=row, dataset=dataset, baseline=baseline, **{"run": run, **rest})


def declared(cells: Sequence[Cell], **rest: Any) -> Experiment:
    given = {"name": "table2", "title": "Training from scratch", "preset": "laptop", "seeds": (0, 1, 2, 3), "tests": ()}
    return Experiment(cells=tuple(cells), **(given | rest))


def gains(rule: str) -> ClaimTest:
    contrasts = (Contrast(name, ((1, "table2", "ViT + SAR", name), (-1, "table2", "ViT", name))) for name in SETS)
    return ClaimTest("t2-min" if rule == "all" else "t2-max", tuple(contrasts), rule=rule, note="a note of the declaration")


TABLE2 = declared(
    [cell("table2", row, name, None if row == "ViT" else "ViT") for name in SETS for row in ("ViT", "ViT + SAR")],
    tests=(gains("all"), gains("any"), ClaimTest("t4-sar", untestable="no IN-1K here")),
)


def results_of(experiment: Experiment, *, gain: float = 4.0, seed: int = 0) -> pd.DataFrame:
    """Every metric of every cell and seed; digits have no masks. The gain varies little between seeds, the seeds vary much."""
    rng = np.random.default_rng(seed)
    difficulty = dict(zip(experiment.seeds, rng.normal(50, 8, len(experiment.seeds)), strict=True))
    lines = []
    for cell in experiment.cells:
        for index in experiment.seeds:
            for metric, unit in UNITS.items():
                value = (
                    difficulty[index] + rng.normal(gain * (cell.baseline is not None), 0.5)
                    if metric == "top1"
                    else rng.uniform(0.1, 0.9)
                )
                if not (metric.startswith("jaccard") and "digits" in cell.dataset):
                    lines.append(
                        (cell.table, cell.row, cell.dataset, index, metric, value, unit, f"{cell.row}{cell.dataset}{index}")
                    )
    return pd.DataFrame(lines, columns=list(COLUMNS))


EPOCHS = (2, 4, 6)
#: Row: top-1 of each seed after 2, 4 and 6 epochs.
HEIGHTS = {
    "ViT": ([10, 20, 30], [10, 30, 40]),
    "ViT + SAR": ([20, 40, 50], [50, 10, 20]),
    "ViT + DRLoc": ([1, 2, 3], [1, 20, 60]),
}


def curves_of(
    heights: dict[str, Sequence[Sequence[float]]], *, metric: str = "top1", **rest: Any
) -> tuple[pd.DataFrame, Experiment]:
    """Results and a declaration of rows that are looked at after several epochs, on one data set."""
    cells, lines = [], []
    for row, seeds in heights.items():
        for i, epoch in enumerate(EPOCHS):
            baseline = None if row == "ViT" else f"ViT, epoch {epoch}"
            cells.append(cell("figure3", f"{row}, epoch {epoch}", "d", baseline, epoch=epoch))
            lines += [("figure3", cells[-1].row, "d", seed, metric, curve[i], "%", "k") for seed, curve in enumerate(seeds)]
    return pd.DataFrame(lines, columns=list(COLUMNS)), declared(cells, name="figure3", seeds=(0, 1), **rest)
