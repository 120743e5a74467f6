"""The entropy's kernel on a GPU: the CPU's loss and gradient, whatever surrounds it, without a wait of the host."""

from __future__ import annotations

import pytest
import torch
from adversarial_maps import adversarial, degenerate
from bench.device import captured, waits
from bench.interleaved import require_equal
from bench.loss import forward_backward
from bench.maps import KINDS, similarity_maps

from sarlib.entropy import entropy_and_gradient, spatial_entropy

pytestmark = pytest.mark.gpu

#: Allowed difference from the CPU, relative to the largest value. The gradient has the type of the maps; in bfloat16 it may
#: differ in the last digit.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


def maps_of(kind: str, grid: int) -> torch.Tensor:
    if kind == "set of the tests":
        return torch.from_numpy(adversarial(grid, grid))
    return similarity_maps(kind, images=64, heads=6, grid=grid)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("grid", [7, 14, 16, 28])
@pytest.mark.parametrize("kind", [*KINDS, "set of the tests"])
def test_loss_and_gradient_are_those_of_the_cpu(gpu: torch.device, kind: str, grid: int, dtype: torch.dtype) -> None:
    maps = maps_of(kind, grid).to(dtype)
    (loss, gradient), (wanted_loss, wanted_gradient) = (
        forward_backward(spatial_entropy, each)() for each in (maps.to(gpu), maps)
    )
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    settings = {"side": str(gpu), "against": "the CPU"}
    require_equal(**settings, what="loss", found=loss, reference=wanted_loss, tolerance=TOLERANCE[torch.float32])
    require_equal(**settings, what="gradient", found=gradient, reference=wanted_gradient, tolerance=TOLERANCE[dtype])


def test_volumes_take_the_fallback(gpu: torch.device) -> None:
    """A clip's volume is not for the kernel: the CPU's numbers, on the device of the maps."""
    volumes = torch.randn(6, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(entropy_and_gradient(volumes.to(gpu)), entropy_and_gradient(volumes), strict=True):
        assert found.device.type == gpu.type and torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize("grid", [7, 28])
def test_maps_without_contrast_give_zero(gpu: torch.device, grid: int) -> None:
    maps = torch.stack([torch.from_numpy(each) for each in degenerate(grid, grid).values()])
    entropy, gradient = entropy_and_gradient(maps.to(gpu))
    assert not entropy.any() and not gradient.any()


@pytest.mark.parametrize("grid", [7, 28])
def test_a_value_that_is_not_finite_stays_in_its_map(gpu: torch.device, grid: int) -> None:
    maps = similarity_maps("random", images=4, heads=1, grid=grid).flatten(0, 1)
    whole, _ = entropy_and_gradient(maps.to(gpu))
    maps[0, 1, 1], maps[1, 0, 2], maps[2, 2, 0] = torch.nan, torch.inf, -torch.inf
    entropy, gradient = entropy_and_gradient(maps.to(gpu))
    assert entropy.isnan().tolist() == gradient.isnan().all(2).all(1).tolist() == [True, True, True, False]
    assert entropy[3] == whole[3]


def test_compiled_and_under_autocast_it_is_the_same(gpu: torch.device) -> None:
    maps = similarity_maps("random", images=16, heads=6, grid=14).to(gpu)

    def weighted(maps: torch.Tensor) -> torch.Tensor:
        with torch.autocast(gpu.type, dtype=torch.bfloat16):
            return 0.01 * spatial_entropy(maps)

    compiled = torch.compile(weighted, fullgraph=True, backend="inductor" if gpu.type == "cuda" else "aot_eager")
    loss, gradient = forward_backward(lambda maps: 0.01 * spatial_entropy(maps), maps)()
    for other in (weighted, compiled):
        found, slope = forward_backward(other, maps)()
        assert found.dtype == torch.float32
        assert torch.allclose(found, loss, rtol=1e-6) and torch.allclose(slope, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("grid", [7, 14, 16, 28])
def test_a_cuda_graph_replays_it_and_the_host_never_waits(gpu: torch.device, grid: int) -> None:
    if gpu.type != "cuda":
        pytest.skip("needs CUDA graphs")
    run = forward_backward(spatial_entropy, similarity_maps("random", images=64, heads=6, grid=grid).to(gpu))
    captured(run)
    assert waits(run) == 0
