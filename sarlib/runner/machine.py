"""On what runs are made: device, processes, threads, checked before a minute is spent."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarlib.config import require
from sarlib.runner import launch
from sarlib.trainer.distributed import launched


@dataclass(frozen=True)
class Machine:
    """`workers` runs at once, each by `processes` processes of `threads` CPU threads, on `device`.

    `micro_batches`: in how many parts a process takes its share of a batch. With a `cluster` every run is a job of it.
    Until `resolved`, the device may be "auto", and workers and threads None.
    """

    device: str
    workers: int | None = None
    threads: int | None = None
    processes: int = 1
    micro_batches: int = 1
    cluster: dict[str, Any] | None = None

    def resolved(self) -> Machine:
        """The same with everything decided. "auto" is the GPU where torch finds one. `ConfigError` for a GPU that is not there.

        By default one single-threaded worker a core on a CPU (two of them beat one with two threads), one on a GPU.
        """
        device = self.device
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and self.cluster is None:
            _require_gpus(device, self.processes)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        alone = self.processes == 1 and not launched()
        workers = self.workers or (cores if device.startswith("cpu") and alone else 1)
        allowed = os.environ.get("OMP_NUM_THREADS", "")  # as users and batch systems say it
        most = int(allowed) if allowed.isdecimal() else sys.maxsize
        threads = self.threads or max(1, min(cores // (workers * self.processes), most))
        return dataclasses.replace(self, device=device, workers=workers, threads=threads)


def check(
    *, device: str = "auto", workers: int | None = None, gpus: int | None = None, cluster: str | Path | None = None
) -> Machine:
    """The machine that a user describes, checked as far as that needs no torch, and wholly where the `device` is named.

    `gpus` is how many GPUs (on a CPU: processes) train one run together; `cluster` a YAML file as `launch.cluster` reads it.
    The environment variable SAR_MICRO_BATCHES, for want of memory, says in how many parts a process takes its share of a
    batch. `ConfigError` for an unknown or absent device, numbers below one, more GPUs than there are, workers beside several
    GPUs a run.
    """
    described = launch.cluster(Path(cluster)) if cluster is not None else None
    known = re.fullmatch(r"auto|(cpu|cuda)(:\d+)?", device) is not None
    require(known, f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N")
    parts = os.environ.get("SAR_MICRO_BATCHES", "1")
    require(parts.isdecimal() and int(parts) > 0, f"SAR_MICRO_BATCHES={parts!r}: set it to 1 or more, or unset it")
    for what, number in (("workers", workers), ("gpus", gpus)):
        require(number is None or number > 0, f"{what} must be 1 or more, got {number}")
    require(
        (gpus or 1) == 1 or (workers or 1) == 1,
        f"a run on {gpus} GPUs has the machine to itself: leave WORKERS out, or say GPUS=1 for {workers} runs side by side",
    )
    machine = Machine(device, workers, processes=gpus or 1, micro_batches=int(parts), cluster=described)
    return machine if device == "auto" else machine.resolved()


def _require_gpus(device: str, processes: int) -> None:
    import torch

    usable = torch.cuda.is_available()
    require(usable, f"device {device!r}: torch {torch.__version__} finds no usable GPU here; use auto or cpu")
    number, found = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    require(number < found, f"device {device!r}: the GPUs here are numbered from 0 to {found - 1}")
    require(processes <= found, f"GPUS={processes}: there are only {found} GPUs here")
