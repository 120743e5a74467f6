"""What the entropy does beyond its equations: many maps, odd maps, types, memory layouts, torch.compile."""

import numpy as np
import pytest
import torch
from adversarial_maps import adversarial, degenerate, random_maps
from entropy_reference import assert_agree
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sarlib.config import ConfigError
from sarlib.entropy import (
    component_counts,
    component_probabilities,
    components,
    entropy_and_gradient,
    map_entropy,
    similarity,
    spatial_entropy,
)


def assert_agrees(maps: torch.Tensor) -> None:
    assert_agree(maps, *entropy_and_gradient(maps))


@pytest.mark.parametrize("h, w, n", [(7, 7, 60_000), (14, 14, 40_000), (9, 13, 10_000), (28, 28, 1_000), (3, 64, 1_000)])
def test_many_random_maps_agree_with_the_float64_reference(h, w, n):
    for seed, part in enumerate(range(0, n, 10_000)):
        assert_agrees(torch.from_numpy(random_maps(min(10_000, n - part), h, w, seed=seed)))


@pytest.mark.parametrize("h, w", [(2, 2), (7, 7), (14, 14), (16, 16), (5, 11), (31, 64), (64, 64)])
def test_adversarial_maps_agree_with_the_float64_reference(h, w):
    assert_agrees(torch.from_numpy(adversarial(h, w)))


few_levels = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9),
    elements=st.integers(-3, 3).map(float),
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(few_levels)
def test_maps_of_a_few_levels_agree_with_scipy(levels):
    maps = torch.from_numpy(levels)
    for one, labels in zip(levels.astype(np.float64), components(maps).numpy()):
        expected, _ = ndimage.label(one * one.size > one.sum(), structure=np.ones((3, 3)))
        assert np.array_equal(labels, expected)
    assert_agrees(maps)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(few_levels, st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_offset_change_nothing_and_the_gradient_knows(levels, scale, offset):
    maps = torch.from_numpy(levels).double()
    entropy, gradient = entropy_and_gradient(maps)
    moved, _ = entropy_and_gradient(scale * maps.round() + 0.5 * round(offset))
    varied = component_counts(maps) == component_counts(scale * maps + 0.5 * round(offset))
    torch.testing.assert_close(moved[varied], entropy[varied])
    torch.testing.assert_close(gradient.sum((1, 2)), torch.zeros(len(maps)).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close((gradient * maps).sum((1, 2)), torch.zeros(len(maps)).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", degenerate(7, 7))
@pytest.mark.parametrize("h, w", [(7, 7), (1, 1), (1, 6), (14, 14)])
def test_maps_without_two_components_cost_exactly_nothing(name, h, w):
    maps = torch.from_numpy(degenerate(h, w)[name]).expand(2, 3, h, w).clone().requires_grad_()
    loss = spatial_entropy(maps)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(maps.grad, torch.zeros_like(maps))


def test_equal_values_have_no_component_even_where_their_float32_mean_would_be_rounded():
    maps = torch.linspace(-1, 1, 1001)[:, None, None].expand(-1, 7, 9)
    assert not component_counts(maps).any()
    assert not components(maps).any()
    assert component_probabilities(maps).shape == (1001, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_spoils_its_own_map_only(value):
    maps = torch.from_numpy(random_maps(6, 7, 7))
    clean, slope = entropy_and_gradient(maps)
    maps[2, 3, 4] = value
    maps[4] = value
    entropy, gradient = entropy_and_gradient(maps)
    broken = torch.tensor([False, False, True, False, True, False])
    assert torch.equal(entropy.isnan(), broken)
    assert torch.equal(gradient.isnan().all(2).all(1), broken)
    assert torch.equal(entropy[~broken], clean[~broken])
    assert torch.equal(gradient[~broken], slope[~broken])
    assert spatial_entropy(maps).isnan()


def test_gradcheck_in_float64():
    maps = torch.from_numpy(random_maps(6, 5, 6)[:3]).double().reshape(3, 1, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(spatial_entropy, maps)
    assert torch.autograd.gradcheck(component_probabilities, maps)


def test_a_second_derivative_is_refused_rather_than_wrong():
    maps = torch.randn(2, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(spatial_entropy(maps), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_calculated_in_float32(dtype):
    maps = torch.from_numpy(random_maps(40, 7, 7)).to(dtype)
    exact, slope = entropy_and_gradient(maps.float())
    leaf = maps.clone().requires_grad_()
    entropies = map_entropy(leaf)
    entropies.sum().backward()
    assert entropies.dtype == torch.float32 and torch.equal(entropies, exact)
    assert leaf.grad.dtype == dtype and torch.equal(leaf.grad, slope.to(dtype))
    assert torch.equal(components(maps), components(maps.float()))


def test_autocast_does_not_reach_the_similarity():
    query, keys = torch.randn(4, 2, 16), 3 + torch.randn(4, 2, 35, 16)
    expected = similarity(query, keys, grid=(5, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity(query, keys, grid=(5, 7))
        loss = spatial_entropy(found)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert loss.dtype == torch.float32 and torch.equal(loss, spatial_entropy(expected))
    assert similarity(query.bfloat16(), keys.bfloat16(), grid=(5, 7)).dtype == torch.float32


def test_memory_layout_does_not_matter():
    attention = torch.randn(3, 4, 1 + 6 * 5, requires_grad=True)
    maps = attention[:, :, 1:].unflatten(-1, (6, 5))
    spatial_entropy(maps).backward()
    copy = maps.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    spatial_entropy(copy).backward()
    assert torch.equal(attention.grad[:, :, 1:], copy.grad.flatten(-2))
    turned = copy.detach().transpose(0, 1).transpose(-1, -2)
    assert torch.equal(map_entropy(turned), map_entropy(turned.contiguous()))
    assert torch.equal(components(turned), components(turned.contiguous()))


def test_a_mirrored_or_transposed_map_has_the_same_entropy():
    maps = torch.from_numpy(random_maps(200, 6, 9))
    for twin in (maps.flip(-1), maps.flip(-2), maps.transpose(-1, -2)):
        torch.testing.assert_close(map_entropy(twin), map_entropy(maps), atol=1e-6, rtol=0)


def test_leading_dimensions_are_kept():
    maps = torch.from_numpy(random_maps(24, 5, 6))
    for leading in [(24,), (4, 6), (2, 3, 4)]:
        shaped = maps.reshape(*leading, 5, 6)
        assert torch.equal(map_entropy(shaped), map_entropy(maps).reshape(leading))
        assert torch.equal(component_counts(shaped), component_counts(maps).reshape(leading))
        assert torch.equal(components(shaped), components(maps).reshape(shaped.shape))
        assert component_probabilities(shaped).shape[:-1] == leading
    assert map_entropy(maps[0]).shape == component_counts(maps[0]).shape == ()
    assert spatial_entropy(maps).shape == ()


def test_an_empty_batch_costs_nothing():
    maps = torch.zeros(0, 6, 7, 7, requires_grad=True)
    loss = spatial_entropy(maps)
    loss.backward()
    assert loss.item() == 0 and maps.grad.shape == maps.shape
    assert components(maps).shape == maps.shape and component_counts(maps).shape == (0, 6)
    assert component_probabilities(maps).shape == (0, 6, 0)


def test_the_operator_keeps_what_it_promises_to_the_compiler():
    torch.library.opcheck(entropy_and_gradient, (torch.randn(5, 4, 6).transpose(1, 2).requires_grad_(),))


def test_it_compiles_into_one_graph():
    compiled = torch.compile(lambda maps: 3 * spatial_entropy(2 * maps), backend="aot_eager", fullgraph=True)
    first, second = (torch.from_numpy(random_maps(8, 7, 7)).reshape(4, 2, 7, 7).requires_grad_() for _ in range(2))
    compiled(first).backward()
    (3 * spatial_entropy(2 * second)).backward()
    assert torch.equal(first.grad, second.grad)


def test_what_does_not_fit_is_one_clear_line(monkeypatch):
    with pytest.raises(ConfigError, match="36 keys do not fill a grid of 5 x 7"):
        similarity(torch.zeros(1, 1, 8), torch.zeros(1, 1, 36, 8), grid=(5, 7))
    with pytest.raises(ConfigError, match=r"shape \(\.\.\., h, w\)"):
        spatial_entropy(torch.zeros(4))
    with pytest.raises(ConfigError, match=r"shape \(\.\.\., h, w\)"):
        components(torch.zeros(4, 0, 3))
    monkeypatch.setenv("SAR_ENTROPY", "gpu")
    with pytest.raises(ConfigError, match="SAR_ENTROPY='gpu' is not a path"):
        spatial_entropy(torch.randn(2, 4, 4))
