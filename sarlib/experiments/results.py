"""From the records of a table's runs to tidy results."""

from __future__ import annotations

import functools

import pandas as pd
import torch

from sarlib.config import Model
from sarlib.experiments.csv import COLUMNS, read_csv, write_csv
from sarlib.experiments.declaration import Experiment
from sarlib.runner.store import Record, Store

__all__ = ["COLUMNS", "read_csv", "tidy", "write_csv"]

#: Units by metric. Entropies are natural; `components` counts connected components a map; Jaccard indices are fractions.
UNITS = {
    "top1": "%",
    "top5": "%",
    "loss": "nats",
    "entropy": "nats",
    "components": "per map",
    "jaccard": "1",
    "jaccard_all": "1",
    "jaccard_random": "1",
    "jaccard_centre": "1",
    "jaccard_best": "1",
    "seconds": "s",
    "images_per_second": "images/s",
    "parameters": "M",
}

#: Of the classifier whose parameters are counted, as publications do, whatever the data set.
COUNTED_CLASSES = 1000


def tidy(experiment: Experiment, records: dict[str, Record], *, store: Store) -> pd.DataFrame:
    """One line for each metric of each cell and seed, in the order of the declaration. `records` by run key, none missing.

    What a cell shows of an earlier epoch comes from the history that the `store` keeps.
    """
    lines = []
    for cell in experiment.cells:
        for seed in experiment.seeds:
            run = cell.with_seed(seed)
            metrics = records[run.key].metrics if cell.epoch is None else _after(cell.epoch, store.history(run))
            if "parameters" in experiment.shown:
                metrics = metrics | {"parameters": parameters(run.model, image_size=run.data.image_size) / 1e6}
            for metric, value in metrics.items():
                unit = UNITS[metric.removesuffix("_ema")]
                lines.append((cell.table, cell.row, cell.dataset, seed, metric, value, unit, run.key))
    return pd.DataFrame(lines, columns=list(COLUMNS))


@functools.cache
def parameters(model: Model, *, image_size: int) -> int:
    """How many parameters the network has with a classifier for IN-1K; counted without memory for them."""
    from sarlib import models  # brings timm with it

    with torch.device("meta"):
        return sum(
            parameter.numel() for parameter in models.create(model, classes=COUNTED_CLASSES, image_size=image_size).parameters()
        )


def _after(epoch: int, history: pd.DataFrame) -> dict[str, float]:
    """What was measured on the test set after that many epochs."""
    measured = history[(history["split"] == "test") & (history["epoch"] == epoch)]
    return dict(zip(measured["metric"], measured["value"], strict=True))
