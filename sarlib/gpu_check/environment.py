"""On what the figures are made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import torch

from sarlib.gpu_check.parts import Found, Task

_QUERY = "driver_version,memory.total,clocks.max.sm,power.limit"


def find(task: Task) -> Iterator[Found]:
    """Driver, memory, clock and power limit as nvidia-smi tells them, and torch's CUDA; library versions are in every record."""
    device = torch.device(task.device)
    notes = {"torch": torch.__version__, "cpu threads": str(task.threads)}
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        notes |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version()), "capability": capability}
        notes |= dict(zip(_QUERY.split(","), _nvidia_smi(), strict=False))
    yield Found(notes=notes)


def _nvidia_smi() -> list[str]:
    """The first GPU's answers; none where the tool is missing."""
    try:
        command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [answer.strip() for answer in told.splitlines()[0].split(",")] if told.strip() else []
