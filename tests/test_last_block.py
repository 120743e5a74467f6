"""Equations 1-3 and 10-11 and rows A-D of Table 1c, against timm's own block and against formulas written out here."""

import copy
import inspect

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention, DropPath
from timm.models.vision_transformer import VisionTransformer

from sarlib import config, models
from sarlib.config import ConfigError
from sarlib.last_block import ROWS, LastBlock, forward, query_key_gradient, set_variant
from sarlib.scores import scores

SMALL = dict(img_size=(12, 20), patch_size=4, num_classes=5, embed_dim=24, depth=3, num_heads=3)
GRID = (3, 5)


def vit(variant="A", *, seed=0, dtype=torch.float64, **settings):
    """A small ViT with every parameter away from its initial value (biases and norms too), in evaluation mode."""
    torch.manual_seed(seed)
    model = VisionTransformer(**{**SMALL, **settings}).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return set_variant(model, variant).eval()


def images(n=4, *, size=(12, 20), dtype=torch.float64):
    return torch.randn(n, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def before_last(model, x):
    """The tokens that enter the last block, (B, 1 + n, dim), by timm."""
    *_, last = model.blocks
    seen = []
    handle = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(x)
    handle.remove()
    return seen[0]


def q_k_v(attn, y):
    """Queries, keys and values (B, H, N, d) straight from the fused weight."""
    parts = F.linear(y, attn.qkv.weight, attn.qkv.bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)
    return attn.q_norm(q), attn.k_norm(k), v


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# ---- the equations -------------------------------------------------------------------------------------------------------


def test_row_a_is_timm():
    model, x = vit(), images()
    stock = copy.deepcopy(model)
    assert type(set_variant(model, "A").blocks[-1]) is type(stock.blocks[-1])
    close(forward(model, x).logits, stock(x))
    close(forward(model, x, tokens=True).logits, stock(x))


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
def test_rows_follow_their_equations(variant):
    """z' = MSA(LN(z)) [+ z]; z_L = MLP([LN] z') [+ z'], with the attention written out (Equation 3)."""
    model, x = vit(variant), images()
    block, z = model.blocks[-1], before_last(model, x)
    q, k, v = q_k_v(block.attn, block.norm1(z))
    attention = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    z1 = block.attn.proj((attention @ v).transpose(1, 2).flatten(2))
    if variant == "A":
        z1 = z1 + z
    z2 = block.mlp(z1 if variant in "CD" else block.norm2(z1))
    if variant != "D":
        z2 = z2 + z1
    close(block(z), z2)
    close(model(x), model.head(model.norm(z2)[:, 0]))
    close(forward(model, x).heads, (attention @ v)[:, :, 0])


def test_b_with_its_skip_put_back_is_timm():
    """Row B computes timm's block on an input shifted by what the skip would have added."""
    model, x = vit("B"), images()
    stock = vit("A")
    z = before_last(model, x)
    attended = stock.blocks[-1].attn(stock.blocks[-1].norm1(z))
    block = copy.deepcopy(stock.blocks[-1])
    block.attn.forward = lambda _, **__: attended - z  # timm adds z again
    close(model.blocks[-1](z), block(z))


def test_layer_scale_stays_and_drop_path_goes():
    model = VisionTransformer(**SMALL, init_values=0.5, drop_path_rate=0.3)
    stock = copy.deepcopy(model.blocks[-1])
    last = set_variant(model, "B").blocks[-1]
    assert last.ls1.gamma is not None and isinstance(last.drop_path1, torch.nn.Identity)
    assert last.drop_path2.drop_prob == stock.drop_path2.drop_prob == pytest.approx(0.3)
    assert isinstance(set_variant(VisionTransformer(**SMALL, drop_path_rate=0.3), "D").blocks[-1].drop_path2, torch.nn.Identity)
    model = vit("B", init_values=0.5)
    block, z = model.blocks[-1], before_last(model, images())
    z1 = block.ls1.gamma * block.attn(block.norm1(z))
    close(block(z), z1 + block.ls2.gamma * block.mlp(block.norm2(z1)))


# ---- the class token alone against all tokens ----------------------------------------------------------------------------

HOSTS = {
    "plain": {},
    "no qkv bias": {"qkv_bias": False},
    "layer scale": {"init_values": 0.1},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "q/k norm": {"qk_norm": True},
    "attention norm": {"scale_attn_norm": True},
    "mean pooling": {"global_pool": "avg"},
    "pre norm": {"pre_norm": True},
}


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
@pytest.mark.parametrize("host", HOSTS)
def test_class_token_alone_equals_all_tokens(variant, host):
    model, x = vit(variant, **HOSTS[host]), images()
    labels = torch.tensor([0, 1, 2, 3])
    found = []
    for way in (lambda: forward(model, x), lambda: forward(model, x, tokens=True)):
        model.zero_grad(set_to_none=False)
        out = way()
        (F.cross_entropy(out.logits, labels) + out.similarity.square().mean()).backward()
        found.append((out, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]))
    (alone, gradients), (full, expected) = found
    close(alone.logits, full.logits)
    close(full.logits, model(x))
    close(alone.similarity, full.similarity)
    close(alone.heads, full.heads)
    for gradient, reference in zip(gradients, expected, strict=True):
        close(gradient, reference)
    assert alone.tokens is None
    close(full.tokens, model.forward_features(x)[:, model.num_prefix_tokens :])


def test_gated_attention():
    if "gate" not in inspect.getsource(Attention.forward):
        pytest.skip("this timm has no gated attention")
    model, x = vit("C"), images()
    attn = model.blocks[-1].attn
    attn.gate = torch.nn.Linear(24, 24, dtype=torch.float64)
    close(forward(model, x).logits, model(x))


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
def test_stochastic_depth_in_training(variant):
    """The same samples are dropped either way, and none by a skip that is gone; nothing is dropped in evaluation."""
    model, x = vit(variant, drop_path_rate=0.6), images(64)
    model.train()
    outs = []
    for tokens in (False, True):
        torch.manual_seed(3)
        outs.append(forward(model, x, tokens=tokens).logits)
    torch.manual_seed(3)
    close(outs[0], outs[1])
    close(outs[1], model(x))
    assert not torch.equal(outs[0], forward(model, x).logits)
    model.eval()
    close(forward(model, x).logits, forward(model, x, tokens=True).logits)


def test_a_dropped_sample_keeps_its_class_token():
    """Row A with all but no chance to survive: the last block is the identity."""
    model, x = vit("A", depth=1), images(32)
    model.blocks[-1].drop_path1 = model.blocks[-1].drop_path2 = DropPath(0.9999)
    model.train()
    z = model._pos_embed(model.patch_embed(x))
    close(forward(model, x).logits, model.head(model.norm(z)[:, 0]))


def test_dropout_on_attention_is_that_of_the_full_block():
    """A dropped token takes its value out and the others are scaled up; the value bias follows the sum of what is left."""
    model, x = vit("B", attn_drop_rate=0.5), images()
    attn = model.blocks[-1].attn
    attn.attn_drop = Only(column=2)
    for block in model.blocks:
        block.attn.fused_attn = False
    close(forward(model, x).logits, model(x))


class Only(torch.nn.Module):
    """Keeps one column of the attention."""

    def __init__(self, *, column):
        super().__init__()
        self.column = column

    def forward(self, p):
        kept = torch.zeros_like(p)
        kept[..., self.column] = 2 * p[..., self.column]
        return kept


def test_gradient_checkpointing_changes_nothing():
    model, x = vit("C").train(), images()
    plain = torch.autograd.grad(forward(model, x).logits.sum(), model.pos_embed)[0]
    model.set_grad_checkpointing()
    close(torch.autograd.grad(forward(model, x).logits.sum(), model.pos_embed)[0], plain)


# ---- S -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["plain", "registers", "q/k norm", "no qkv bias"])
def test_similarity_is_q_dot_k(host):
    model, x = vit("C", **HOSTS[host]), images()
    block = model.blocks[-1]
    q, k, _ = q_k_v(block.attn, block.norm1(before_last(model, x)))
    by_hand = torch.stack([(q[:, h, :1] * k[:, h, model.num_prefix_tokens :]).sum(-1) / 8**0.5 for h in range(3)], 1)
    found = forward(model, x).similarity
    assert found.shape == (4, 3, *GRID)
    close(found.flatten(2), by_hand)


def test_query_key_gradient_is_that_of_the_query_and_key_rows():
    model = vit("C")
    loss = forward(model, images()).logits.square().sum()
    found = query_key_gradient(model, loss)
    loss.backward()
    close(found, model.blocks[-1].attn.qkv.weight.grad[:48])


def test_similarity_has_the_orientation_of_the_image():
    """A model whose keys are the brightness of a patch: the bright patch lights up where it is in the image."""
    model = vit("A", depth=1, embed_dim=8, num_heads=1, dtype=torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.patch_embed.proj.weight[0] = 1.0  # channel 0: brightness
        model.blocks[0].norm1 = torch.nn.Identity()
        model.blocks[0].attn.qkv.bias[0] = 1.0  # q = e0
        model.blocks[0].attn.qkv.weight[8, 0] = 1.0  # k = brightness e0
    for row, column in ((0, 4), (2, 0), (1, 3)):
        x = torch.zeros(1, 3, 12, 20)
        x[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
        s = forward(model, x).similarity[0, 0]
        assert s.shape == GRID and s.argmax() == row * GRID[1] + column
        assert s.count_nonzero() == 1


def test_similarity_follows_another_image_size():
    model = vit("C", dynamic_img_size=True)
    assert forward(model, images(2, size=(24, 8))).similarity.shape == (2, 3, 6, 2)


def test_similarity_is_float32_under_autocast():
    """bfloat16 rounding stays out of q.k, which would be off by 1e-2 otherwise."""
    model, x = vit("C", dtype=torch.float32), images(dtype=torch.float32)
    y = torch.randn(4, 16, 24)
    exact = scores(copy.deepcopy(model).double().blocks[-1].attn, y.double())
    for tokens in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = forward(model, x, tokens=tokens)
            close(scores(model.blocks[-1].attn, y).double(), exact, 1e-6)
        assert out.similarity.dtype == torch.float32 and torch.isfinite(out.logits).all()
        torch.testing.assert_close(out.logits.float(), model(x), atol=0.1, rtol=0.1)
    half = copy.deepcopy(model).bfloat16()
    assert forward(half, x.bfloat16()).similarity.dtype == torch.float32


# ---- surgery and state dicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
def test_stock_state_dict_loads_strictly(variant):
    stock = timm.create_model("vit_small_patch16_224", depth=2)
    given = stock.state_dict()
    model = models.create(config.Model(depth=2, variant=variant), classes=1000, image_size=224)
    before = list(given)
    assert not any(model.load_state_dict(given, strict=True))
    assert list(given) == before, "the caller's state dict was changed"
    mine = model.state_dict()
    gone = {"blocks.1.norm2.weight", "blocks.1.norm2.bias"} if variant in "CD" else set()
    assert set(given) - set(mine) == gone and set(mine) <= set(given)
    assert all(torch.equal(mine[name], given[name]) for name in mine)
    with pytest.raises(RuntimeError, match="surprise"):
        model.load_state_dict({**given, "blocks.1.surprise": torch.zeros(1)}, strict=True)
    assert not any(model.load_state_dict(mine, strict=True))


def test_a_copy_loads_too():
    model = copy.deepcopy(vit("D"))
    assert not any(model.load_state_dict(vit("A", seed=4).state_dict(), strict=True))


def test_surgery_twice():
    model = vit("C")
    assert set_variant(model, "C") is model and isinstance(model.blocks[-1], LastBlock)
    with pytest.raises(ConfigError, match="stock Block, not LastBlock"):
        set_variant(model, "B")
    assert not set_variant(vit().eval(), "B").blocks[-1].training


@pytest.mark.parametrize("variant", ["E", "", "a"])
def test_unknown_variant(variant):
    with pytest.raises(ConfigError, match="A, B, C, D"):
        set_variant(vit(), variant)


def test_config_and_rows_name_the_same_variants():
    assert set(ROWS) == set(config.VARIANTS)


def test_models_that_have_no_class_row():
    with pytest.raises(ConfigError, match="standard attention"):
        forward(vit(block_fn=timm.models.vision_transformer.ParallelScalingBlock), images())
    with pytest.raises(ConfigError, match="patch dropout"):
        forward(vit(patch_drop_rate=0.5).train(), images())


def _hook(layer):
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)


def _other_forward(layer):
    layer.forward = lambda x: 2 * torch.nn.functional.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize("change", [_hook, _other_forward])
def test_a_layer_that_does_more_than_its_weight_says_is_refused(change):
    """The class token's path would compute with the weight alone, and all tokens' with what the layer really does."""
    model = vit()
    change(model.blocks[-1].attn.qkv)
    with pytest.raises(ConfigError, match="the weights of a wrapped layer .* cannot be read"):
        forward(model, images())


# ---- without class token ---------------------------------------------------------------------------------------------------

POOLED = {
    "normed tokens": {"fc_norm": False},
    "timm's default": {},
    "registers": {"reg_tokens": 2, "fc_norm": False},
    "q/k norm": {"qk_norm": True, "fc_norm": False},
}


@pytest.mark.parametrize("variant", ["A", "C"])
@pytest.mark.parametrize("host", POOLED)
def test_without_class_token_s_is_the_mean_of_all_patch_rows(variant, host):
    """Of the full scores, before the softmax; the logits are those of the model as it is."""
    model, x = vit(variant, class_token=False, global_pool="avg", **POOLED[host]), images()
    block, skip = model.blocks[-1], model.num_prefix_tokens
    q, k, v = q_k_v(block.attn, block.norm1(before_last(model, x)))
    rows = q @ k.transpose(-2, -1) / 8**0.5
    out = forward(model, x)
    close(out.similarity.flatten(2), rows[:, :, skip:, skip:].mean(2))
    assert out.similarity.shape == (4, 3, *GRID)
    close(out.logits, model(x))
    close(out.heads, (rows[:, :, skip:, skip:].mean(2, keepdim=True).softmax(-1) @ v[:, :, skip:])[:, :, 0])
    full = forward(model, x, tokens=True)
    close(full.logits, out.logits)
    assert full.tokens.shape == (4, 15, 24)


def test_without_class_token_s_is_float32_and_has_a_gradient():
    model, x = vit("C", class_token=False, global_pool="avg", dtype=torch.float32), images(dtype=torch.float32)
    exact = forward(copy.deepcopy(model).double(), x.double()).similarity
    assert (forward(model, x).similarity - exact).abs().max() < 1e-6 * exact.abs().max()
    forward(model, x).similarity.square().mean().backward()
    gradient = model.blocks[-1].attn.qkv.weight.grad
    assert gradient[:48].abs().min() > 0 and not gradient[48:].any(), "queries and keys, and no values"


def test_created_without_class_token_is_timms_pool_of_the_normed_tokens():
    torch.manual_seed(5)
    mine = models.create(config.Model(depth=2, dim=24, heads=3, pool="avg"), classes=7, image_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    tokens = mine.forward_features(x)
    assert tokens.shape == (2, 4, 24) and isinstance(mine.norm, torch.nn.LayerNorm)
    close(mine(x), mine.head(tokens.mean(1)), 1e-6)
    with_token = models.create(config.Model(depth=2, dim=24, heads=3), classes=7, image_size=32)
    assert set(with_token.state_dict()) - set(mine.state_dict()) == {"cls_token"}


# ---- models ----------------------------------------------------------------------------------------------------------------


def test_created_vit_is_timms():
    torch.manual_seed(5)
    mine = models.create(config.Model(depth=2), classes=1000, image_size=224)
    torch.manual_seed(5)
    theirs = timm.create_model("vit_small_patch16_224", depth=2)
    for (name, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other and torch.equal(p, q), name


def test_created_vit_follows_its_declaration():
    declared = config.Model(patch_size=8, dim=48, depth=4, heads=3, mlp_ratio=2.0, drop_path=0.1, variant="C")
    model = models.create(declared, classes=7, image_size=64)
    out = forward(model, torch.randn(2, 3, 64, 64))
    assert out.logits.shape == (2, 7) and out.similarity.shape == (2, 3, 8, 8)
    assert len(model.blocks) == 4 and model.blocks[0].mlp.fc1.out_features == 96
    assert model.blocks[-1].drop_path2.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [({"name": "resnet"}, 64, "choose from vit"), ({}, 65, "patches of 16 px")],
)
def test_models_that_cannot_be_made(model, size, message):
    with pytest.raises(ConfigError, match=message):
        models.create(config.Model(**model), classes=2, image_size=size)
