"""Several trainings at once on one machine: a pool of processes, each of which makes one run after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from filelock import Timeout
from tqdm import tqdm

from sarlib.config import TrainingError
from sarlib.run import Run
from sarlib.runner.execute import execute, execute_locked, images_seen
from sarlib.runner.machine import Machine
from sarlib.runner.store import Record, Store

PROGRESS_SECONDS = 1.0


def side_by_side(runs: Sequence[Run], *, store: Store, root: Path | None, machine: Machine, bar: tqdm) -> dict[str, Record]:
    """Records of `runs` by key, made by `machine.workers` processes, longest runs first, so that none is left alone at the end.

    Runs that another process is training are collected at the end. If a run fails the others are finished, then its error is raised.
    """
    context = multiprocessing.get_context("spawn")
    steps, seats, stop = context.Queue(), context.Queue(), context.Event()
    ordered = sorted(runs, key=images_seen, reverse=True)
    workers = min(machine.workers, len(ordered))
    for seat in range(workers):
        seats.put(_seat(machine.device, seat))
    with (
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(machine.threads, steps, seats, stop)
        ) as pool,
        _stopping(pool, stop),
    ):
        futures = {pool.submit(_in_worker, run, store, root, machine.micro_batches): run for run in ordered}
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
        raise _told(failures[0])
    for run in elsewhere:
        records[run.key] = execute(
            run, store=store, root=root, device=machine.device, micro_batches=machine.micro_batches, on_step=bar.update
        )
    return records


def _seat(device: str, worker: int) -> str:
    """The device of a worker: several workers are dealt to the GPUs in turn."""
    return f"cuda:{worker % torch.cuda.device_count()}" if device == "cuda" else device


def _told(error: BaseException) -> BaseException:
    """A worker that died without a word breaks its pool; what that means for the runs is said here."""
    if isinstance(error, BrokenProcessPool):
        return TrainingError(
            "a worker process died, perhaps for want of memory (try fewer WORKERS); finished runs are kept and the others resume"
        )
    return error


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
_device: str = "cpu"  # and its device


def _start_worker(threads: int, steps: Any, seats: Any, stop: Any) -> None:
    """Limit the worker's threads and tie its life to its parent's: a killed or interrupted parent leaves no training behind.

    Ctrl-C reaches every process of a terminal; here it is the parent's business, which sets `stop`.
    """
    global _steps, _device
    _steps, _device = steps, seats.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def follow_parent() -> None:
        while parent.is_alive() and not stop.wait(PROGRESS_SECONDS):
            pass
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def _in_worker(run: Run, store: Store, root: Path | None, micro_batches: int) -> Record | None:
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
        record = execute_locked(run, store=store, root=root, device=_device, micro_batches=micro_batches, on_step=on_step)
    _steps.put(pending)
    return record
