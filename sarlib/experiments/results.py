"""From the records of a table's runs to tidy results."""

from __future__ import annotations

import pandas as pd

from sarlib.experiments.declaration import Experiment
from sarlib.results import COLUMNS
from sarlib.store import Record

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


def tidy(experiment: Experiment, records: dict[str, Record]) -> pd.DataFrame:
    """One line for each metric of each cell and seed, in the order of the declaration. `records` by run key, none missing."""
    lines = []
    for cell in experiment.cells:
        for seed in experiment.seeds:
            run = cell.with_seed(seed)
            for metric, value in records[run.key].metrics.items():
                unit = UNITS[metric.removesuffix("_average")]
                lines.append((cell.table, cell.row, cell.dataset, seed, metric, value, unit, run.key))
    return pd.DataFrame(lines, columns=list(COLUMNS))
