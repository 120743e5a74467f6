"""Volumes of a clip: the same equations with one more axis, against a flood fill, against autograd, and against two axes."""

from __future__ import annotations

import itertools
import types

import numpy as np
import pytest
import torch
from adversarial_maps import adversarial, masks, random_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sarlib import entropy
from sarlib.config import ConfigError
from sarlib.entropy import (
    component_counts,
    component_probabilities,
    components,
    entropy_and_gradient,
    excess,
    map_entropy,
    spatial_entropy,
)


def flood_fill(foreground: np.ndarray) -> np.ndarray:
    """26-connected components, numbered in raster order of their first cells: from each new cell to all that it reaches."""
    labels, found = np.zeros(foreground.shape, int), 0
    for start in np.ndindex(foreground.shape):
        if not foreground[start] or labels[start]:
            continue
        found += 1
        labels[start], reached = found, [start]
        while reached:
            cell = reached.pop()
            for step in itertools.product((-1, 0, 1), repeat=3):
                near = tuple(np.add(cell, step))
                inside = all(0 <= at < side for at, side in zip(near, foreground.shape))
                if inside and foreground[near] and not labels[near]:
                    labels[near] = found
                    reached.append(near)
    return labels


def above(maps: torch.Tensor) -> np.ndarray:
    return (maps.double() > maps.double().mean((1, 2, 3), keepdim=True)).numpy()


def sparse(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Volumes of which about one cell in ten exceeds the mean: with more of them, all is one component."""
    noise = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(noise > 0.9, noise, 0.1 * noise)


def woven(h: int, w: int) -> torch.Tensor:
    """Volumes whose frames are adversarial maps in turn with sparse ones, and a path that goes on in time alone."""
    frames = torch.from_numpy(np.stack(list(masks(h, w))))
    path = torch.zeros(5, h, w, dtype=torch.bool)
    for time, (row, column) in enumerate(((0, 0), (1, 1), (0, 2), (1, 3), (2, 4))):
        path[time, row, column] = True
    apart = path.clone()
    apart[2] = False  # 0, 1 and 3, 4 touch only through what was there
    dots = torch.zeros(5, h, w, dtype=torch.bool)
    dots[::2, ::2, ::2] = True
    pieces = [frames[i : i + 5] for i in range(0, len(frames) - 5, 5)]
    foreground = torch.stack([path, apart, dots, *pieces])
    noise = torch.rand(foreground.shape, generator=torch.Generator().manual_seed(0))  # off it all lies below the mean
    return torch.where(foreground, 2 + noise, -1e-3 * noise)


VOLUMES = {"random": sparse(40, 3, 4, 4), "crowded": torch.randn(10, 3, 4, 5), "woven": woven(6, 7)}


@pytest.mark.parametrize("name", VOLUMES)
def test_components_are_those_of_a_flood_fill(name: str) -> None:
    volumes = VOLUMES[name]
    expected = np.stack([flood_fill(each) for each in above(volumes)])
    assert np.array_equal(components(volumes, axes=3).numpy(), expected)
    assert np.array_equal(component_counts(volumes, axes=3).numpy(), expected.max((1, 2, 3)))
    assert name == "crowded" or expected.max() > 2


def test_what_joins_two_frames_is_one_component() -> None:
    path, apart, dots, *_ = components(woven(6, 7), axes=3)
    assert (path.max(), apart.max(), dots.max()) == (1, 2, 3 * 3 * 4)


@pytest.mark.parametrize("shape", [(3, 4, 4), (8, 14, 14), (5, 1, 9)])
def test_components_are_those_of_cc3d(shape: tuple[int, int, int]) -> None:
    cc3d = pytest.importorskip("cc3d", reason="connected-components-3d, which is compared with, is not installed")
    volumes = sparse(30, *shape)
    for found, each in zip(components(volumes, axes=3).numpy(), above(volumes), strict=True):
        expected = cc3d.connected_components(each, connectivity=26)
        pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("h, w", [(1, 6), (7, 7), (14, 9)])
def test_one_frame_is_a_map(h: int, w: int) -> None:
    maps = torch.from_numpy(np.concatenate([adversarial(h, w), random_maps(100, h, w)]) if h > 1 else random_maps(100, h, w))
    volumes = maps[:, None]
    assert torch.equal(components(volumes, axes=3)[:, 0], components(maps))
    assert torch.equal(component_counts(volumes, axes=3), component_counts(maps))
    for function in (map_entropy, component_probabilities):
        torch.testing.assert_close(function(volumes, axes=3), function(maps), atol=1e-7, rtol=0)
    torch.testing.assert_close(excess(volumes, axes=3)[:, 0], excess(maps), atol=1e-7, rtol=0)
    (_, of_volumes), (_, of_maps) = entropy_and_gradient(volumes), entropy_and_gradient(maps)
    torch.testing.assert_close(of_volumes[:, 0], of_maps, atol=1e-7, rtol=1e-6)


def reference(volumes: torch.Tensor) -> torch.Tensor:
    """Equations 5-8 spelled out in float64 with the flood fill's components: (N,)."""
    found = []
    for each in volumes:
        surplus = torch.relu(each - each.mean())
        labels = torch.from_numpy(flood_fill((each > each.mean()).numpy()))
        masses = torch.stack([surplus[labels == j].sum() for j in range(1, int(labels.max()) + 1)])
        share = masses / surplus.sum()
        found.append(-(share * share.log()).sum())
    return torch.stack(found)


@pytest.mark.parametrize("name", VOLUMES)
def test_entropy_and_gradient_are_those_of_autograd_in_float64(name: str) -> None:
    volumes = VOLUMES[name][:12]
    twin = volumes.double().requires_grad_()
    expected = reference(twin)
    expected.sum().backward()
    value, gradient = entropy_and_gradient(volumes)
    torch.testing.assert_close(value.double(), expected.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient.double(), twin.grad, atol=1e-6, rtol=1e-5)
    leaf = volumes.clone().requires_grad_()
    spatial_entropy(leaf[:, None].expand(-1, 2, -1, -1, -1), axes=3).backward()
    torch.testing.assert_close(leaf.grad, gradient / len(volumes))


few_levels = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4), elements=st.integers(-3, 3).map(float)
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(few_levels)
def test_volumes_of_a_few_levels_agree_with_the_flood_fill(levels: np.ndarray) -> None:
    """None joins its neighbour in the batch, and equal values are no component."""
    sums = levels.astype(np.float64).sum((1, 2, 3), keepdims=True)
    expected = np.stack([flood_fill(each) for each in levels.astype(np.float64) * levels[0].size > sums])
    assert np.array_equal(components(torch.from_numpy(levels), axes=3).numpy(), expected)


def test_gradcheck_and_the_compiler() -> None:
    volumes = sparse(2, 3, 4, 5).double().reshape(2, 1, 3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spatial_entropy(x, axes=3), volumes)
    torch.library.opcheck(entropy_and_gradient, (torch.randn(2, 3, 4, 5).requires_grad_(),))
    compiled = torch.compile(lambda x: spatial_entropy(x, axes=3), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(volumes), spatial_entropy(volumes, axes=3))


def test_a_value_that_is_not_finite_spoils_its_own_volume_only() -> None:
    volumes = sparse(3, 3, 4, 4)
    clean, slope = entropy_and_gradient(volumes)
    volumes[1, 2, 3, 3] = float("nan")
    value, gradient = entropy_and_gradient(volumes)
    assert value.isnan().tolist() == [False, True, False] and gradient[1].isnan().all()
    assert torch.equal(value[::2], clean[::2]) and torch.equal(gradient[::2], slope[::2])


def test_white_noise_is_one_component_in_three_axes_and_several_in_two() -> None:
    """What the page says of a clip's entropy: about half of the keys exceed the mean, and with 26 neighbours that joins."""
    volumes = torch.randn(200, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert component_counts(volumes, axes=3).float().mean() < 1.1 and map_entropy(volumes, axes=3).mean() < 0.01
    assert component_counts(volumes).float().mean() > 2 and map_entropy(volumes).mean() > 0.3


def test_on_a_gpu_a_volume_takes_the_path_of_grids_that_the_kernel_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shape alone: no GPU is needed to see the choice."""
    kernel = types.SimpleNamespace(LARGEST_GRID=64)
    monkeypatch.setattr(entropy, "_kernel", lambda: kernel)

    def path(*shape: int) -> str:
        there = types.SimpleNamespace(type="cuda")
        return entropy._path(types.SimpleNamespace(shape=torch.Size(shape), device=there, dim=lambda: len(shape)))

    assert [path(9, 14, 14), path(9, 64, 3), path(9, 65, 14), path(9, 8, 14, 14), path(9, 1, 14, 14)] == [
        *("triton", "triton", "cpu"),
        *("cpu", "cpu"),
    ]
    monkeypatch.setenv("SAR_ENTROPY", "triton")
    with pytest.raises(ConfigError, match="maps of two axes, not the volumes of a clip: unset SAR_ENTROPY"):
        spatial_entropy(torch.randn(2, 3, 4, 4), axes=3)


@pytest.mark.parametrize("shape", [(4, 4), (2, 0, 3, 3)])
def test_what_is_no_volume_is_one_clear_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"shape \(\.\.\., T, h, w\) with T, h, w > 0"):
        map_entropy(torch.zeros(shape), axes=3)
    with pytest.raises(ConfigError, match="a map has 2 axes, a clip's volume 3, got axes=4"):
        map_entropy(torch.zeros(2, 3, 4, 5), axes=4)
