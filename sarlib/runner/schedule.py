"""From declared runs to finished records: answered from the store, resumed, or trained.

One after the other, side by side on the cores of a machine, each by several processes, or as jobs of a cluster: the same
`execute` in the end. A run is never trained twice: not by two tables that share it, not by two processes at once, not after a
kill. One that starts from another is of a later generation, so that no process waits for a parent that it could train.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sarlib.config import ConfigError, Published, TrainingError
from sarlib.run import Measurement, Run
from sarlib.runner import launch, provenance, published
from sarlib.runner.estimate import estimate
from sarlib.runner.execute import Answer, Job, OnStep, Work, execute
from sarlib.runner.machine import Machine
from sarlib.runner.store import Record, Store
from sarlib.trainer.distributed import launched
from sarlib.trainer.interruption import Interrupted, listening


def execute_all(
    runs: Iterable[Run], *, store: Store, root: Path | None, machine: Machine, title: str = ""
) -> dict[str, Record]:
    """Records of all `runs` by key, each distinct run once, `machine.workers` at a time, with a bar that shows the time left.

    The runs that they start from are trained first, also those whose record is there but whose weights are gone. Runs that
    another process is training are left to it and collected at the end. `ConfigError` if the store cannot be written. If one of
    several runs at a time fails, the others that can do without it are finished first, then its error is raised.
    """
    return train_and_measure(runs, (), store=store, root=root, machine=machine, title=title)[0]


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


def complete(job: Job) -> dict[str, Answer]:
    """What the job declares, by the runs' keys, once the store has all of it. Imports torch only where something is missing."""
    job.store.require_writable()
    if launched():  # processes that train together must not see different gaps: the first one looks for them, in `work`
        return work(replace(job, machine=job.machine.resolved()))
    there = _answers(job)
    generations = missing(job, there)
    _warn_of_edits(job, there, new={each.run.key for each in chain(*generations)})
    if not generations:
        return there
    try:
        _start(replace(job, machine=job.machine.resolved()), generations)
    except KeyboardInterrupt:
        raise _in_one_line(job) from None
    return _collected(job)


def missing(job: Job, there: dict[str, Answer | None]) -> list[tuple[Work, ...]]:
    """What the store lacks of the job, and of what its runs start from, in generations: each needs the earlier ones only.

    there: what the store answers of each run, by key.
    """
    needed: dict[str, Work] = {}
    for each in job.works:
        if there[each.run.key] is None:
            needed[each.run.key] = each
            for run in reversed(each.run.lineage()):
                if job.store.has_weights(run):
                    break
                needed.setdefault(run.key, Work(run))

    def generation(each: Work) -> int:
        return len(each.run.lineage())

    return [tuple(own) for _, own in groupby(sorted(needed.values(), key=generation), key=generation)]


def work(job: Job) -> dict[str, Answer]:
    """Does the job, one run after the other, together with the processes that this one was started with.

    `Interrupted` if a signal asks to stop, also while data are loaded or between two runs.
    """
    import torch

    from sarlib.trainer import distributed

    torch.set_num_threads(job.machine.threads)
    with listening() as request, distributed.joined(distributed.device_of(job.machine.device)) as ranks:
        generations = ranks.broadcast(missing(job, _answers(job)) if ranks.first else None)
        with _bar(job, generations, shown=ranks.first) as bar:
            for each in chain(*generations):
                (number,) = ranks.max(request.number)
                if number:
                    raise Interrupted(number)
                execute(each, job, ranks=ranks, on_step=bar.update)
        return ranks.broadcast(_collected(job) if ranks.first else None)


def _start(job: Job, generations: list[tuple[Work, ...]]) -> None:
    if said := estimate(job, list(chain(*generations))):
        print(f"{job.title or 'training'}: {said}", file=sys.stderr)
    for network in {each.run.pretrained for each in chain(*generations)}:
        if isinstance(network, Published):
            published.find(network, root=job.root)  # what cannot be had is named before minutes are spent
    if job.machine.cluster is not None:
        _in_parallel(_on_cluster, job, generations)
    elif job.machine.processes > 1:
        launch.joined(work, job, processes=job.machine.processes)
    elif job.machine.workers > 1:
        _in_parallel(_by_workers, job, generations)
    else:
        work(job)


def _in_parallel(do: Callable[[Job, OnStep], None], job: Job, generations: list[tuple[Work, ...]]) -> None:
    """One generation after the other; what starts from a run that failed is left out."""
    failures, has_weights = [], job.store.has_weights
    with _bar(job, generations) as bar:
        for works in generations:
            able = [each for each in works if has_weights(each.run) or all(map(has_weights, each.run.lineage()[-2:-1]))]
            try:
                do(replace(job, works=tuple(able)), bar.update)
            except (ConfigError, TrainingError) as error:
                failures.append(error)
    if failures:
        raise failures[0]


def _by_workers(job: Job, on_step: OnStep) -> None:
    """The longest runs first, so that none is left alone at the end; what another process is at is awaited then."""
    works = sorted(job.works, key=lambda each: each.images(job.store, job.root), reverse=True)
    counter = multiprocessing.get_context("spawn").Value
    taken, seen, shown = counter("q", 0), counter("q", 0), 0

    def on_poll() -> None:
        nonlocal shown
        now = seen.value
        on_step(now - shown)
        shown = now

    seats = range(min(job.machine.workers, len(works)))
    launch.side_by_side(_worker, [(replace(job, works=tuple(works)), seat, taken, seen) for seat in seats], on_poll=on_poll)
    for each in works:
        if not job.store.has_weights(each.run) or each.answer(job.store) is None:
            execute(each, job, on_step=on_step)


def _worker(job: Job, seat: int, taken: Any, seen: Any) -> None:
    """Takes runs while there are any, and counts the images that it has seen. Several workers are dealt to the GPUs in turn."""
    import torch

    torch.set_num_threads(job.machine.threads)
    if job.machine.device == "cuda":
        job = replace(job, machine=replace(job.machine, device=f"cuda:{seat % torch.cuda.device_count()}"))
    failures = []
    while (number := _add(taken, 1)) < len(job.works):
        try:
            execute(job.works[number], job, on_step=lambda images: _add(seen, images), wait=False)
        except (ConfigError, TrainingError) as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _add(counter: Any, number: int) -> int:
    """What the counter, which processes share, was before."""
    with counter.get_lock():
        before, counter.value = counter.value, counter.value + number
    return before


def _on_cluster(job: Job, on_step: OnStep) -> None:
    """Every run as a job of its own, all in one array."""
    alone = replace(job.machine, cluster=None, workers=1)
    jobs = [replace(job, works=(each,), machine=alone) for each in job.works]
    images = [each.images(job.store, job.root) for each in job.works]
    gpus, logs = alone.device.startswith("cuda"), job.store.root.parent / "cluster"
    for number in launch.submit(work, jobs, on=job.machine.cluster, processes=alone.processes, gpus=gpus, logs=logs):
        on_step(images[number])


def _bar(job: Job, generations: list[tuple[Work, ...]], *, shown: bool = True) -> tqdm:
    todo = list(chain(*generations))
    images = sum(each.images(job.store, job.root) for each in todo)
    bar = tqdm(total=images, desc=job.title, unit=" images", unit_scale=True, mininterval=1.0, disable=not shown)
    bar.set_postfix_str(f"{len(todo)} of {max(len(job.works), len(todo))} runs to do")
    return bar


def _answers(job: Job) -> dict[str, Answer | None]:
    return {each.run.key: each.answer(job.store) for each in job.works}


def _collected(job: Job) -> dict[str, Answer]:
    answers = _answers(job)
    if lost := [key for key, answer in answers.items() if answer is None]:
        where = f"{job.store.root}: the runs folder must be shared by all machines"
        raise TrainingError(f"run {lost[0]} ended without a record in {where}")
    return answers


def _warn_of_edits(job: Job, there: dict[str, Answer | None], *, new: set[str]) -> None:
    """A line for each other state of the sources that stored runs were trained with; records without a digest say nothing."""
    records = [record for record, _ in (answer for key, answer in there.items() if key not in new)]
    now = provenance.sources(provenance.PACKAGE)
    for then, number in Counter(record.provenance.get("sources") for record in records).items():
        if then not in (None, now):
            again = f"to train them again remove the folders that grep -l {then} {job.store.root}/*/result.json names"
            print(
                f"{number} of {len(job.works)} runs were trained before sarlib's sources were edited; {again}", file=sys.stderr
            )


def _in_one_line(job: Job) -> KeyboardInterrupt:
    """An interruption whose message is all that a notebook shows of it."""
    finished = sum(job.store.read(each.run) is not None for each in job.works)
    stop = KeyboardInterrupt(f"interrupted: {finished} of {len(job.works)} runs are finished; run it again to go on from there")
    stop._render_traceback_ = lambda: [str(stop)]  # which IPython shows in the place of its own
    return stop
