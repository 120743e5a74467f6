"""Runs and what is measured of them, in one job: answered from the store without torch, or trained, and taken by
`sarlib.measures`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sarlib.run import Measurement, Run
from sarlib.runner.execute import Job, Work
from sarlib.runner.machine import Machine
from sarlib.runner.schedule import complete
from sarlib.runner.store import Record, Store


def train_and_measure(
    runs: Iterable[Run],
    pairs: Iterable[tuple[Run, Measurement]],
    *,
    store: Store,
    root: Path | None,
    machine: Machine,
    title: str = "",
) -> tuple[dict[str, Record], dict[tuple[str, str], dict[str, Any]]]:
    """`execute_all` of all runs and `measure_all` of the pairs, in one job: processes that train together join only once.

    A run whose weights are gone is trained again to be measured; the record is the one that it has then.
    """
    wanted = {run.key: Work(run) for run in runs}
    for run, measurement in pairs:
        earlier = wanted[run.key].measurements if run.key in wanted else ()
        wanted[run.key] = Work(run, tuple(dict.fromkeys((*earlier, measurement))))
    answers = complete(Job(store, root, machine, tuple(wanted.values()), title))
    measured = {(key, own): found for key, (_, each) in answers.items() for own, found in each.items()}
    return {key: record for key, (record, _) in answers.items()}, measured


def measure_all(pairs: Iterable[tuple[Run, Measurement]], **where: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """{"metrics": {name: number}, "arrays": {name: nested list}} by the keys of run and measurement, each taken once.

    Runs are trained where they or their weights are missing. `where`: store, root, machine and title as of `execute_all`, whose
    errors, and those of `sarlib.measures.take`, are raised.
    """
    _, measured = train_and_measure((), pairs, **where)
    return measured
