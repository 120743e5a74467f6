"""Tidy results: one line for each metric of a cell and seed, and the CSV file that holds them bit for bit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pandas as pd

from sarlib.config import ConfigError, Model, require
from sarlib.durable import write_durably
from sarlib.experiments.declaration import Experiment
from sarlib.runner.store import Record, Store
from sarlib.tasks.metrics import metric

COLUMNS = ("table", "row", "dataset", "seed", "metric", "value", "unit", "key")
_ONCE = ["table", "row", "dataset", "seed", "metric"]


def tidy(
    experiment: Experiment, records: dict[str, Record], measured: dict[tuple[str, str], dict[str, Any]], *, store: Store
) -> pd.DataFrame:
    """The results in the order of the declaration; lines and their order do not depend on what was trained and what answered.

    `records` by run key and `measured` by the keys of run and measurement, none missing. What a cell shows of an earlier epoch
    is in the run's history in the `store`.
    """
    lines = []
    for cell, seed in ((cell, seed) for cell in (*experiment.cells, *experiment.floors) for seed in experiment.seeds):
        run = cell.with_seed(seed)
        if cell.epoch is not None:
            history = store.history(run)
            then = history[(history["split"] == "test") & (history["epoch"] == cell.epoch)]
            metrics = dict(zip(then["metric"], then["value"], strict=True))
        else:
            measurement = cell.measurement
            found = measured[run.key, measurement.key]["metrics"] if measurement else records[run.key].metrics
            metrics = dict(sorted(found.items()))
        if "train_loss" in experiment.shown and cell.measurement is None:
            losses = store.history(run).query("split == 'train' and metric == 'loss'")
            metrics["train_loss"] = losses["value"].iloc[-1]
        if "parameters" in experiment.shown:
            metrics["parameters"] = parameters(run.model, image_size=run.data.image_size) / 1e6
        place = (cell.table, cell.row, cell.dataset, seed)
        lines += [(*place, name, value, metric(name).unit, run.key) for name, value in metrics.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


@functools.cache
def parameters(model: Model, *, image_size: int) -> int:
    """How many parameters the network has with a classifier for IN-1K, as publications count; without memory for them."""
    import torch

    from sarlib import models

    with torch.device("meta"):
        network = models.create(model, classes=1000, image_size=image_size)
    return sum(parameter.numel() for parameter in network.parameters())


def write_csv(results: pd.DataFrame, path: Path) -> None:
    """Write tidy `results` in one step; floats as the shortest text that reads back to the same bits."""
    text = results.loc[:, list(COLUMNS)].to_csv(index=False, na_rep="nan", lineterminator="\n")
    try:
        write_durably(Path(path), text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from error


def read_csv(path: Path) -> pd.DataFrame:
    """Inverse of `write_csv`, bit for bit; labels stay text ("0.10" is a row's name). `ConfigError` says what is wrong."""
    again = "remove it and run the table again"
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = ", ".join(column for column in COLUMNS if column not in text)
        require(not missing, f"{path} lacks the columns {missing}: {again}")
        # Python's float is exact in every version; pandas' parser is not by default in all of those that we allow.
        results = text.assign(seed=text["seed"].map(int).astype("int64"), value=text["value"].map(float).astype("float64"))
    except FileNotFoundError as error:
        raise ConfigError(f"there are no results at {path}: run the table first") from error
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError) as error:  # pandas' parser errors are ValueErrors
        raise ConfigError(f"cannot read results from {path} ({str(error).splitlines()[0]}): {again}") from error
    if (twice := results.duplicated(_ONCE)).any():
        first = " ".join(map(str, results.loc[twice, _ONCE].iloc[0]))
        raise ConfigError(f"{path} holds a measurement twice ({first}): {again}")
    return results.loc[:, list(COLUMNS)]
