"""What only a GPU has: the kernel against a copy of its input, waits of the host, CUDA graphs, memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import baselines
from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.loss import OURS, RELEASED, forward_backward, one_thread, require_equal_loss
from bench.maps import similarity_maps
from bench.plan import Plan
from sarlib.entropy import entropy_and_gradient, spatial_entropy

KERNEL = "kernel against a copy"
HOST = "loss against the released algorithm on the same host"
GRAPH = f"{OURS}, CUDA graph"
COPY = "copy of S"
WAITS = "host synchronisations"

#: Runs in one graph, so that launching the graph is not what is timed.
REPEATS = 20


def measure_device(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """The kernel on every grid of the plan, the loss against the released algorithm; random maps, which stay in the cache."""
    measurements, facts = [], []
    for grid in plan.kernel_grids:
        maps = similarity_maps("random", images=plan.kernel_batch, heads=plan.heads, grid=grid).to(device)
        run = forward_backward(spatial_entropy, maps)
        graph, check = captured(run)
        sides = [graph, Side(name=f"{OURS}, eager", run=run)]
        common: dict[str, Any] = {
            "effort": plan.loss,
            "now": clock(device),
            "settings": {"B": plan.kernel_batch, "H": plan.heads, "k": grid, "maps": "random"},
        }
        measurements.append(measure(KERNEL, _floor(maps) + sides, checks=[check], **common))
        if grid == plan.baseline_grid:
            checks = [check, *require_equal_loss(RELEASED, baselines.released, maps)]
            released = Side(name=RELEASED, run=forward_backward(baselines.released, maps))
            with one_thread():  # the released algorithm labels on the CPU, and gets its maps from the GPU
                measurements.append(measure(HOST, [*sides, released], checks=checks, **common))
        peak = peak_bytes(run, device) / (maps.numel() * maps.element_size())
        facts += [
            Fact(name=WAITS, settings=common["settings"], value=waits(run), unit="a call"),
            Fact(name="peak memory over that of S", settings=common["settings"], value=peak, unit="times S"),
        ]
    return measurements, facts


def captured(run: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Side, Check]:
    """`run`, which returns loss and gradient, `REPEATS` times in one CUDA graph, and the check that a replay gives the same.

    Capturing fails where anything in `run` waits for the device.
    """
    graph, expected, outcome = _capture(run)
    for tensor in outcome:
        tensor.zero_()
    graph.replay()
    found, reference = (torch.cat([tensor.flatten() for tensor in side]) for side in (outcome, expected))
    check = require_equal(GRAPH, OURS, what="loss and gradient", found=found, reference=reference, tolerance=0.0)
    return Side(name=GRAPH, run=graph.replay, repeats=REPEATS), check


def waits(run: Callable[[], Any]) -> int:
    """How often `run` makes the host wait for the device, as far as torch's synchronisation debug mode sees it.

    Every such wait empties the queue that keeps the GPU busy.
    """
    run()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    # torch's words at each wait; the warning that announces the mode itself reads differently.
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """Memory that `run` needs beside what lives before and after it."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def _floor(maps: Tensor) -> list[Side]:
    """A copy of S reads and writes what any loss with gradient has to: its time is the floor."""
    flat, target = maps.flatten(0, 1), torch.empty_like(maps)
    works = {COPY: lambda: target.copy_(maps), f"{OURS}, entropy and gradient only": lambda: entropy_and_gradient(flat)}
    return [Side(name=name, run=_capture(work)[0].replay, repeats=REPEATS) for name, work in works.items()]


def _capture(run: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any, Any]:
    """A graph of `REPEATS` runs, what `run` returned while it warmed up, and what the graph writes to."""
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            expected = run()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            outcome = run()
    return graph, expected, outcome
