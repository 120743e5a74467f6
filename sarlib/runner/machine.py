"""On what runs are made: device, processes, threads, checked before a minute is spent."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from sarlib.config import ConfigError
from sarlib.runner import launch
from sarlib.trainer import distributed


@dataclass(frozen=True)
class Machine:
    """On what the runs are made: `workers` of them at once, each by `processes` processes of `threads` CPU threads, on `device`.

    `micro_batches`: in how many parts a process takes its share of a batch. With a `cluster` every run is a job of it.
    """

    device: str
    workers: int
    threads: int
    processes: int = 1
    micro_batches: int = 1
    cluster: launch.Cluster | None = None


def at_hand(
    *,
    device: str = "auto",
    workers: int | None = None,
    gpus: int | None = None,
    micro_batches: int | None = None,
    cluster: str | Path | None = None,
) -> Machine:
    """The machine at hand. By default one single-threaded worker a core on a CPU (two of them beat one with two threads), one on a GPU.

    `micro_batches` is in how many parts a process takes its share of a batch, for want of memory (default: the environment variable SAR_MICRO_BATCHES, or 1).
    `gpus` is how many GPUs (or, on a CPU, processes) train one run together; `cluster` a YAML file as `sarlib.runner.launch.cluster` reads it.
    `ConfigError` for an unknown or absent device, numbers below one, more GPUs than there are, or workers beside several GPUs a run.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    described = launch.cluster(Path(cluster)) if cluster is not None else None
    if described is None:
        _require_device(device)
    micro_batches = _micro_batches() if micro_batches is None else micro_batches
    for what, number in (("workers", workers), ("gpus", gpus), ("micro_batches", micro_batches)):
        if number is not None and number < 1:
            raise ConfigError(f"{what} must be 1 or more, got {number}")
    processes, kind = gpus or 1, device.partition(":")[0]
    if processes > 1 and (workers or 1) > 1:
        raise ConfigError(
            f"a run on {processes} GPUs has the machine to itself: leave WORKERS out, or say GPUS=1 for {workers} runs side by side"
        )
    if processes > 1 and kind == "cuda" and described is None and processes > torch.cuda.device_count():
        raise ConfigError(f"GPUS={processes} was asked for, but there are only {torch.cuda.device_count()} GPUs here")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = cores if kind == "cpu" and processes == 1 and not distributed.launched() else 1
    threads = max(1, min(cores // (workers * processes), _allowed_threads()))
    return Machine(
        device=device, workers=workers, threads=threads, processes=processes, micro_batches=micro_batches, cluster=described
    )


check = at_hand
launched, leads = distributed.launched, distributed.leads


def _allowed_threads() -> int:
    """Of a process: OMP_NUM_THREADS, as users and batch systems say it; as many as there can be where it is not set."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else sys.maxsize


def _micro_batches() -> int:
    given = os.environ.get("SAR_MICRO_BATCHES", "1")
    if not given.isdecimal():
        raise ConfigError(f"SAR_MICRO_BATCHES={given!r}: set it to the number of micro_batches, or unset it")
    return int(given)


def _require_device(device: str) -> None:
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r} was asked for, but torch {torch.__version__} finds no usable GPU here; use auto or cpu"
        )
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} was asked for, but there are only {torch.cuda.device_count()} GPUs here")
