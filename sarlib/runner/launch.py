"""Starting the processes of a training: on this machine as torchrun does, or on a cluster through submitit.

Each started process finds RANK, LOCAL_RANK, WORLD_SIZE and the address of the first one in its environment (`sarlib.trainer.distributed.joined`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sarlib.config import ConfigError, TrainingError
from sarlib.trainer.interruption import SIGNALS as REQUESTS
from sarlib.trainer.interruption import Interrupted

#: Every signal that the launcher of processes handles.
SIGNALS = tuple({*REQUESTS, *(getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name))})

POLL_SECONDS = 1.0
RESTARTS = 1000  # of a job at its time limit


@dataclass(frozen=True)
class Cluster:
    """A cluster as its file describes it: submitit's `executor` (slurm, local, auto) and the parameters that it takes, such as timeout_min."""

    executor: str
    parameters: dict[str, Any]


def cluster(path: Path) -> Cluster:
    """Reads a cluster's YAML file. `ConfigError` if it cannot be read or submitit is not installed."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the cluster file {path}: {error}") from error
    if not isinstance(content, dict) or "executor" not in content:
        raise ConfigError(f"{path} must name its executor (slurm, or local to try it out), as in 'executor: slurm'")
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("runs on a cluster need submitit: pip install 'sarlib[cluster]'") from error
    executor = content.pop("executor")
    return Cluster(executor=str(executor), parameters=content)


def torchrun(work: Callable[[Any], None], job: Any, *, processes: int) -> None:
    """`work(job)` in that many processes of this machine, all of which have to succeed.

    `TrainingError` with the message of the first that failed; `Interrupted` if a signal stopped them, each after saving.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher passes on the signals that it handles; by default the clusters' warnings are not among them and would end it.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
    )
    handlers = {number: signal.getsignal(number) for number in SIGNALS}  # which the launcher replaces and does not put back
    try:
        elastic_launch(config, _started)(work, job)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise TrainingError(f"process {rank} of {processes} failed: {_cause(failure)}") from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Interrupted.by(error.sigval) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _started(work: Callable[[Any], None], job: Any) -> None:
    """The body of a process under `torchrun`; its error goes to the launcher, in one line where it is one of ours."""
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(work)(job)
    except Interrupted:
        return


def _cause(failure: Any) -> str:
    """What an elastic process failure says, its last line."""
    if failure.signal_name() != "<N/A>":
        return f"it was ended by {failure.signal_name()}; finished runs and checkpoints are kept"
    return str(failure.message).strip().splitlines()[-1]


class Requeueable:
    """`work(job)` as submitit runs it: when the cluster takes the machine away, what is done is saved and the job is queued again."""

    def __init__(self, work: Callable[[Any], None], job: Any) -> None:
        self.work, self.job = work, job

    def __call__(self) -> None:
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        try:
            self.work(self.job)
        except Interrupted:
            # Now that all is saved, submitit's own handler may do what it would have done at once: queue this job again and exit. It
            # does so in the first task only and returns in the others, which have nothing left to do.
            signal.raise_signal(submitit.JobEnvironment()._usr_sig())
            sys.exit(0)

    def checkpoint(self) -> Any:
        """What submitit queues in the place of an interrupted job: the same, for it goes on from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(
    work: Callable[[Any], None], jobs: Sequence[Any], *, on: Cluster, processes: int, gpus: bool, logs: Path
) -> Iterator[int]:
    """`work(job)` for every job, as one array of jobs of `processes` tasks a node; yields the numbers of jobs as they end.

    If jobs fail the others go on, then `TrainingError` names the first failure. If the caller is interrupted the jobs are cancelled.
    `ConfigError` for parameters that the executor does not know.
    """
    import submitit

    logs.mkdir(parents=True, exist_ok=True)
    try:
        # By default a job that reaches its time limit for the fourth time is given up; a long training needs many.
        restarts = {} if on.executor == "auto" else {f"{on.executor}_max_num_timeout": RESTARTS}
        executor = submitit.AutoExecutor(folder=logs / "%j", cluster=None if on.executor == "auto" else on.executor, **restarts)
        executor.update_parameters(**{"tasks_per_node": processes, "gpus_per_node": processes if gpus else 0, **on.parameters})
    except (ValueError, NameError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"the cluster's executor {on.executor!r} refuses its parameters: {str(error).strip().splitlines()[0]}"
        ) from error
    with executor.batch():
        submitted = [executor.submit(Requeueable(work, job)) for job in jobs]
    waiting, failure = dict(enumerate(submitted)), None
    try:
        while waiting:
            for number in [number for number, job in waiting.items() if job.done()]:
                failure = failure or _failure(waiting.pop(number), logs)
                yield number
            time.sleep(POLL_SECONDS)
    finally:
        for job in waiting.values():
            job.cancel()
    if failure is not None:
        raise TrainingError(failure)


def _failure(job: Any, logs: Path) -> str | None:
    error = job.exception()
    return (
        None
        if error is None
        else f"job {job.job_id} failed ({str(error).strip().splitlines()[-1]}); its logs are in {logs / job.job_id}"
    )
