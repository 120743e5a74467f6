"""From the records of a table's runs to tidy results."""

from __future__ import annotations

import pandas as pd

from sarlib.experiments.declaration import Experiment
from sarlib.results import COLUMNS
from sarlib.store import Record, Store

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
}


def tidy(experiment: Experiment, records: dict[str, Record], *, store: Store) -> pd.DataFrame:
    """One line for each metric of each cell and seed, in the order of the declaration. `records` by run key, none missing.

    What a cell shows of an earlier epoch comes from the history that the `store` keeps.
    """
    lines = []
    for cell in experiment.cells:
        for seed in experiment.seeds:
            run = cell.with_seed(seed)
            metrics = records[run.key].metrics if cell.epoch is None else _after(cell.epoch, store.history(run))
            for metric, value in metrics.items():
                unit = UNITS[metric.removesuffix("_average")]
                lines.append((cell.table, cell.row, cell.dataset, seed, metric, value, unit, run.key))
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _after(epoch: int, history: pd.DataFrame) -> dict[str, float]:
    """What was measured on the test set after that many epochs."""
    measured = history[(history["split"] == "test") & (history["epoch"] == epoch)]
    return dict(zip(measured["metric"], measured["value"], strict=True))
