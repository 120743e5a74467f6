"""Do a reader's results agree with the reference results? Bit by bit if they can, else by their difference's interval."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sarlib.experiments.declaration import Cell, Experiment
from sarlib.experiments.results import COLUMNS, read_csv
from sarlib.report.notation import GAP, bounds, number, plus_minus
from sarlib.report.statistics import Interval, leading, lines, mean_interval, values, welch_interval
from sarlib.tasks.metrics import MACHINE_METRICS

EARLIER = "earlier declaration"


def of_earlier(results: pd.DataFrame, experiment: Experiment, store: Path, cells: Iterable[Cell] | None = None) -> str:
    """In what the runs of `results`, whose records are in `store`, are not those that are declared today, of all cells or of
    some; "" where they are. Results of an earlier declaration stay what they were: they are of other trainings."""
    chosen = {(cell.table, cell.row, cell.dataset): cell for cell in cells or (*experiment.cells, *experiment.floors)}
    places = results[["table", "row", "dataset", "seed", "key"]].drop_duplicates()
    gone, differ, commits = set(), {}, set()
    for *place, seed, key in places.itertuples(index=False):
        cell = chosen.get(tuple(place))
        if cell is None and cells is None:
            gone.add(tuple(place))
        if cell is None or (run := cell.with_seed(int(seed))).key == key:
            continue
        then, commit = _record(store / key)
        commits.add(commit)
        now = _flat(run.to_dict())
        for name in [name for name in now if then.get(name, now[name]) != now[name]] or ["configuration"]:
            differ.setdefault(name, f"{name} {then[name]}, today {now[name]}" if name in then else f"another {name}")
    found = [*differ.values(), *([f"{len(gone)} rows are no longer declared"] if gone else [])]
    trained = ", ".join(sorted(commits)) or "unknown"
    return f"of an earlier declaration: {'; '.join(found)}; commit {trained}" if found else ""


def _record(folder: Path) -> tuple[dict[str, Any], str]:
    """The configuration of a stored run, and the commit that it was trained at; numerics of version 1 did not say so."""
    try:
        config, result = (json.loads((folder / file).read_text()) for file in ("config.json", "result.json"))
    except FileNotFoundError:
        return {}, "unknown"
    return _flat({"version": 1} | config), (result["provenance"]["commit"] or "unknown")[:7]


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """By names such as "recipe.epochs" what JSON has of them."""
    records = pd.json_normalize(json.loads(json.dumps(fields))).to_dict("records")
    return records[0] if records else {}  # of no fields early versions of pandas make no record


def agreement(results: pd.DataFrame, experiment: Experiment, reference: str | Path, metric: str | None = None) -> pd.DataFrame:
    """Each cell's `metric` (default: the first that the table leads with) beside that of the reference results at the path
    `reference`, judged in the column `agreement`:

    bit-equal      every measurement that both have (same seed, any metric but times) is the same number
    agrees         else: the interval of the difference includes 0; of the paired difference where two or more seeds are shared
                   (the same seed draws the same training subset), otherwise Welch's
    differs        it does not. At 95 % one cell in twenty is expected to differ by chance
    too few seeds  no interval can be formed
    earlier declaration  the reference was run with another configuration than is declared today, as `note` says
    no reference   the reference lacks the cell
    no result      the reader's results lack the cell
    """
    reference = Path(reference)
    theirs = read_csv(reference) if reference.exists() else pd.DataFrame({name: [] for name in COLUMNS})
    compared = []
    for cell in experiment.cells:
        name = metric or next(iter(leading(results, experiment, [cell])), experiment.leads[0])
        ours, reference_interval = (mean_interval(values(frame, cell, name)) for frame in (results, theirs))
        judgement, interval, note = _compare(results, theirs, cell, metric=name)
        if judgement == EARLIER:
            note = of_earlier(theirs, experiment, reference.parent.parent / "store", [cell])
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
        return EARLIER, None, ""
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
