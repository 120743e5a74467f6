"""T2T, PVT and CvT: their published sizes, their similarity maps by hand, and their class token alone against all tokens."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from tiny_models import SIZE, TINY
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import sarlib.models.architectures  # noqa: F401  (gives timm the published ones)
from sarlib import config, models
from sarlib.config import ConfigError, Model, Stage
from sarlib.entropy import spatial_entropy
from sarlib.last_block import ROWS, forward, query_key_gradient
from sarlib.models import t2t

HYBRIDS = ["t2t", "pvt", "cvt"]
KEYS = 4  # a side, for all of them


def network(name: str, variant: str = "A", *, dtype: torch.dtype = torch.float64, **changes: object) -> nn.Module:
    """A small network with every parameter and statistic away from its initial value, in evaluation mode."""
    torch.manual_seed(0)
    model = models.create(dataclasses.replace(TINY[name], variant=variant, **changes), classes=5, image_size=SIZE).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def images(n: int = 4, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, dtype=dtype, generator=torch.Generator().manual_seed(1))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def before_last(model: nn.Module, x: Tensor) -> Tensor:
    """The tokens that enter the last block in a plain forward pass, (B, 1 + n, dim)."""
    seen = []
    handle = model.blocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(x)
    handle.remove()
    return seen[0]


# ---- sizes ---------------------------------------------------------------------------------------------------------------


def test_every_declared_architecture_can_be_made() -> None:
    assert set(config.ARCHITECTURES) == set(models.ARCHITECTURES) == set(TINY)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("vit_small_patch16_224", 22.05, 4.6), ("t2t_vit_14", 21.5, 4.8), ("pvt_small", 24.5, 3.8), ("cvt_13", 20.0, 4.5)],
)
def test_published_sizes(name: str, parameters: float, macs: float) -> None:
    """Millions and 1e9, from each paper. The counter sees matrix products and convolutions, nothing elementwise, and attention
    where it is made of products: torch 2.11 counts none inside its fused kernel."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.1)
    model = model.to_empty(device="cpu").eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.05)


@pytest.mark.parametrize(
    ("declared", "heads", "grid", "tokens"),
    [(models.T2T_VIT_14, 6, 14, 196), (models.PVT_SMALL, 8, 7, 49), (models.CVT_13, 6, 7, 196)],
)
def test_published_maps(declared: Model, heads: int, grid: int, tokens: int) -> None:
    """Where SAR looks at 224 px: CvT has 14 x 14 tokens, but 7 x 7 keys."""
    with torch.no_grad():
        out = forward(models.create(declared, classes=2, image_size=224).eval(), torch.zeros(1, 3, 224, 224), tokens=True)
    assert out.similarity.shape == (1, heads, grid, grid) and out.tokens.shape == (1, tokens, declared.dim)
    assert out.heads.shape == (1, heads, declared.dim // heads)


@pytest.mark.parametrize("name", ["t2t_vit_14", "pvt_small", "cvt_13"])
def test_timm_makes_them_by_name(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7, img_size=96, drop_path_rate=0.1)
    assert model.head.out_features == 7 and model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="from_released"):
        timm.create_model(name, pretrained=True)
    with pytest.raises(TypeError, match="depht"):
        timm.create_model(name, depht=3)


# ---- S -------------------------------------------------------------------------------------------------------------------


def keys_by_hand(model: nn.Module, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """The class token's query (B, dim), all patches' keys (B, n, dim) and the scale, from the layer's parameters."""
    attn = model.blocks[-1].attn
    if hasattr(attn, "qkv"):
        q, k, _ = F.linear(y, attn.qkv.weight, attn.qkv.bias).chunk(3, -1)
        return q[:, 0], k[:, 1:], (24 / 3) ** -0.5
    conv, bn = attn.conv_proj_k
    grid = y[:, 1:].reshape(len(y), 8, 8, 24).permute(0, 3, 1, 2)
    reduced = F.conv2d(grid, conv.weight, stride=2, padding=1, groups=24)
    reduced = F.batch_norm(reduced, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    keys = F.linear(reduced.permute(0, 2, 3, 1).reshape(len(y), 16, 24), attn.k_proj.weight, attn.k_proj.bias)
    return F.linear(y[:, 0], attn.q_proj.weight, attn.q_proj.bias), keys, 24**-0.5


@pytest.mark.parametrize("variant", ["A", "C"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_similarity_is_q_dot_k(name: str, variant: str) -> None:
    model, x = network(name, variant), images()
    q, k, scale = keys_by_hand(model, model.blocks[-1].norm1(before_last(model, x)))
    by_hand = [(q[:, None, 8 * h : 8 * h + 8] * k[..., 8 * h : 8 * h + 8]).sum(-1) * scale for h in range(3)]
    found = forward(model, x).similarity
    assert found.shape == (4, 3, KEYS, KEYS)
    close(found.flatten(2), torch.stack(by_hand, 1))


@pytest.mark.parametrize("name", HYBRIDS)
@pytest.mark.parametrize("corner", [(0, 0), (0, KEYS - 1), (KEYS - 1, 0), (KEYS - 1, KEYS - 1)])
def test_similarity_has_the_orientation_of_the_image(name: str, corner: tuple[int, int]) -> None:
    """Without mixing of tokens, a corner that lights up in the image lights up there; the two sides away from it stay dark."""
    model = network(name)
    with torch.no_grad():
        for layer, module in model.named_modules():
            if layer.endswith((".proj", ".fc2")):
                module.weight.zero_()
    cell = SIZE // KEYS
    x = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64)
    lit = x.clone()
    row, column = (cell * c for c in corner)
    lit[..., row : row + cell, column : column + cell] = torch.rand(3, cell, cell, dtype=torch.float64)
    change = (forward(model, lit).similarity - forward(model, x).similarity).abs().sum(1)[0]
    assert change[corner] > 0.1 * change.max() > 0
    opposite = tuple(KEYS - 1 - c for c in corner)
    assert change[opposite[0]].max() < 1e-12 and change[:, opposite[1]].max() < 1e-12


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("name", HYBRIDS)
def test_similarity_is_float32_under_autocast(name: str, tokens: bool) -> None:
    model, x = network(name, "C", dtype=torch.float32), images(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = forward(model, x, tokens=tokens)
    assert out.similarity.dtype == torch.float32 and out.logits.isfinite().all()
    torch.testing.assert_close(out.logits.float(), model(x), atol=0.3, rtol=0.1)


# ---- the class token alone against all tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_class_token_alone_equals_all_tokens(name: str, variant: str, training: bool) -> None:
    """Logits, S, heads, gradients and running statistics, with stochastic depth that draws the same samples."""
    x, labels = images(6), torch.arange(6) % 5
    found = []
    for tokens in (False, True, None):
        model = network(name, variant, drop_path=0.3).train(training)
        torch.manual_seed(7)
        out = forward(model, x, tokens=tokens) if tokens is not None else None
        logits = out.logits if out else model(x)
        F.cross_entropy(logits, labels).add(out.similarity.square().mean() + out.heads.square().mean() if out else 0).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append((out, logits, gradients, dict(model.named_buffers()), model))
    (alone, *_), (full, *_), _ = found
    for _, logits, _, buffers, _ in found[1:]:
        close(logits, found[0][1])
        for buffer, value in buffers.items():
            close(value, found[0][3][buffer])
    close(alone.similarity, full.similarity)
    close(alone.heads, full.heads)
    for parameter, gradient in found[0][2].items():
        close(gradient, found[1][2][parameter])
    assert alone.tokens is None
    if not training:
        close(full.tokens, found[1][4].forward_features(x)[:, 1:])


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_rows_follow_their_equations(name: str, variant: str) -> None:
    """z' = MSA(LN(z)) [+ z]; z_L = MLP([LN] z') [+ z'] (Equations 1-2 and 10-11)."""
    model, x = network(name, variant), images()
    block, z = model.blocks[-1], before_last(model, x)
    z1 = block.attn(block.norm1(z)) + (z if variant == "A" else 0)
    z2 = block.mlp(z1 if variant in "CD" else block.norm2(z1)) + (0 if variant == "D" else z1)
    close(forward(model, x).logits, model.head(model.norm(z2)[:, 0]))


@pytest.mark.parametrize("name", HYBRIDS)
def test_heads_are_what_the_output_projection_gets(name: str) -> None:
    model, x = network(name, "B"), images()
    out = forward(model, x)
    attn = model.blocks[-1].attn
    close(attn.proj(out.heads.flatten(1)), attn(model.blocks[-1].norm1(before_last(model, x)))[:, 0])


@pytest.mark.parametrize("variant", list(ROWS))
@pytest.mark.parametrize("name", HYBRIDS)
def test_stock_state_dict_loads_strictly(name: str, variant: str) -> None:
    given = network(name).state_dict()
    model = network(name, variant)
    assert not any(model.load_state_dict(given, strict=True))
    gone = {n for n in given if n.endswith(("blocks.1.norm2.weight", "blocks.1.norm2.bias"))} if variant in "CD" else set()
    assert len(gone) in (0, 2) and set(given) - set(model.state_dict()) == gone
    with pytest.raises(RuntimeError, match="surprise"):
        model.load_state_dict({**given, "surprise": torch.zeros(1)}, strict=True)
    assert not any(copy.deepcopy(model).load_state_dict(given, strict=True))


# ---- training --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HYBRIDS)
def test_training_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = models.create(dataclasses.replace(TINY[name], variant="C", drop_path=0.1), classes=5, image_size=SIZE).train()
    groups = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    optimizer = torch.optim.AdamW(groups, lr=2e-3)
    x, labels, losses = images(10, dtype=torch.float32), torch.arange(10) % 5, []
    for _ in range(12):
        out = forward(model, x)
        loss = F.cross_entropy(out.logits, labels) + 0.01 * spatial_entropy(out.similarity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    still = {n for n, p in model.named_parameters() if p.requires_grad and not p.grad.any()}
    assert all(n.startswith("stages.1.blocks.1.attn.conv_proj_q") for n in still), "the class token sees all else"


@pytest.mark.parametrize("name", list(TINY))
def test_the_class_token_is_not_decayed(name: str) -> None:
    model = network(name)
    undecayed, _ = param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    class_token = next(p for n, p in model.named_parameters() if n.endswith("cls_token"))
    assert any(p is class_token for p in undecayed["params"])


@pytest.mark.parametrize("name", HYBRIDS)
def test_query_key_gradient_is_that_of_the_query_and_key_weights(name: str) -> None:
    model = network(name, "C")
    loss = forward(model, images()).similarity.square().sum()
    found = query_key_gradient(model, loss)
    loss.backward()
    attn = model.blocks[-1].attn
    expected = torch.cat([attn.q_proj.weight.grad, attn.k_proj.weight.grad]) if name == "cvt" else attn.qkv.weight.grad[:48]
    assert found.shape == (48, 24) and found.norm() > 0
    close(found, expected)


def test_stochastic_depth_rises_as_published() -> None:
    """Over all blocks in T2T and PVT, over the last stage alone in CvT."""
    rates = {}
    for name in HYBRIDS:
        blocks = [m for m in network(name, drop_path=0.2).modules() if hasattr(m, "drop_path1")]
        rates[name] = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == {"t2t": pytest.approx([0, 0.2]), "pvt": pytest.approx([0, 0.1, 0.2]), "cvt": pytest.approx([0, 0, 0.2])}


# ---- what the parts compute ------------------------------------------------------------------------------------------------


def test_performer_approximates_softmax_attention() -> None:
    """Lemma 1 of Choromanski et al.: with many features, softmax(q k') v without a scale."""
    torch.manual_seed(0)
    layer = t2t.Performer(8, 6).double()
    layer.w = nn.Parameter(torch.randn(100_000, 6, dtype=torch.float64), requires_grad=False)
    q, k, v = 0.4 * torch.randn(3, 2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer._linear_attention(q, k, v), (q @ k.mT).softmax(-1) @ v, atol=0.02, rtol=0.02)


def test_performer_layer_by_hand() -> None:
    """Keys, queries and values in that order, all pairs of tokens written out, the skip from the values."""
    torch.manual_seed(0)
    layer = t2t.Performer(10, 6).double().eval()
    x = torch.randn(2, 5, 10, dtype=torch.float64)
    y = F.layer_norm(x, (10,))
    k, q, v = (F.linear(y, layer.kqv.weight[i : i + 6], layer.kqv.bias[i : i + 6]) for i in (0, 6, 12))
    phi_k, phi_q = ((u @ layer.w.mT - u.square().sum(-1, keepdim=True) / 2).exp() for u in (k, q))
    weights = (phi_q[:, :, None] * phi_k[:, None]).sum(-1)
    z = v + layer.proj(weights @ v / weights.sum(-1, keepdim=True))
    close(layer(x), z + layer.mlp(F.layer_norm(z, (6,))), 1e-6)


def test_performer_features_are_orthogonal_and_fixed() -> None:
    w = t2t.Performer(147, 64).w
    assert w.shape == (32, 64) and not w.requires_grad
    torch.testing.assert_close(w @ w.mT, 32 * torch.eye(32), atol=1e-4, rtol=0)


def test_positions_are_sines_and_cosines() -> None:
    table = t2t.sinusoids(50, 12)[0]
    for position, j in ((0, 0), (7, 4), (31, 5), (49, 11)):
        angle = torch.tensor(position / 10_000 ** (2 * (j // 2) / 12))
        torch.testing.assert_close(table[position, j], angle.sin() if j % 2 == 0 else angle.cos())
    model = network("t2t")
    assert isinstance(model, VisionTransformer) and not model.pos_embed.requires_grad


@pytest.mark.parametrize(("patch_size", "grid"), [(16, 2), (8, 4), (4, 8)])
def test_t2t_token_sizes(patch_size: int, grid: int) -> None:
    declared = dataclasses.replace(TINY["t2t"], patch_size=patch_size)
    out = forward(models.create(declared, classes=5, image_size=SIZE), images(2, dtype=torch.float32))
    assert out.similarity.shape == (2, 3, grid, grid)
    assert set(config.T2T_TOKENS) == set(t2t.SOFT_SPLITS)


# ---- sizes that do not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "size", "message"),
    [
        (models.T2T_VIT_14, 225, "225 x 225 px cannot be cut into patches of 16 px"),
        (models.PVT_SMALL, 240, "240 x 240 px cannot be cut into patches of 32 px"),
        (models.PVT_SMALL, 32, "32 px leaves pvt a similarity map of 1 x 1 keys .32 px a side.*at least 64 px"),
        (models.CVT_13, 32, "at least 64 px"),
        (TINY["vit"], 8, "at least 16 px"),
        (models.CVT_13, 80, "stage 3 of cvt, at an image of 80 px, has 5 x 5 tokens, which keys of 2 x 2 do not tile"),
        (dataclasses.replace(models.T2T_VIT_14, patch_size=32), 224, "tokens of 16, 8, 4 px, not of 32"),
        (
            dataclasses.replace(
                TINY["pvt"], stages=(TINY["pvt"].stages[0], Stage(dim=24, depth=2, heads=3, stride=2, key_stride=2))
            ),
            32,
            "key_stride must be 1, got 2",
        ),
    ],
)
def test_sizes_that_do_not_fit(declared: Model, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models.create(declared, classes=2, image_size=size)


def test_stage_grids() -> None:
    assert models.PVT_SMALL.stage_grids(224) == [56, 28, 14, 7]
    assert models.CVT_13.stage_grids(224) == [56, 28, 14]
