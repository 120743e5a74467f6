"""From declared runs to finished records: answered from the store, resumed, or trained; one at a time or side by side.

A run is never trained twice: not by two tables that share it, not by two processes at once, not after a kill.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from filelock import Timeout
from tqdm import tqdm

from sarlib import data
from sarlib.config import ConfigError, Run
from sarlib.provenance import provenance
from sarlib.store import Record, Store

PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Machine:
    """On what the runs are made: `workers` processes at once, each with `threads` CPU threads, on `device`."""

    device: str
    workers: int
    threads: int


def machine(*, device: str = "auto", workers: int | None = None) -> Machine:
    """The machine at hand. By default one single-threaded worker a core on a CPU (two of them beat one with two threads), one on a GPU.

    `ConfigError` for an unknown or absent device, or fewer than one worker.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but torch {torch.__version__} finds no usable GPU here; use auto or cpu")
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} was asked for, but there are only {torch.cuda.device_count()} GPUs here")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = cores if kind == "cpu" else 1
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, got {workers}")
    return Machine(device=device, workers=workers, threads=max(1, cores // workers))


def execute(run: Run, *, store: Store, root: Path | None, device: str, on_step: Any = lambda images: None) -> Record:
    """The record of one run: from the store, or by (resumed) training. Waits if another process is at it.

    `root` is the folder of real data sets, `on_step` as in `train`.
    """
    with store.lock(run):
        return store.read(run) or _train_and_keep(run, store=store, root=root, device=torch.device(device), on_step=on_step)


def _train_and_keep(run: Run, *, store: Store, root: Path | None, device: torch.device, on_step: Any) -> Record:
    # What trains brings timm and torchvision with it, seconds of imports that a run answered from the store can do without.
    from sarlib.evaluate import evaluate, jaccard_references
    from sarlib.train import train

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    images = data.load(run.data, seed=run.seed, root=root)
    trained = train(run, images=images, device=device, folder=store.folder(run), on_step=on_step)
    size, batch = run.data.image_size, run.recipe.batch_size * 4
    metrics = {row["metric"]: row["value"] for row in trained.history if row["split"] == "test" and row["epoch"] == run.recipe.epochs}
    if trained.average is not None:
        average = evaluate(trained.average, images[1], batch_size=batch, image_size=size, device=device)
        metrics |= {f"{name}_average": value for name, value in average.items()}
    metrics |= jaccard_references(images[1], (run.grid, run.grid), heads=run.model.heads)
    seen = run.recipe.epochs * (len(images[0]) // run.recipe.batch_size or 1) * min(len(images[0]), run.recipe.batch_size)
    metrics |= {"seconds": trained.seconds, "images_per_second": seen / trained.seconds}
    record = Record(run=run, metrics=metrics, provenance=provenance(device) | _memory(device))
    store.write(run, record=record, history=trained.history, weights=trained.model.state_dict())
    return record


def _memory(device: torch.device) -> dict[str, float]:
    """Peak memory of the run in MiB: on the GPU where there is one, else of the process since it started."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def execute_all(runs: Iterable[Run], *, store: Store, root: Path | None, machine: Machine, title: str = "") -> dict[str, Record]:
    """Records of all `runs` by key, each distinct run once, `machine.workers` of them at a time, with a bar that tells the time left.

    Runs that another process is training are left to it and collected at the end. `ConfigError` if the store cannot be written. If a
    run fails the others are finished first, then its error is raised.
    """
    store.require_writable()
    distinct = {run.key: run for run in runs}
    records = {key: record for key, run in distinct.items() if (record := store.read(run)) is not None}
    missing = [run for key, run in distinct.items() if key not in records]
    if not missing:
        return records
    with tqdm(total=sum(map(_images, missing)), desc=title, unit=" images", unit_scale=True, mininterval=PROGRESS_SECONDS) as bar:
        bar.set_postfix_str(f"{len(missing)} of {len(distinct)} runs to train")
        if machine.workers == 1:
            torch.set_num_threads(machine.threads)
            for run in missing:
                records[run.key] = execute(run, store=store, root=root, device=machine.device, on_step=bar.update)
        else:
            records |= _side_by_side(missing, store=store, root=root, machine=machine, bar=bar)
    return records


def _images(run: Run) -> int:
    """Training images that a run sees, as far as its declaration tells: the bar's unit of work."""
    size = run.data.train_size or 50_000
    return run.recipe.epochs * (size - size % min(size, run.recipe.batch_size))


def _side_by_side(runs: list[Run], *, store: Store, root: Path | None, machine: Machine, bar: tqdm) -> dict[str, Record]:
    """`execute` in a pool of processes, longest runs first, so that none is left alone at the end."""
    context = multiprocessing.get_context("spawn")
    steps = context.Queue()
    ordered = sorted(runs, key=_images, reverse=True)
    workers, stop = min(machine.workers, len(ordered)), context.Event()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(machine.threads, steps, stop)
    ) as pool, _stopping(pool, stop):
        futures: dict[Future[Record | None], Run] = {pool.submit(_in_worker, run, store, root, machine.device): run for run in ordered}
        listener = threading.Thread(target=_show_progress, args=(steps, bar, list(futures)), daemon=True)
        listener.start()
        records, failures, elsewhere = {}, [], []
        for future in as_completed(futures):
            run = futures[future]
            if (error := future.exception()) is not None:
                failures.append(error)
            elif (record := future.result()) is None:
                elsewhere.append(run)
            else:
                records[run.key] = record
        listener.join()
    if failures:
        raise failures[0]
    for run in elsewhere:
        records[run.key] = execute(run, store=store, root=root, device=machine.device, on_step=bar.update)
    return records


@contextmanager
def _stopping(pool: ProcessPoolExecutor, stop: Any) -> Iterator[None]:
    """If the body is interrupted, let no further run start and the running ones end where they are: checkpoints make that safe."""
    try:
        yield
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _show_progress(steps: Any, bar: tqdm, futures: list[Future]) -> None:
    while not all(future.done() for future in futures) or not steps.empty():
        try:
            bar.update(steps.get(timeout=PROGRESS_SECONDS))
        except Empty:
            continue


_steps: Any = None  # this worker's end of the progress queue


def _start_worker(threads: int, steps: Any, stop: Any) -> None:
    """Limit the worker's threads and tie its life to its parent's: a killed or interrupted parent leaves no training behind.

    Ctrl-C reaches every process of a terminal; here it is the parent's business, which sets `stop`.
    """
    global _steps
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def follow_parent() -> None:
        while parent.is_alive() and not stop.wait(PROGRESS_SECONDS):
            pass
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def _in_worker(run: Run, store: Store, root: Path | None, device: str) -> Record | None:
    """As `execute`, but None at once if another process is training this run. Progress is told at most once a second."""
    pending, told = 0, time.monotonic()

    def on_step(images: int) -> None:
        nonlocal pending, told
        pending += images
        if time.monotonic() - told > PROGRESS_SECONDS:
            _steps.put(pending)
            pending, told = 0, time.monotonic()

    try:
        lock = store.lock(run).acquire(blocking=False)
    except Timeout:
        return None
    with lock:
        record = store.read(run) or _train_and_keep(run, store=store, root=root, device=torch.device(device), on_step=on_step)
    _steps.put(pending)
    return record
