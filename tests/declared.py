"""Finding a run in a declared table."""

from __future__ import annotations

from sarlib import experiments


def key(experiment: experiments.Experiment, table: str, row: str, dataset: str | None = None) -> str:
    (found,) = {
        cell.run.key for cell in experiment.cells if (cell.table, cell.row) == (table, row) and dataset in (None, cell.dataset)
    }
    return found
