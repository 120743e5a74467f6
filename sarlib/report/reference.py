"""Do a reader's results agree with the reference results? Bit by bit if they can, else by their difference's interval."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import COLUMNS, read_csv
from sarlib.report.notation import GAP, bounds, number, plus_minus
from sarlib.report.statistics import Interval, leading, lines, mean_interval, values, welch_interval
from sarlib.tasks.metrics import MACHINE_METRICS


def agreement(results: pd.DataFrame, experiment: Experiment, reference: Path, metric: str | None = None) -> pd.DataFrame:
    """Each cell's `metric` (default: the first that the table leads with) beside that of the reference results at the path
    `reference`, judged in the column `agreement`:

    bit-equal      every measurement that both have (same seed, any metric but times) is the same number
    agrees         else: the interval of the difference includes 0; of the paired difference where two or more seeds are shared
                   (the same seed draws the same training subset), otherwise Welch's
    differs        it does not. At 95 % one cell in twenty is expected to differ by chance, see `agreement_in_words`
    too few seeds  no interval can be formed
    no reference   the reference lacks the cell, or was run with another configuration, as `note` says
    no result      the reader's results lack the cell
    """
    theirs = read_csv(reference) if Path(reference).exists() else pd.DataFrame({name: [] for name in COLUMNS})
    compared = []
    for cell in experiment.cells:
        name = metric or next(iter(leading(results, experiment, [cell])), experiment.leads[0])
        ours, reference_interval = (mean_interval(values(frame, cell, name)) for frame in (results, theirs))
        judgement, interval, note = _compare(results, theirs, cell, metric=name)
        line = {"table": cell.table, "dataset": cell.dataset, "row": cell.row, "metric": name}
        line |= {"ours": plus_minus(ours, name), "reference": plus_minus(reference_interval, name)}
        line |= {"n": ours.n, "n_reference": reference_interval.n}
        line["difference"] = f"{number(interval.mean, name, '+')} {bounds(interval, name)}" if interval else GAP
        compared.append(line | {"agreement": judgement, "note": note})
    return pd.DataFrame(compared)


def _compare(results: pd.DataFrame, theirs: pd.DataFrame, cell: Cell, *, metric: str) -> tuple[str, Interval | None, str]:
    """(judgement, interval of the difference where one decided, note) of one cell."""
    ours_all, theirs_all = (lines(frame, cell.table, cell.row, cell.dataset) for frame in (results, theirs))
    if ours_all.empty:
        return "no result", None, ""
    if theirs_all.empty:
        return "no reference", None, ""
    shared = ours_all.merge(theirs_all, on=["seed", "metric"], suffixes=("", "_reference"))
    if (shared["key"] != shared["key_reference"]).any():
        return "no reference", None, "the reference was run with another configuration"
    shared = shared[~shared["metric"].isin(MACHINE_METRICS)]
    if len(shared) and np.array_equal(shared["value"], shared["value_reference"], equal_nan=True):
        return "bit-equal", None, f"{shared['seed'].nunique()} shared seeds"
    ours, reference = (values(frame, cell, metric) for frame in (results, theirs))
    differences = (ours - reference).dropna()
    if len(differences) >= 2:
        interval, how = mean_interval(differences), f"paired, {len(differences)} shared seeds"
    else:
        interval, how = welch_interval(ours, reference), "other seeds, Welch's interval"
    if math.isnan(interval.low):
        return "too few seeds", None, ""
    return ("agrees" if interval.contains(0) else "differs"), interval, how


def agreement_in_words(compared: pd.DataFrame) -> str:
    """One sentence on an `agreement` frame: how many cells say what, and how many were expected to differ by chance alone."""
    counts = compared["agreement"].value_counts()
    judged = ", ".join(f"{count} {judgement}" for judgement, count in counts.items())
    by_interval = int(counts.get("agrees", 0) + counts.get("differs", 0))
    chance = f"; of {by_interval} compared by a 95 % interval, {by_interval / 20:.1f} are expected to differ by chance"
    return f"{len(compared)} cells beside the reference: {judged}{chance if by_interval else ''}."
