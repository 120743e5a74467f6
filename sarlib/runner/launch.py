"""Starting the processes that train: on this machine, side by side or joined as torchrun joins them, or on a cluster
by submitit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sarlib.config import ConfigError, TrainingError
from sarlib.trainer.interruption import Interrupted, listening, noting

POLL_SECONDS = 1.0
RESTARTS = 1000  # of a job at its time limit


def side_by_side(
    work: Callable[..., object], arguments: Sequence[tuple], *, on_poll: Callable[[], None] | None = None, joined: bool = False
) -> None:
    """`work(*each)` for each of the `arguments`, all at once in processes of this machine, which get the signals to stop
    as well.

    The first error is raised when all have ended, at once where they are `joined` and would wait for each other:
    `ConfigError` and `TrainingError` as they are, a `TrainingError` for a process that died, `Interrupted` if a signal
    stopped them. Where this process is interrupted they are killed, which checkpoints make safe. `on_poll` is called about
    once a second.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    processes = [context.Process(target=_body, args=(work, each, errors)) for each in arguments]
    with listening() as request, _interruptions() as interruptions:
        try:
            with _without_interruption():
                for process in processes:
                    process.start()
            running, passed_on = {process.sentinel for process in processes}, False
            while running and not interruptions and not (joined and any(process.exitcode for process in processes)):
                for sentinel in wait(running, timeout=POLL_SECONDS):
                    running.remove(sentinel)
                if request.number and not passed_on:
                    passed_on = True
                    for process in filter(BaseProcess.is_alive, processes):
                        os.kill(process.pid, request.number)
                if on_poll is not None:
                    on_poll()
        finally:
            for process in filter(BaseProcess.is_alive, processes):
                process.kill()
                process.join()
    if request.number:
        raise Interrupted(request.number)
    if not errors.empty():
        raise errors.get()
    if any(process.exitcode for process in processes):
        why = "for the reason above or, if there is none, perhaps for want of memory (try fewer WORKERS)"
        raise TrainingError(f"a process died, {why}; finished runs are safe and the others resume")


def _body(work: Callable[..., object], arguments: tuple, errors: Any) -> None:
    """Ctrl-C is the parent's business, which ends its processes; a killed parent leaves none behind."""

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow_parent, daemon=True).start()
    try:
        work(*arguments)
    except (ConfigError, TrainingError, Interrupted) as error:
        errors.put(error)
        sys.exit(1)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Ctrl-C, however often, is noted in what is yielded and takes effect after the body, which can end its processes first."""
    heard, noted = [] if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else [signal.SIGINT], []
    try:
        with noting(*heard) as noted:
            yield noted
    finally:
        if noted:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _without_interruption() -> Iterator[None]:
    """What starts in the body never sees Ctrl-C, not even while it imports; this process sees it after the body."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if os.name == "posix" else None
    try:
        yield
    finally:
        if earlier is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def joined(work: Callable[[Any], object], job: Any, *, processes: int) -> None:
    """`work(job)` in that many processes, each with the environment that torchrun gives; errors as from `side_by_side`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    try:
        side_by_side(_ranked, [(rank, processes, port, work, job) for rank in range(processes)], joined=True)
    except ConfigError as error:
        raise TrainingError(f"one of {processes} processes failed: {error}") from error


def _ranked(rank: int, size: int, port: int, work: Callable[[Any], object], job: Any) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "localhost", **{name: str(number) for name, number in ranks.items()}}
    work(job)


def cluster(path: Path) -> dict[str, Any]:
    """A cluster's YAML file: submitit's `executor` (slurm, local, auto) and its parameters, such as timeout_min.

    `ConfigError` if it cannot be read or submitit is not installed.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the cluster file {path}: {error}") from error
    if not isinstance(content, dict) or "executor" not in content:
        raise ConfigError(f"{path} must name its executor (slurm, or local to try it out), as in 'executor: slurm'")
    if find_spec("submitit") is None:
        raise ConfigError("runs on a cluster need submitit: pip install 'sarlib[cluster]'")
    return content


class Requeueable:
    """`work(job)` as submitit runs it: when the cluster takes the machine away, all is saved and the job is queued again."""

    def __init__(self, work: Callable[[Any], object]) -> None:
        self.work = work

    def __call__(self, job: Any) -> None:
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        try:
            self.work(job)
        except Interrupted:
            # Now that all is saved, submitit's own handler may do what it would have done at once: queue this job again and
            # exit. It does so in the first task only and returns in the others, which have nothing left to do.
            signal.raise_signal(submitit.JobEnvironment()._usr_sig())
            sys.exit(0)

    def checkpoint(self, job: Any) -> Any:
        """What submitit queues in the place of an interrupted job: the same, for it goes on from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


def submit(
    work: Callable[[Any], object], jobs: Sequence[Any], *, on: dict[str, Any], processes: int, gpus: bool, logs: Path
) -> Iterator[int]:
    """`work(job)` for every job `on` a cluster, an array of jobs of `processes` tasks a node; yields their numbers as they end.

    If jobs fail the others go on, then `TrainingError` names the first. If the caller is interrupted they are cancelled.
    `ConfigError` for parameters that the executor does not know.
    """
    import submitit

    logs.mkdir(parents=True, exist_ok=True)
    parameters = {"tasks_per_node": processes, "gpus_per_node": processes if gpus else 0, **on}
    name = str(parameters.pop("executor"))
    # By default a job that reaches its time limit for the fourth time is given up; a long training needs many.
    chosen = {} if name == "auto" else {"cluster": name, f"{name}_max_num_timeout": RESTARTS}
    try:
        executor = submitit.AutoExecutor(folder=logs / "%j", **chosen)
        executor.update_parameters(**parameters)
    except (ValueError, NameError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"the cluster's executor {name!r} refuses its parameters: {reason}") from error
    submitted, failures = executor.map_array(Requeueable(work), jobs), []
    try:
        for job in submitit.helpers.as_completed(submitted, poll_frequency=POLL_SECONDS):
            if (error := job.exception()) is not None:
                failures.append(f"job {job.job_id} failed ({str(error).strip().splitlines()[-1]}); see {logs / job.job_id}")
            yield submitted.index(job)
    finally:
        for job in submitted:
            if not job.done():
                job.cancel()
    if failures:
        raise TrainingError(failures[0])
