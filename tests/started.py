"""What the processes of tests/runner/test_launch.py do: light, without torch, and importable by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sarlib.config import ConfigError
from sarlib.trainer.interruption import Interrupted, listening

if TYPE_CHECKING:
    from sarlib.runner.execute import Job, OnStep, Work
    from sarlib.trainer.distributed import Ranks


def wait_for_a_signal(folder: Path, number: int) -> None:
    with listening() as request:
        (folder / str(number)).touch()
        while not request.number:
            time.sleep(0.01)
        raise Interrupted(request.number)


def end(folder: Path, number: int, how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "refused":
        raise ConfigError(f"number {number} is refused")
    if how == "broken":
        raise ZeroDivisionError
    if how == "waits":
        time.sleep(600)
    (folder / str(number)).touch()


def train_until_preempted(job: Job) -> None:
    """`schedule.work`, where the fifth step of the first start waits for the signal. Says in a file of its own that
    it is there."""
    from sarlib.runner import schedule

    execute, folder = schedule.execute, job.store.root.parent

    def gated(work: Work, job: Job, *, ranks: Ranks, on_step: OnStep) -> None:
        steps = iter(range(1, 10**6))

        def waiting(images: int) -> None:
            if next(steps) == 5 and not (folder / "preempted").exists():
                with listening() as request:  # that of the training around it
                    (folder / f"training-{ranks.rank}").touch()
                    while not request.number:
                        time.sleep(0.05)
            on_step(images)

        execute(work, job, ranks=ranks, on_step=waiting)

    schedule.execute = gated
    schedule.work(job)
