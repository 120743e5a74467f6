"""The cells of a declared table: their order, their values over seeds, and their differences from the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pandas as pd

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.report.statistics import cell_values, paired_values

#: What a table leads with: accuracy alone hides what SAR does to the attention maps.
MAIN_METRICS = ("top1", "jaccard", "entropy", "components")
#: What the same attention masks score when they are chosen without a model; shown beside `jaccard`.
JACCARD_REFERENCES = {
    "jaccard_random": "random cells",
    "jaccard_all": "all cells",
    "jaccard_centre": "centre disc",
    "jaccard_best": "grid's best",
}


class Cell(Protocol):
    """One place of a table; `baseline` is the row it is compared with on the same data set, None if it is one itself."""

    table: str
    row: str
    dataset: str
    baseline: str | None


class Experiment(Protocol):
    """What a report needs to know of a table's declaration (`sarlib.experiments.declaration`)."""

    name: str
    title: str
    preset: str
    cells: Sequence[Cell]
    seeds: Sequence[int]
    tests: Sequence[ClaimTest]
    contrasts: Sequence[Contrast]
    shown: Sequence[str]


def values(results: pd.DataFrame, cell: Cell, metric: str) -> pd.Series:
    """Finite values of the cell, indexed by seed; empty where there are none."""
    return cell_values(results, cell.table, cell.row, cell.dataset, metric=metric)


def measurements(results: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The lines of `results` that belong to the cell."""
    return results[(results["table"] == cell.table) & (results["row"] == cell.row) & (results["dataset"] == cell.dataset)]


def paired(results: pd.DataFrame, cells: Sequence[Cell], metrics: Sequence[str]) -> Iterator[tuple[Cell, str, pd.Series]]:
    """(cell, metric, differences from the baseline by seed) for each cell that has a baseline and shares seeds with it."""
    for cell in cells:
        if cell.baseline is not None:
            terms = ((1.0, cell.table, cell.row, cell.dataset), (-1.0, cell.table, cell.baseline, cell.dataset))
            for metric in metrics:
                differences = paired_values(results, terms, metric=metric)
                if len(differences):
                    yield cell, metric, differences


def groups(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Cells by (table, data set), in the order in which the declaration first names them."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell.table, cell.dataset), []).append(cell)
    return grouped


def present(results: pd.DataFrame, metrics: Sequence[str] = MAIN_METRICS) -> list[str]:
    """Those of `metrics` that `results` hold, in the order given."""
    return [metric for metric in metrics if (results["metric"] == metric).any()]
