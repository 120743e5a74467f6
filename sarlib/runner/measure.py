"""Measurements of finished runs: answered from the store without torch, or taken by `sarlib.measures`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sarlib.run import Measurement, Run
from sarlib.runner.execute import Job, Work
from sarlib.runner.machine import Machine
from sarlib.runner.schedule import complete
from sarlib.runner.store import Store


def measure_all(
    pairs: Iterable[tuple[Run, Measurement]],
    *,
    store: Store,
    root: Path | None,
    machine: Machine,
    title: str = "",
    runs: Iterable[Run] = (),
) -> dict[tuple[str, str], dict[str, Any]]:
    """{"metrics": {name: number}, "arrays": {name: nested list}} by the keys of run and measurement, each taken once.

    Runs are trained where they or their weights are missing, and so are these `runs`, in one go. Errors as from `execute_all`
    and `sarlib.measures.take`.
    """
    wanted = {run.key: Work(run) for run in runs}
    for run, measurement in pairs:
        earlier = wanted[run.key].measurements if run.key in wanted else ()
        wanted[run.key] = Work(run, tuple(dict.fromkeys((*earlier, measurement))))
    answers = complete(Job(store, root, machine, tuple(wanted.values()), title))
    return {(key, own): found for key, (_, measured) in answers.items() for own, found in measured.items()}
