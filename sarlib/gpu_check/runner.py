"""Parts one after the other, each in a process of its own, until the time is up.

A process whose device has failed can do nothing more with it, and one that hangs in a driver hears no signal: neither may take the other
parts along. At the end of the time the process at work is told by SIGTERM, upon which a training saves its checkpoint
(`sarlib.interruption`), and killed if it does not listen.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import torch

from sarlib import distributed
from sarlib.gpu_check import records
from sarlib.gpu_check.parts import Found, Part, Task
from sarlib.gpu_check.records import Record
from sarlib.interruption import Interrupted, Request, listening

#: Of the time at most so many seconds are kept for the last part to stop in, and so many of these for what is done after it.
RESERVE, SUMMARY = 20.0, 5.0

_POLL = 0.2


def run(parts: Sequence[Part], task: Task, *, seconds: float) -> list[Record]:
    """The record of every part: from an earlier call, from now, or that there was no time for it. A line is printed for each.

    What an earlier call finished counts if this code did it on this device, as the record of the first part tells its name.
    """
    reserve = min(RESERVE, seconds / 4)
    deadline, grace = time.monotonic() + seconds - reserve, reserve - min(SUMMARY, reserve / 2)
    # What CUDA has been asked anything in must not be forked; without it forking saves the imports.
    context = multiprocessing.get_context("spawn" if task.device.startswith("cuda") else "forkserver")
    context.set_forkserver_preload(["sarlib.gpu_check.__main__", "torch._dynamo"])
    outcomes: list[Record] = []
    with listening() as asked:
        for part in parts:
            known, device = records.read(task.folder, part.name), outcomes[0].get("device") if outcomes else None
            left = deadline - time.monotonic()
            if not part.always and records.finished(known, task, device=device):
                outcome, note = known, "from an earlier call"
            elif asked.requested or left < max(part.least, _POLL):
                outcome = {"part": part.name, "status": records.LEFT, "error": None, "seconds": 0.0, "bars": []}
                note = "no time; the next call begins it"
            else:
                print(f"{_minutes(left)} left  {part.name} ...", flush=True)
                outcome = _in_a_process(part, task, context=context, deadline=deadline, grace=grace, asked=asked)
                note = outcome["error"] or f"{outcome['seconds']:.0f} s"
            print(f"{_minutes(deadline - time.monotonic())} left  {part.name}: {outcome['status']} ({note})", flush=True)
            outcomes.append(outcome)
    return outcomes


def _in_a_process(
    part: Part, task: Task, *, context: multiprocessing.context.BaseContext, deadline: float, grace: float, asked: Request
) -> Record:
    records.path(task.folder, part.name).unlink(missing_ok=True)
    process = context.Process(target=work, args=(part, task, dict(os.environ)), name=part.name)
    process.start()
    try:
        while process.is_alive() and not asked.requested and time.monotonic() < deadline:
            process.join(_POLL)
    finally:
        if told := process.is_alive():
            process.terminate()
            process.join(grace)
            if process.is_alive():
                process.kill()
                process.join()
    record = records.read(task.folder, part.name)
    if record is not None and record["status"] in (records.DONE, records.FAILED):
        return record
    if told:
        return records.close(part, task, status=records.STOPPED, error="the time was up; the next call goes on")
    return records.close(part, task, status=records.FAILED, error=f"its process ended with exit code {process.exitcode}")


def work(part: Part, task: Task, environment: Mapping[str, str]) -> None:
    """The body of a part's process."""
    os.environ.clear()  # a forked process has that of its server, which may be of yesterday
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the process that started this one decides
    torch.set_num_threads(task.threads)
    found, begin = Found(), time.monotonic()

    def keep(status: str, error: Exception | None = None) -> None:
        records.write(part, task, found, status=status, seconds=time.monotonic() - begin, error=error)

    try:
        distributed.device_of(task.device)  # makes it the current one
        for more in part.find(task):
            found = found + more
            keep(records.BEGUN)
        keep(records.DONE)
    except Interrupted:
        keep(records.BEGUN)
    except Exception as error:
        keep(records.FAILED, error)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted.by(number)


def _minutes(seconds: float) -> str:
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
