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
    """Records of all `runs` and of those in `pairs`, by key, and what is measured: {"metrics": {name: number}, "arrays": {name:
    nested list}} by the keys of run and measurement.

    Each is trained and taken once, in one job: processes that train together join only once. A run whose weights are gone is
    trained again to be measured; the record is the one that it has then. Errors as from `execute_all` and
    `sarlib.measures.take`.
    """
    wanted = {run.key: Work(run) for run in runs}
    for run, measurement in pairs:
        earlier = wanted[run.key].measurements if run.key in wanted else ()
        wanted[run.key] = Work(run, tuple(dict.fromkeys((*earlier, measurement))))
    answers = complete(Job(store, root, machine, tuple(wanted.values()), title))
    measured = {(key, own): found for key, (_, each) in answers.items() for own, found in each.items()}
    return {key: record for key, (record, _) in answers.items()}, measured
