"""From declared runs to finished records: answered from the store, resumed, or trained.

One after the other, side by side on the cores of a machine, each by several processes (torchrun), or as jobs of a cluster (submitit): the
same `execute` in the end. A run is never trained twice: not by two tables that share it, not by two processes at once, not after a kill.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from sarlib.config import TrainingError
from sarlib.run import Run
from sarlib.runner import launch
from sarlib.runner.execute import execute, images_seen
from sarlib.runner.machine import Machine
from sarlib.runner.store import Record, Store
from sarlib.runner.workers import side_by_side
from sarlib.trainer import distributed
from sarlib.trainer.interruption import Interrupted, listening


def execute_all(
    runs: Iterable[Run], *, store: Store, root: Path | None, machine: Machine, title: str = ""
) -> dict[str, Record]:
    """Records of all `runs` by key, each distinct run once, `machine.workers` of them at a time, with a bar that tells the time left.

    Runs that another process is training are left to it and collected at the end. `ConfigError` if the store cannot be written. If a
    run fails the others are finished first, then its error is raised.
    """
    store.require_writable()
    distinct = {run.key: run for run in runs}
    # Processes that train together must not see different gaps: they look at each run together, in `execute`.
    known = {} if distributed.launched() else distinct
    records = {key: record for key, run in known.items() if (record := store.read(run)) is not None}
    missing = [run for key, run in distinct.items() if key not in records]
    if not missing:
        return records
    job = Job(runs=tuple(missing), store=store, root=root, machine=machine, title=title, of=len(distinct))
    if machine.cluster is not None:
        _on_cluster(job)
    elif machine.processes > 1 and not distributed.launched():
        launch.torchrun(work, job, processes=machine.processes)
    elif machine.workers == 1:
        return records | work(job)
    else:
        with _progress_bar(job) as bar:
            return records | side_by_side(missing, store=store, root=root, machine=machine, bar=bar)
    return records | {run.key: _collected(run, store) for run in missing}


@dataclass(frozen=True)
class Job:
    """Runs to train on a machine; `of` is how many the table has in all."""

    runs: tuple[Run, ...]
    store: Store
    root: Path | None
    machine: Machine
    title: str = ""
    of: int = 0


def work(job: Job) -> dict[str, Record]:
    """Trains the job's runs one after the other, together with the processes that this one was started with. Records by key.

    `Interrupted` if a signal asks to stop, also while data are loaded or between two runs.
    """
    torch.set_num_threads(job.machine.threads)
    records, device = {}, distributed.device_of(job.machine.device)
    with listening() as asked, distributed.joined(device) as ranks, _progress_bar(job, shown=ranks.first) as bar:
        for run in job.runs:
            (number,) = ranks.max(asked.number)
            if number:
                raise Interrupted.by(number)
            records[run.key] = execute(
                run,
                store=job.store,
                root=job.root,
                device=job.machine.device,
                ranks=ranks,
                micro_batches=job.machine.micro_batches,
                on_step=bar.update,
            )
    return records


def _progress_bar(job: Job, *, shown: bool = True) -> tqdm:
    bar = tqdm(
        total=sum(map(images_seen, job.runs)),
        desc=job.title,
        unit=" images",
        unit_scale=True,
        mininterval=1.0,
        disable=not shown,
    )
    bar.set_postfix_str(f"{len(job.runs)} of {max(job.of, len(job.runs))} runs to train")
    return bar


def _on_cluster(job: Job) -> None:
    """Every run as a job of its own, all in one array."""
    alone = dataclasses.replace(job.machine, cluster=None, workers=1)
    jobs = [dataclasses.replace(job, runs=(run,), machine=alone) for run in job.runs]
    gpus, logs = job.machine.device.startswith("cuda"), job.store.root.parent / "cluster"
    with tqdm(total=len(jobs), desc=job.title, unit=" runs") as bar:
        for _ in launch.submit(work, jobs, on=job.machine.cluster, processes=job.machine.processes, gpus=gpus, logs=logs):
            bar.update()


def _collected(run: Run, store: Store) -> Record:
    record = store.read(run)
    if record is None:
        raise TrainingError(
            f"run {run.key} ended without a record in {store.root}: the runs folder must be shared by all machines"
        )
    return record
