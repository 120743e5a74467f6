"""The loss on the device: right, capturable, and without a wait of the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from sarlib.bench.device import captured
from sarlib.bench.interleaved import Check, Fact, Unequal, require_equal
from sarlib.bench.loss import forward_backward
from sarlib.bench.maps import similarity_maps
from sarlib.bench.waits import WAITS, waits
from sarlib.config import TrainingError
from sarlib.entropy import spatial_entropy
from sarlib.gpu_check.parts import Found, Task

#: Allowed difference from the CPU path, relative to the largest value. The gradient has the type of the maps; in bfloat16 it
#: may differ in the last digit.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


def find(task: Task) -> Iterator[Found]:
    """Loss and gradient against the CPU path, for every grid, kind of maps and type; then a replayed CUDA graph against the first run.

    Everything is tried before `TrainingError` names what failed.
    """
    device, plan, failures = torch.device(task.device), task.plan, []
    for grid in plan.grids:
        for kind in plan.kinds:
            maps = similarity_maps(kind, images=plan.images, heads=plan.heads, grid=grid)
            for dtype in TOLERANCES:
                settings = {"k": grid, "maps": kind, "type": str(dtype).removeprefix("torch.")}
                try:
                    yield Found(checks=_like_the_cpu(maps.to(dtype), device, settings))
                    if device.type == "cuda":
                        yield (found := _in_a_graph(maps.to(device, dtype), settings))
                        failures += [f"{WAITS} with {settings}" for fact in found.facts if fact.value > 0]
                except Unequal as error:
                    failures.append(f"{error}")
    if device.type != "cuda":
        yield Found(skipped=("CUDA graphs and waits of the host: they need a GPU",))
    if failures:
        raise TrainingError(f"{len(failures)} checks of the loss failed, the first: {failures[0]}")


def _like_the_cpu(maps: Tensor, device: torch.device, settings: dict) -> tuple[Check, ...]:
    name = f"{device.type}, {', '.join(map(str, settings.values()))}"
    ours, reference = (forward_backward(spatial_entropy, each)() for each in (maps.to(device), maps))
    tolerances = (TOLERANCES[torch.float32], TOLERANCES[maps.dtype])  # the loss itself is always float32
    return tuple(
        require_equal(name, "the CPU path", what=what, found=found, reference=wanted, tolerance=tolerance)
        for what, found, wanted, tolerance in zip(("loss", "gradient"), ours, reference, tolerances, strict=True)
    )


def _in_a_graph(maps: Tensor, settings: dict) -> Found:
    run = forward_backward(spatial_entropy, maps)
    _, check = captured(run)
    check = dataclasses.replace(check, side=f"{check.side}, {', '.join(map(str, settings.values()))}")
    return Found(checks=(check,), facts=(Fact(name=WAITS, settings=settings, value=waits(run), unit="a call"),))
