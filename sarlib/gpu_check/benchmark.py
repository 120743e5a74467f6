"""The benchmark's own measurements (`sarlib.bench`), shortened: the kernel in one part, compiled training steps in another.

The loss at every size, which takes minutes, is left to `make bench`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sarlib.bench.device import measure_device
from sarlib.bench.loss import measure_loss
from sarlib.bench.step import measure_step
from sarlib.gpu_check.parts import Found, Task


def find_kernel(task: Task) -> Iterator[Found]:
    """The kernel against a copy of its input and against the released algorithm; on a CPU, which has none, the loss against its rivals."""
    device = torch.device(task.device)
    measurements, facts = (measure_device if device.type == "cuda" else measure_loss)(task.plan.benchmark, device)
    yield Found(measurements=tuple(measurements), facts=tuple(facts), skipped=("the loss at every size: make bench",))


def find_step(task: Task) -> Iterator[Found]:
    """Training steps of timm's ViT-S/16 and of ours, after it was shown that they give equal gradients."""
    measurements, facts = measure_step(task.plan.benchmark, torch.device(task.device))
    yield Found(
        measurements=tuple(measurements), facts=tuple(facts), skipped=("training steps that are not compiled: make bench",)
    )
