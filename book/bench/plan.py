"""What is measured, and for how long: in full on a CPU or a GPU, or as a trial of the benchmark itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from bench.interleaved import Effort


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and efforts.

    Loss: every batch size with every grid (side in tokens) and every kind of maps; the baselines on `baseline_batch` in full,
    and on the other batch sizes at grid `baseline_grid` with random maps. Step: timm's `model` with `overrides` on `step_batch`
    images, eager (False) or compiled (True) or both; a CPU's time grows with the images, so that few of them and many rounds
    give the narrowest interval of a ratio. `kernel_grids`: where a GPU's kernel is set against a copy. Overhead: every
    architecture at the size of `overhead_preset`, with as many images as a training gives a device, as AdamW's share of a step
    falls with them.
    """

    batches: tuple[int, ...] = (64, 256, 1024)
    grids: tuple[int, ...] = (7, 14, 28)
    kinds: tuple[str, ...] = ("random", "smooth", "adversarial")
    heads: int = 6
    baseline_batch: int = 256
    baseline_grid: int = 14
    model: str = "vit_small_patch16_224"
    overrides: dict[str, Any] = field(default_factory=dict)
    image_size: int = 224
    step_batch: int = 4
    check_batch: int = 2
    compiled: tuple[bool, ...] = (False,)
    kernel_batch: int = 1024
    kernel_grids: tuple[int, ...] = (7, 14, 16, 28)
    overhead_preset: str = "laptop"
    overhead_pixels: int = 64
    overhead_batch: int = 50
    loss: Effort = Effort(seconds=6.0, rounds=(3, 60))
    alone: Effort = Effort(seconds=0.5, rounds=(5, 60))
    step: Effort = Effort(seconds=50.0, rounds=(13, 400))
    overhead: Effort = Effort(seconds=11.0, rounds=(9, 400))


def full(device: torch.device, *, compiled: bool = False) -> Plan:
    """The benchmark proper: meant for five minutes on two CPU cores or on a GPU, where compiled steps always belong to it."""
    if device.type == "cuda":
        return Plan(
            step_batch=256,
            check_batch=8,
            compiled=(False, True),
            overhead_preset="paper",
            overhead_pixels=224,
            overhead_batch=256,
            loss=Effort(seconds=2.0, rounds=(3, 60)),
            step=Effort(seconds=30.0, rounds=(10, 400)),
            overhead=Effort(seconds=10.0, rounds=(9, 400)),
        )
    return Plan(compiled=(False, True) if compiled else (False,))


def trial(*, compiled: bool = False) -> Plan:
    """Everything once, at sizes at which times mean nothing."""
    effort = Effort(seconds=0.0, rounds=(2, 2), sample_seconds=0.0)
    return Plan(
        batches=(2, 4),
        grids=(7, 14),
        baseline_batch=4,
        overrides={"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 10},
        image_size=32,
        step_batch=2,
        compiled=(False, True) if compiled else (False,),
        kernel_batch=4,
        overhead_preset="tiny",
        overhead_pixels=64,
        overhead_batch=2,
        loss=effort,
        alone=effort,
        step=effort,
        overhead=effort,
    )
