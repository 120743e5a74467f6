"""As much of the paper's tables as the time allows, run by run; what is finished stays, what is under way goes on with the next call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from sarlib import experiments
from sarlib.bench.interleaved import Fact
from sarlib.execution import execute
from sarlib.experiments.results import tidy
from sarlib.gpu_check.parts import Found, Task
from sarlib.results import write_csv
from sarlib.store import Store


def find(task: Task) -> Iterator[Found]:
    """Every run of the declared tables, seed by seed, so that whole seeds come as early as can be; each table's whole seeds as CSV.

    The signal to stop ends it with `Interrupted`, after a checkpoint of the run in hand.
    """
    plan = task.plan
    os.environ["SAR_RUNS"] = str(task.folder / "runs")
    tables = [experiments.declare(name, preset=plan.preset, data=task.data, seeds=plan.seeds) for name in plan.tables]
    store = experiments.open_store()
    store.require_writable()
    for seed in range(max(len(table.seeds) for table in tables)):
        for table in tables:
            for cell in table.cells if seed in table.seeds else ():
                record = execute(cell.with_seed(seed), store=store, root=table.data_root, device=task.device)
                where = {"table": table.name, "row": cell.row, "dataset": cell.dataset, "seed": seed}
                speed = Fact(name="run", settings=where, value=record.metrics["images_per_second"], unit="images/s")
                yield Found(facts=(speed,))
            _write_whole_seeds(table, store, task)


def _write_whole_seeds(table: experiments.Experiment, store: Store, task: Task) -> None:
    """The results of all seeds of which every run is finished: <folder>/<table>.csv."""
    records = {run.key: record for run in table.runs() if (record := store.read(run)) is not None}
    whole = tuple(seed for seed in table.seeds if all(cell.with_seed(seed).key in records for cell in table.cells))
    if whole:
        write_csv(tidy(dataclasses.replace(table, seeds=whole), records, store=store), task.folder / f"{table.name}.csv")
