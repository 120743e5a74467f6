"""What only a GPU has: the kernel against a copy of its input, waits of the host, CUDA graphs, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import rivals
from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.loss import OURS, RELEASED, forward_backward, one_thread, require_equal_loss
from bench.maps import similarity_maps
from bench.plan import Plan
from bench.waits import WAITS, waits
from sarlib.entropy import entropy_and_gradient, spatial_entropy

KERNEL = "kernel against a copy"
HOST = "loss against the released algorithm on the same host"
GRAPH = f"{OURS}, CUDA graph"
COPY = "copy of S"

#: Runs in one graph, so that launching the graph is not what is timed.
REPEATS = 20


def measure_device(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """The kernel on every grid of the plan, the loss against the released algorithm; random maps, which stay in the cache."""
    measurements, facts = [], []
    for grid in plan.kernel_grids:
        maps = similarity_maps("random", images=plan.kernel_batch, heads=plan.heads, grid=grid).to(device)
        settings = {"B": plan.kernel_batch, "H": plan.heads, "k": grid, "maps": "random"}
        graph, check = captured(forward_backward(spatial_entropy, maps))
        measurements.append(_against_copy(maps, graph, check, plan, settings))
        if grid == plan.rival_grid:
            measurements.append(_against_released(maps, graph, check, plan, settings))
        run = forward_backward(spatial_entropy, maps)
        facts += [
            Fact(name=WAITS, settings=settings, value=waits(run), unit="a call"),
            Fact(name="peak memory over that of S", settings=settings, value=_peak(run, maps), unit="times S"),
        ]
    return measurements, facts


def captured(run: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Side, Check]:
    """`run`, which returns loss and gradient, `REPEATS` times in one CUDA graph, and the check that a replay gives the same.

    Capturing fails where anything in `run` waits for the device.
    """
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
    for tensor in outcome:
        tensor.zero_()
    graph.replay()
    pairs = zip(outcome, expected, strict=True)
    together, wanted = (torch.cat([tensor.flatten() for tensor in side]) for side in zip(*pairs, strict=True))
    check = require_equal(GRAPH, OURS, what="loss and gradient", found=together, reference=wanted, tolerance=0.0)
    return Side(name=GRAPH, run=graph.replay, repeats=REPEATS), check


def _against_copy(maps: Tensor, graph: Side, check: Check, plan: Plan, settings: dict[str, Any]) -> Measurement:
    """A copy of S reads and writes what any loss with gradient has to: its time is the floor."""
    flat, target = maps.flatten(0, 1), torch.empty_like(maps)
    sides = [
        Side(name=COPY, run=_graph(lambda: target.copy_(maps)).replay, repeats=REPEATS),
        Side(name=f"{OURS}, entropy and gradient only", run=_graph(lambda: entropy_and_gradient(flat)).replay, repeats=REPEATS),
        graph,
        Side(name=f"{OURS}, eager", run=forward_backward(spatial_entropy, maps)),
    ]
    return measure(KERNEL, sides, effort=plan.loss, now=clock(maps.device), settings=settings, checks=[check])


def _against_released(maps: Tensor, graph: Side, check: Check, plan: Plan, settings: dict[str, Any]) -> Measurement:
    """The released algorithm labels on the CPU, with one thread, and gets its maps from the GPU."""
    checks = [check, *require_equal_loss(RELEASED, rivals.released, maps)]
    sides = [
        graph,
        Side(name=f"{OURS}, eager", run=forward_backward(spatial_entropy, maps)),
        Side(name=RELEASED, run=forward_backward(rivals.released, maps)),
    ]
    with one_thread():
        return measure(HOST, sides, effort=plan.loss, now=clock(maps.device), settings=settings, checks=checks)


def _graph(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            run()
    return graph


def _peak(run: Callable[[], Any], maps: Tensor) -> float:
    torch.cuda.reset_peak_memory_stats(maps.device)
    before = torch.cuda.memory_allocated(maps.device)
    run()
    return (torch.cuda.max_memory_allocated(maps.device) - before) / (maps.numel() * maps.element_size())
