"""Equations 4-9 against a slow float64 reference: SciPy map by map, one mask a component, autograd through the masks."""

import numpy as np
import pytest
import torch
from adversarial_maps import adversarial, random_maps
from scipy import ndimage

from sarlib.entropy import (
    component_counts,
    component_probabilities,
    components,
    excess,
    map_entropy,
    similarity,
    spatial_entropy,
)

GRIDS = [(7, 7), (14, 14), (5, 9)]


def maps_of(h: int, w: int) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([adversarial(h, w), random_maps(200, h, w)]))


def reference_excess(one: torch.Tensor) -> torch.Tensor:
    return torch.relu(one.double() - one.double().mean())


def reference_labels(one: torch.Tensor) -> np.ndarray:
    return ndimage.label(reference_excess(one).numpy() > 0, structure=np.ones((3, 3)))[0]


def reference_probabilities(one: torch.Tensor) -> torch.Tensor:
    surplus, labels = reference_excess(one), reference_labels(one.detach())
    masks = torch.from_numpy(np.stack([labels == j for j in range(1, labels.max() + 1)]))
    return (surplus * masks).sum((1, 2)) / surplus.sum()


def reference_entropy(one: torch.Tensor) -> torch.Tensor:
    share = reference_probabilities(one)
    return -(share * share.log()).sum()


def test_equation_4_is_the_scaled_product_of_query_and_key_in_raster_order():
    query, keys = torch.randn(2, 3, 8), torch.randn(2, 3, 6 * 4, 8)
    found = similarity(query, keys, grid=(6, 4))
    for batch, head, row, column in np.ndindex(2, 3, 6, 4):
        by_hand = (query[batch, head].double() @ keys[batch, head, row * 4 + column].double()) / np.sqrt(8)
        assert found[batch, head, row, column].item() == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize("h, w", GRIDS)
def test_equation_5_keeps_what_exceeds_the_mean(h, w):
    maps = maps_of(h, w)
    expected = torch.stack([reference_excess(one) for one in maps])
    torch.testing.assert_close(excess(maps).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("h, w", GRIDS)
def test_equation_6_partitions_as_scipy_does(h, w):
    maps = maps_of(h, w)
    expected = np.stack([reference_labels(one) for one in maps])
    assert np.array_equal(components(maps).numpy(), expected)
    assert np.array_equal(component_counts(maps).numpy(), expected.max((1, 2)))


@pytest.mark.parametrize("h, w", GRIDS)
def test_equation_7_is_the_entropy_of_each_map(h, w):
    maps = maps_of(h, w)
    expected = torch.stack([reference_entropy(one) for one in maps])
    torch.testing.assert_close(map_entropy(maps).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("h, w", GRIDS)
def test_equation_8_is_each_components_share_of_the_excess(h, w):
    maps = maps_of(h, w)
    found = component_probabilities(maps)
    for one, shares in zip(maps, found):
        expected = reference_probabilities(one)
        torch.testing.assert_close(shares[: len(expected)].double(), expected, atol=1e-6, rtol=0)
        assert not shares[len(expected) :].any()


@pytest.mark.parametrize("h, w", GRIDS)
def test_equation_9_is_the_mean_over_batch_and_heads_and_its_gradient_that_of_the_masks(h, w):
    n_maps = len(maps_of(h, w)) // 2 * 2
    maps = maps_of(h, w)[:n_maps].reshape(-1, 2, h, w).requires_grad_()
    loss = spatial_entropy(maps)
    loss.backward()
    twin = maps.detach().double().requires_grad_()
    expected = torch.stack([reference_entropy(one) for one in twin.flatten(0, 1)]).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    error = (maps.grad - twin.grad).abs().amax((-2, -1))
    assert (error <= 1e-5 * twin.grad.abs().amax((-2, -1)) + 1e-12).all()


def test_equations_7_and_8_agree_through_autograd():
    maps = maps_of(6, 6).double()
    first, second = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    map_entropy(first).sum().backward()
    shares = component_probabilities(second)
    (-(shares * torch.where(shares > 0, shares, 1).log()).sum()).backward()
    torch.testing.assert_close(first.grad, second.grad)
