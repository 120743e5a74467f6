"""The authors' checkpoints by their released names; a public implementation's numbers on shared random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import timm
import torch
from timm.layers import QuickGELU
from torch import Tensor, nn

import sarlib.models.architectures  # noqa: F401  (gives timm the published ones)
from sarlib.models import cvt, pvt, t2t

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def norm(name: str, dim: int) -> Shapes:
    yield f"{name}.weight", (dim,)
    yield f"{name}.bias", (dim,)


def feed_forward(block: str, dim: int, ratio: int) -> Shapes:
    yield from norm(f"{block}.norm2", dim)
    yield from linear(f"{block}.mlp.fc1", dim, ratio * dim)
    yield from linear(f"{block}.mlp.fc2", ratio * dim, dim)


def released_t2t() -> Shapes:
    """T2T-ViT-14 with the Performer, as github.com/yitu-opensource/T2T-ViT names its parameters."""
    yield "cls_token", (1, 1, 384)
    yield "pos_embed", (1, 197, 384)
    for number, width in ((1, 147), (2, 576)):
        part = f"tokens_to_token.attention{number}"
        yield f"{part}.w", (32, 64)
        yield from linear(f"{part}.kqv", width, 192)
        yield from linear(f"{part}.proj", 64, 64)
        yield from norm(f"{part}.norm1", width)
        yield from norm(f"{part}.norm2", 64)
        yield from linear(f"{part}.mlp.0", 64, 64)
        yield from linear(f"{part}.mlp.2", 64, 64)
    yield from linear("tokens_to_token.project", 576, 384)
    for i in range(14):
        yield from norm(f"blocks.{i}.norm1", 384)
        yield from linear(f"blocks.{i}.attn.qkv", 384, 1152, bias=False)
        yield from linear(f"blocks.{i}.attn.proj", 384, 384)
        yield from feed_forward(f"blocks.{i}", 384, 3)
    yield from norm("norm", 384)
    yield from linear("head", 384, 1000)


def released_pvt() -> Shapes:
    """PVT-Small, as github.com/whai362/PVT names its parameters."""
    yield "cls_token", (1, 1, 512)
    channels = 3
    for i, (dim, depth, ratio, reduction, patch, positions) in enumerate(
        [(64, 3, 8, 8, 4, 3136), (128, 4, 8, 4, 2, 784), (320, 6, 4, 2, 2, 196), (512, 3, 4, 1, 2, 50)], start=1
    ):
        yield f"pos_embed{i}", (1, positions, dim)
        yield f"patch_embed{i}.proj.weight", (dim, channels, patch, patch)
        yield f"patch_embed{i}.proj.bias", (dim,)
        yield from norm(f"patch_embed{i}.norm", dim)
        for j in range(depth):
            yield from norm(f"block{i}.{j}.norm1", dim)
            yield from linear(f"block{i}.{j}.attn.q", dim, dim)
            yield from linear(f"block{i}.{j}.attn.kv", dim, 2 * dim)
            yield from linear(f"block{i}.{j}.attn.proj", dim, dim)
            if reduction > 1:
                yield f"block{i}.{j}.attn.sr.weight", (dim, dim, reduction, reduction)
                yield f"block{i}.{j}.attn.sr.bias", (dim,)
                yield from norm(f"block{i}.{j}.attn.norm", dim)
            yield from feed_forward(f"block{i}.{j}", dim, ratio)
        channels = dim
    yield from norm("norm", 512)
    yield from linear("head", 512, 1000)


def released_cvt() -> Shapes:
    """CvT-13, as github.com/microsoft/CvT names its parameters and statistics."""
    yield "stage2.cls_token", (1, 1, 384)
    channels = 3
    for i, (dim, depth, window) in enumerate([(64, 1, 7), (192, 2, 3), (384, 10, 3)]):
        yield f"stage{i}.patch_embed.proj.weight", (dim, channels, window, window)
        yield f"stage{i}.patch_embed.proj.bias", (dim,)
        yield from norm(f"stage{i}.patch_embed.norm", dim)
        for j in range(depth):
            block = f"stage{i}.blocks.{j}"
            yield from norm(f"{block}.norm1", dim)
            for part in "qkv":
                yield f"{block}.attn.conv_proj_{part}.conv.weight", (dim, 1, 3, 3)
                yield from norm(f"{block}.attn.conv_proj_{part}.bn", dim)
                yield f"{block}.attn.conv_proj_{part}.bn.running_mean", (dim,)
                yield f"{block}.attn.conv_proj_{part}.bn.running_var", (dim,)
                yield f"{block}.attn.conv_proj_{part}.bn.num_batches_tracked", ()
                yield from linear(f"{block}.attn.proj_{part}", dim, dim)
            yield from linear(f"{block}.attn.proj", dim, dim)
            yield from feed_forward(block, dim, 4)
        channels = dim
    yield from norm("norm", 384)
    yield from linear("head", 384, 1000)


RELEASED = {
    "t2t_vit_14": (released_t2t, t2t.from_released),
    "pvt_small": (released_pvt, pvt.from_released),
    "cvt_13": (released_cvt, cvt.from_released),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_names_load_strictly(name: str) -> None:
    shapes, from_released = RELEASED[name]
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes()}
        model = timm.create_model(name)
    given = list(state)
    model.load_state_dict(from_released(state), strict=True, assign=True)
    assert list(state) == given, "the caller's state dict was changed"
    state.pop(given[-1])
    with pytest.raises(RuntimeError, match="Missing"):
        model.load_state_dict(from_released(state), strict=True, assign=True)


@pytest.mark.parametrize("name", RELEASED)
def test_no_released_value_is_lost(name: str) -> None:
    """Every value arrives once, in the parts of pvt's fused layer in the order q, k, v."""
    shapes, from_released = RELEASED[name]
    numbered = {key: torch.tensor([float(i)]) for i, (key, _) in enumerate(shapes())}
    mapped = from_released(numbered)
    assert sorted(torch.cat(list(mapped.values())).tolist()) == [float(i) for i in range(len(numbered))]
    if name == "pvt_small":
        q, kv = (numbered[f"block4.2.attn.{part}.weight"] for part in ("q", "kv"))
        assert torch.equal(mapped["stages.3.blocks.2.attn.qkv.weight"], torch.cat([q, kv]))
        assert "stages.2.blocks.5.attn.kv.weight" in mapped


def test_names_saved_by_data_parallel_load_too() -> None:
    assert list(t2t.from_released({"module.tokens_to_token.project.bias": torch.ones(1)})) == ["patch_embed.project.bias"]


# ---- a public implementation -----------------------------------------------------------------------------------------------


def transformers():
    return pytest.importorskip("transformers", reason="transformers, whose PVT and CvT are compared with, is not installed")


def randomise(model: nn.Module) -> nn.Module:
    """Every parameter and statistic away from its initial value; evaluation mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def renamed(state: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def largest_difference(theirs: nn.Module, mine: nn.Module) -> float:
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(x).logits, mine.eval()(x)
    assert expected.std() > 0.01
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_pvt_is_that_of_transformers() -> None:
    """Through the authors' names. Its embedding norms have another epsilon (1e-6) than the authors' (1e-5)."""
    hf = transformers()
    theirs = randomise(hf.PvtForImageClassification(hf.PvtConfig(depths=[3, 4, 6, 3])))
    for name, module in theirs.named_modules():
        if re.search(r"patch_embeddings\.\d\.layer_norm|self\.layer_norm", name):
            module.eps = 1e-5
    state = theirs.state_dict()
    for name in [name for name in state if ".self.key." in name]:
        value = state.pop(name.replace(".key.", ".value."))
        state[name.replace(".self.key.", ".self.kv.")] = torch.cat([state.pop(name), value])
    rules = [
        (r"^pvt\.encoder\.patch_embeddings\.3\.cls_token", "cls_token"),
        (r"^pvt\.encoder\.patch_embeddings\.(\d)\.position_embeddings", r"pos_embed#\1"),
        (r"^pvt\.encoder\.patch_embeddings\.(\d)\.projection", r"patch_embed#\1.proj"),
        (r"^pvt\.encoder\.patch_embeddings\.(\d)\.layer_norm", r"patch_embed#\1.norm"),
        (r"^pvt\.encoder\.block\.(\d)", r"block#\1"),
        (r"^pvt\.encoder\.layer_norm", "norm"),
        (r"^classifier", "head"),
        (r"layer_norm_([12])", r"norm\1"),
        (r"attention\.self\.query", "attn.q"),
        (r"attention\.self\.kv", "attn.kv"),
        (r"attention\.self\.sequence_reduction", "attn.sr"),
        (r"attention\.self\.layer_norm", "attn.norm"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"mlp\.dense([12])", r"mlp.fc\1"),
    ]
    released = {re.sub(r"#(\d)", lambda m: str(int(m[1]) + 1), name): value for name, value in renamed(state, rules).items()}
    assert {name: tuple(value.shape) for name, value in released.items()} == dict(released_pvt())
    mine = timm.create_model("pvt_small")
    mine.load_state_dict(pvt.from_released(released))
    assert largest_difference(theirs, mine) < 1e-5


def test_cvt_is_that_of_transformers() -> None:
    """Through the authors' names. It has the exact GELU where the authors have the sigmoid's approximation."""
    hf = transformers()
    theirs = randomise(hf.CvtForImageClassification(hf.CvtConfig(num_labels=1000)))
    for module in theirs.modules():
        if hasattr(module, "activation"):
            module.activation = QuickGELU()
    rules = [
        (r"^cvt\.encoder\.stages\.(\d)\.", r"stage\1."),
        (r"embedding\.convolution_embeddings\.projection", "patch_embed.proj"),
        (r"embedding\.convolution_embeddings\.normalization", "patch_embed.norm"),
        (r"\.layers\.", ".blocks."),
        (r"attention\.attention\.convolution_projection_(\w)\w+\.convolution_projection\.", r"attn.conv_proj_\1."),
        (r"(conv_proj_.)\.convolution", r"\1.conv"),
        (r"(conv_proj_.)\.normalization", r"\1.bn"),
        (r"attention\.attention\.projection_(\w)\w+", r"attn.proj_\1"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^layernorm", "norm"),
        (r"^classifier", "head"),
    ]
    released = renamed(theirs.state_dict(), rules)
    assert {name: tuple(value.shape) for name, value in released.items()} == dict(released_cvt())
    mine = timm.create_model("cvt_13")
    mine.load_state_dict(cvt.from_released(released))
    assert largest_difference(theirs, mine) < 1e-5
