"""The loss alone, forward and backward, on one CPU thread (or on the GPU): ours against the baselines."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench import baselines
from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.maps import similarity_maps
from bench.plan import Plan
from sarlib.entropy import spatial_entropy

NAME = "loss forward and backward"
OURS = "sarlib"
RELEASED = "released algorithm"
TIGHTENED = "released algorithm, tightened"
KORNIA = "kornia"

Loss = Callable[[Tensor], Tensor]

EXACT_BASELINES: dict[str, Loss] = {
    RELEASED: baselines.released,
    TIGHTENED: baselines.released_tightened,
    "released algorithm with scipy": baselines.released_with_scipy,
}

#: Allowed difference of loss and gradient, relative to the largest value. The 1e-9 of the released algorithm is part of it.
TOLERANCE = 1e-5


def measure_loss(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """Every cell of the plan's grid, and the share of maps on which kornia's components are wrong."""
    measurements, facts = [], []
    with one_thread():
        for kind in plan.kinds:
            for grid in plan.grids:
                for batch in plan.batches:
                    maps = similarity_maps(kind, images=batch, heads=plan.heads, grid=grid).to(device)
                    settings = {"B": batch, "H": plan.heads, "k": grid, "maps": kind, "threads": 1}
                    if batch == plan.baseline_batch or (kind == "random" and grid == plan.baseline_grid):
                        share, right = baselines.share_of_wrong_partitions(maps)
                        facts.append(Fact(name="maps that kornia labels wrongly", settings=settings, value=share, unit="share"))
                        measurements.append(_against_baselines(maps, right, plan, settings))
                    else:
                        side = Side(name=OURS, run=forward_backward(spatial_entropy, maps))
                        measurements.append(measure(NAME, [side], effort=plan.alone, now=clock(device), settings=settings))
    return measurements, facts


def forward_backward(loss: Loss, maps: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function without arguments that returns the loss of `maps` and its gradient."""
    leaf = maps.detach().clone().requires_grad_()

    def run() -> tuple[Tensor, Tensor]:
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    return run


def require_equal_loss(name: str, loss: Loss, maps: Tensor) -> list[Check]:
    """Loss and gradient of a baseline are ours on `maps`, or `Unequal` is raised."""
    ours, theirs = forward_backward(spatial_entropy, maps)(), forward_backward(loss, maps)()
    return [
        require_equal(name, OURS, what=what, found=found, reference=reference, tolerance=TOLERANCE)
        for what, found, reference in zip(("loss", "gradient"), theirs, ours, strict=True)
    ]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread for torch, and for OpenCV where it is installed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        importlib.import_module("cv2").setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _against_baselines(maps: Tensor, right: Tensor, plan: Plan, settings: dict) -> Measurement:
    """Ours, the exact baselines, and kornia, which is compared on the maps that it gets right and timed on all of them."""
    checks = [check for name, loss in EXACT_BASELINES.items() for check in require_equal_loss(name, loss, maps)]
    checks += require_equal_loss(KORNIA, baselines.kornia_pooling, maps.flatten(0, 1)[right]) if right.any() else []
    losses = {OURS: spatial_entropy, **EXACT_BASELINES, KORNIA: baselines.kornia_pooling}
    sides = [Side(name=name, run=forward_backward(loss, maps)) for name, loss in losses.items()]
    return measure(NAME, sides, effort=plan.loss, now=clock(maps.device), settings=settings, checks=checks)
