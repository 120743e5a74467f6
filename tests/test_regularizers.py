"""Every regulariser against a calculation by somebody else, a slow loop or a hand, and what all of them have to keep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.sparse.linalg import LaplacianNd
from scipy.spatial.distance import pdist
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sarlib import last_block
from sarlib.config import REGULARIZERS, ConfigError, Regularizer
from sarlib.config.learning import DRLOC_MODES
from sarlib.entropy import spatial_entropy
from sarlib.last_block import Output
from sarlib.regularizers import DRLoc, create, disagreement, pixel_entropy, softmax_entropy, total_variation

H, W, HEADS, DIM = 4, 5, 3, 6
OF_MAPS = [spatial_entropy, total_variation, softmax_entropy, pixel_entropy]


def random_maps(batch: int = 4, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, HEADS, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_output(batch: int = 4, dtype: torch.dtype = torch.float32) -> Output:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "logits": (batch, 10),
        "similarity": (batch, HEADS, H, W),
        "tokens": (batch, H * W, DIM),
        "heads": (batch, HEADS, 2),
    }
    return Output(**{name: torch.randn(shape, dtype=dtype, generator=generator) for name, shape in shapes.items()})


def each_field(output: Output, change: Callable[[Tensor], Tensor]) -> Output:
    return Output(*map(change, output))


def build(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(3)
    return create(Regularizer(name=name, weight=0.1, **settings), dim=DIM, heads=HEADS, grid=(H, W))


@pytest.fixture(
    params=[name for name in REGULARIZERS if name not in ("none", "drloc")] + [f"drloc {mode}" for mode in DRLOC_MODES]
)
def regularizer(request: pytest.FixtureRequest) -> nn.Module:
    """Each regulariser in turn, DRLoc in each of its modes."""
    name, *mode = request.param.split()
    return build(name, mode=mode[0], pairs=7) if mode else build(name)


def test_every_name_has_its_module_and_only_drloc_reads_patch_tokens() -> None:
    modules = {name: build(name) for name in REGULARIZERS if name != "none"}
    assert [name for name, module in modules.items() if module.needs_tokens] == ["drloc"]
    assert [name for name, module in modules.items() if list(module.parameters())] == ["drloc"]
    output = random_output()
    for function in OF_MAPS:
        assert modules[function.__name__](output) == function(output.similarity)
    assert modules["disagreement"](output) == disagreement(output.heads)


@pytest.mark.parametrize("mode", DRLOC_MODES)
def test_drloc_is_made_as_declared(mode: str) -> None:
    module = build("drloc", mode=mode, pairs=11)
    assert (module.mode, module.pairs, module.grid) == (mode, 11, (H, W))
    widths = [(layer.in_features, layer.out_features) for layer in module.mlp if isinstance(layer, nn.Linear)]
    assert widths == [(2 * DIM, 512), (512, 512), (512, 2 if mode == "l1" else H + W)]


# Maps


def test_total_variation_by_hand_and_by_scipys_laplacian() -> None:
    assert total_variation(torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])) == 0.5 * (1 + 4 + 4 + 9)
    maps = random_maps()
    laplacian = LaplacianNd((H, W), boundary_conditions="neumann", dtype=np.float64)
    by_scipy = [-0.5 * x @ laplacian.matvec(x) for x in maps.flatten(-2).flatten(0, 1).numpy()]
    assert total_variation(maps).item() == pytest.approx(np.mean(by_scipy))


def test_pixel_entropy_is_scipys_entropy_of_the_excess() -> None:
    maps = random_maps()
    surplus = (maps - maps.mean((-2, -1), keepdim=True)).clamp(min=0).flatten(-2).numpy()
    assert pixel_entropy(maps).item() == pytest.approx(entropy(surplus, axis=-1).mean())
    half_lit = (torch.arange(16).reshape(1, 1, 4, 4) < 8).float()
    assert pixel_entropy(half_lit).item() == pytest.approx(math.log(8))


def test_pixel_entropy_is_the_spatial_one_plus_that_within_the_components() -> None:
    maps = random_maps()
    within = []
    for surplus in (maps - maps.mean((-2, -1), keepdim=True)).clamp(min=0).flatten(0, 1).numpy():
        labels, count = ndimage.label(surplus > 0, structure=np.ones((3, 3)))
        members = [surplus[labels == j + 1] for j in range(count)]
        within.append(sum(mass.sum() / surplus.sum() * entropy(mass) for mass in members))
    assert pixel_entropy(maps).item() == pytest.approx(spatial_entropy(maps).item() + np.mean(within))


def test_pixel_entropy_does_not_see_where_the_tokens_are() -> None:
    """Four tokens in a block, and in the four corners: one disorder for the pixels, none and log 4 for the components."""
    block, corners = torch.zeros(2, 1, 1, H, W)
    block[..., :2, :2] = corners[..., :: H - 1, :: W - 1] = 1.0
    assert [pixel_entropy(maps).item() for maps in (block, corners)] == pytest.approx([math.log(4)] * 2)
    assert [spatial_entropy(maps).item() for maps in (block, corners)] == pytest.approx([0, math.log(4)])


def test_softmax_entropy_is_that_of_the_layers_attention() -> None:
    """The softmax of Equation 3 runs over the class token too; leaving its score out changes nothing."""
    maps = random_maps()
    with_class_token = torch.cat([torch.full((*maps.shape[:2], 1), 1.5, dtype=maps.dtype), maps.flatten(-2)], dim=-1)
    attention = torch.from_numpy(softmax(with_class_token.numpy(), axis=-1))[..., 1:].reshape(maps.shape)
    assert softmax_entropy(maps).item() == pytest.approx(spatial_entropy(attention).item())


def test_the_softmaxed_entropy_prefers_a_collapsed_map_and_sars_does_not() -> None:
    """Section 4.3: with the softmax, disorder need only be scaled up; without, only fewer components help."""
    blobs = torch.zeros(1, 1, 9, 9)
    blobs[..., 1:6, 1:6], blobs[..., 7:9, 7:9] = 1.0, 0.8
    scattered = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0)).pow(12)
    collapsed = 300 * scattered
    assert softmax_entropy(collapsed) < 1e-3 < softmax_entropy(blobs)
    assert spatial_entropy(blobs) < 0.5 < spatial_entropy(collapsed)
    assert spatial_entropy(collapsed).item() == pytest.approx(spatial_entropy(scattered).item(), rel=1e-4)
    single_peak = torch.zeros(1, 1, 9, 9)
    single_peak[..., 4, 4] = 1.0
    assert softmax_entropy(single_peak) == 0


@pytest.mark.parametrize("function", OF_MAPS)
@pytest.mark.parametrize("value", [0.0, -3.3, 1e30])
def test_flat_maps_cost_nothing_and_push_nowhere(function: Callable[[Tensor], Tensor], value: float) -> None:
    maps = torch.full((2, HEADS, 7, 6), value, requires_grad=True)
    loss = function(maps)
    loss.backward()
    assert loss == 0 and not maps.grad.any()


@pytest.mark.parametrize("function", OF_MAPS)
def test_a_map_of_half_flat_tokens_has_a_finite_gradient(function: Callable[[Tensor], Tensor]) -> None:
    maps = random_maps().clamp(min=0).float().requires_grad_()
    function(maps).backward()
    assert maps.grad.isfinite().all() and maps.grad.any()


# Heads


def test_disagreement_is_scipys_cosine_over_all_pairs() -> None:
    heads = random_output(dtype=torch.float64).heads
    assert disagreement(heads).item() == pytest.approx(np.mean([1 - pdist(x, "cosine") for x in heads.numpy()]))


def test_disagreement_is_least_where_heads_differ_most() -> None:
    one = torch.tensor([1.0, 0.0])
    assert disagreement(torch.stack([one, 5 * one])[None]).item() == pytest.approx(1)
    assert disagreement(torch.stack([one, one.flip(0)])[None]).item() == pytest.approx(0)
    assert disagreement(torch.stack([one, -one])[None]).item() == pytest.approx(-1)
    thirds = torch.tensor([[math.cos(a), math.sin(a)] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)])
    assert disagreement(thirds[None]).item() == pytest.approx(-0.5)


def test_a_head_without_output_agrees_with_nobody_and_is_not_pushed() -> None:
    heads = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]]], requires_grad=True)
    loss = disagreement(heads)
    loss.backward()
    assert loss.item() == pytest.approx(0.8 / 3)  # the one pair of three, 4 / 5
    assert heads.grad.isfinite().all() and not heads.grad[0, 0].any() and heads.grad[0, 1].any()


def test_disagreement_needs_two_heads() -> None:
    with pytest.raises(ConfigError, match="has 1"):
        create(Regularizer(name="disagreement", weight=0.1), dim=DIM, heads=1, grid=(H, W))


# DRLoc


def slow_drloc(module: DRLoc, tokens: Tensor, pairs: list[list[tuple[int, int]]]) -> float:
    """One pair after the other, rows and columns by divmod, the errors by NumPy and SciPy."""
    h, w = module.grid
    losses = []
    for image, of_image in zip(tokens, pairs, strict=True):
        for first, second in of_image:
            (y1, x1), (y2, x2) = divmod(first, w), divmod(second, w)
            predicted = module.mlp(torch.cat([image[first], image[second]])).detach().numpy()
            if module.mode == "l1":
                losses.append(0.5 * (abs(predicted[0] - abs(y1 - y2) / (h - 1)) + abs(predicted[1] - abs(x1 - x2) / (w - 1))))
                continue
            axes = [(predicted[:h], abs(y1 - y2)), (predicted[h:], abs(x1 - x2))]
            losses.append(sum(slow_bins(module.mode, logits, distance) for logits, distance in axes))
    return float(np.mean(losses))


def slow_bins(mode: str, logits: np.ndarray, distance: int) -> float:
    if mode == "cross_entropy":
        return -log_softmax(logits)[distance]
    bins, weights = np.arange(len(logits)), softmax(logits)
    mean = np.average(bins, weights=weights)
    variance = np.average((bins - mean) ** 2, weights=weights) + 1e-8
    return (mean - distance) ** 2 / variance + 0.001 * np.log(variance)


@pytest.mark.parametrize("mode", DRLOC_MODES)
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (5, 2)])
def test_drloc_is_a_slow_loop_over_a_fixed_list_of_pairs(mode: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = DRLoc(dim=DIM, grid=grid, mode=mode).double()
    tokens = torch.randn(2, grid[0] * grid[1], DIM, dtype=torch.float64)
    last = grid[0] * grid[1] - 1
    pairs = [[(0, last), (last, 0), (1, 1), (2, last - 1)], [(last, 1), (grid[1], 0), (3, 2), (0, grid[1] - 1)]]
    assert module.localization(tokens, torch.tensor(pairs)).item() == pytest.approx(slow_drloc(module, tokens, pairs))


def test_corners_are_the_longest_distance_apart() -> None:
    module = DRLoc(dim=DIM, grid=(H, W))
    corners = torch.tensor([[[0, H * W - 1], [W - 1, 0], [0, W]]])
    assert module.distances(corners).tolist() == [[[H - 1, W - 1], [0, W - 1], [1, 0]]]


def test_a_transposed_grid_swaps_dx_and_dy() -> None:
    torch.manual_seed(0)
    upright, lying = DRLoc(dim=DIM, grid=(H, W)).double(), DRLoc(dim=DIM, grid=(W, H)).double()
    lying.mlp.load_state_dict(upright.mlp.state_dict())
    with torch.no_grad():
        lying.mlp[-1].weight.copy_(upright.mlp[-1].weight.flip(0))
        lying.mlp[-1].bias.copy_(upright.mlp[-1].bias.flip(0))
    tokens, pairs = torch.randn(2, H * W, DIM, dtype=torch.float64), torch.randint(H * W, (2, 9, 2))
    transposed = tokens.unflatten(1, (H, W)).transpose(1, 2).flatten(1, 2)
    moved = pairs % W * H + pairs // W
    assert torch.equal(lying.distances(moved), upright.distances(pairs).flip(-1))
    assert lying.localization(transposed, moved).item() == pytest.approx(upright.localization(tokens, pairs).item())


def test_pairs_come_from_the_seeded_generator_and_reach_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(DRLoc, "localization", lambda self, tokens, pairs: drawn.append(pairs) or tokens.sum())
    module, output = DRLoc(dim=DIM, grid=(H, W), pairs=200), random_output()
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        module(output)
    assert drawn[0].shape == (len(output.tokens), 200, 2)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert all(set(drawn[0][..., end].flatten().tolist()) == set(range(H * W)) for end in (0, 1))


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1)])
def test_a_grid_of_one_token_a_side_is_refused_by_name(grid: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"{grid[0]} x {grid[1]}"):
        create(Regularizer(name="drloc", weight=0.5), dim=DIM, heads=HEADS, grid=grid)


def test_the_perceptron_learns_distances() -> None:
    """Tokens that tell their place are localised far better than by the mean distance."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    tokens = torch.stack([rows.flatten(), columns.flatten()], dim=-1).expand(4, 16, 2)
    output = random_output()._replace(tokens=tokens)
    module = DRLoc(dim=2, grid=(4, 4))
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = module(output)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.1 < 0.25 < losses[0]


# All of them


def test_gradcheck_in_float64(regularizer: nn.Module) -> None:
    regularizer = regularizer.double()
    fields = random_output(batch=2, dtype=torch.float64)
    name = "tokens" if regularizer.needs_tokens else regularizer.field

    def loss(values: Tensor) -> Tensor:
        torch.manual_seed(0)
        return regularizer(fields._replace(**{name: values}))

    assert torch.autograd.gradcheck(loss, getattr(fields, name).requires_grad_())


def test_float32_within_bfloat16_autocast_and_for_bfloat16_input(regularizer: nn.Module) -> None:
    half = each_field(random_output(), Tensor.bfloat16)
    exact = each_field(half, Tensor.float)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        within = regularizer(half)
    torch.manual_seed(0)
    assert within.dtype == torch.float32 and within.shape == ()
    assert within == regularizer(exact)


def test_the_mean_over_equal_shards_is_the_whole(regularizer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    regularizer, output = regularizer.double(), random_output(batch=4, dtype=torch.float64)
    monkeypatch.setattr(
        torch, "randint", lambda tokens, size, **_: torch.arange(math.prod(size[1:])).reshape(1, *size[1:]).expand(size)
    )
    first, second = each_field(output, lambda field: field[:2]), each_field(output, lambda field: field[2:])
    assert (regularizer(first) + regularizer(second)).item() / 2 == pytest.approx(regularizer(output).item())


def test_nothing_waits_for_the_values(regularizer: nn.Module) -> None:
    """Tensors without values pass: on a GPU, nothing reads one back."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        output = each_field(random_output(), lambda field: torch.empty(field.shape, requires_grad=True))
        regularizer(output).backward()


def test_sar_and_drloc_together_are_two_modules() -> None:
    """The combination that the paper leaves for future work: weights apart, gradients added, DRLoc's perceptron trained too."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=DIM * HEADS, depth=2, num_heads=HEADS, num_classes=5)
    declared = (Regularizer(name="spatial_entropy", weight=0.01), Regularizer(name="drloc", weight=0.5, pairs=64))
    both = nn.ModuleList(create(regularizer, dim=DIM * HEADS, heads=HEADS, grid=(4, 4)) for regularizer in declared)
    weights = [regularizer.weight for regularizer in declared]
    images = torch.randn(2, 3, 32, 32)

    def gradient(chosen: list[int]) -> Tensor:
        model.zero_grad(), both.zero_grad(), torch.manual_seed(1)
        output = last_block.forward(model, images, tokens=any(module.needs_tokens for module in both))
        sum(weights[i] * both[i](output) for i in chosen).backward()
        return torch.cat([p.grad.flatten() for p in model.blocks[0].parameters()])

    alone = [gradient([0]), gradient([1])]
    together = gradient([0, 1])
    assert all(part.norm() > 0 for part in alone)
    torch.testing.assert_close(together, alone[0] + alone[1])
    assert all(p.grad.norm() > 0 for p in both[1].parameters())


def test_no_two_of_the_losses_of_maps_push_s_the_same_way() -> None:
    directions = []
    for function in OF_MAPS:
        maps = random_maps().requires_grad_()
        function(maps).backward()
        directions.append(maps.grad.flatten())
    for one, other in itertools.combinations(directions, 2):
        assert torch.cosine_similarity(one, other, dim=0) < 0.9
