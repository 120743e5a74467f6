"""The plug-in on models in bfloat16, on sharded ones and on our own architectures, plain and wrapped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from test_plugin_wrapped import WRAPPED, assert_three_steps, images, moved, of_the_host, spy_on_attention, vit
from timm.layers import AttentionRope
from tiny_models import TINY
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sarlib.last_block import ROWS, forward
from sarlib.models import create
from sarlib.plugin import SAR
from sarlib.scores import absorbable, scores


def ours(name: str) -> nn.Module:
    """One of our own architectures, small, for images of 96 px."""
    torch.manual_seed(0)
    return moved(create(OURS[name], classes=3, image_size=96))


OURS = {"t2t_vit_14": TINY["t2t"], "pvt_small": TINY["pvt"], "cvt_13": TINY["cvt"]}


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float]]:
    return spy_on_attention(monkeypatch)


def test_model_held_in_bfloat16_with_norms(attended: list) -> None:
    """Float32 from the weights as they are; the host's own products are those to within bfloat16."""
    model = vit(qk_norm=True).bfloat16()
    attn, seen = model.blocks[-1].attn, []
    attn.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    sar = SAR(model, weight=1.0)
    model(images().bfloat16())
    (found,) = sar._maps
    assert found.dtype == torch.float32
    exact = scores(copy.deepcopy(attn).double(), seen[0].double(), skip=1)
    torch.testing.assert_close(found.flatten(2).double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, of_the_host(attended, prefix=1), atol=0.03, rtol=0.03)
    sar.loss().backward()
    gradients = [parameter.grad for parameter in (attn.qkv.weight, attn.q_norm.weight, attn.k_norm.weight)]
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("what", ["model", "blocks", "attn", "qkv", "blocks after SAR"])
def test_fully_sharded(what: str, qk_norm: bool, one_process: None) -> None:
    """FSDP2: weights that are whole only while their module runs. Gradients are those of the model in one part."""
    gradients = []
    for sharded in (False, True):
        model = vit(qk_norm=qk_norm).double()
        attn = model.blocks[-1].attn
        parts = {"blocks": model.blocks, "attn": [attn], "qkv": [attn.qkv]}.get(what.split()[0], [])
        before = SAR(model, weight=1.0) if "after" in what else None
        for part in [*parts, model] if sharded else ():
            fully_shard(part, mesh=init_device_mesh("cpu", (1,)))
        sar = before or SAR(model, weight=1.0)
        for _ in range(2):
            model.zero_grad()
            (model(images().double()).square().mean() + sar.loss()).backward()
        whole = (p.grad.full_tensor() if sharded else p.grad for p in model.parameters())
        gradients.append({name: gradient for (name, _), gradient in zip(model.named_parameters(), whole, strict=True)})
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", OURS)
def test_our_own_architectures(name: str, attended: list) -> None:
    """Three steps, whose batch statistics and dropout are those of the host alone; the maps are those of
    `last_block.forward`."""
    model, alone, x = ours(name).double(), ours(name).double(), images().double()
    assert_three_steps(model, alone, x, attended)
    model.eval()
    with torch.no_grad():
        expected = forward(alone.eval(), x).similarity
    torch.testing.assert_close(SAR(model).maps(x), expected, atol=1e-10, rtol=1e-7)


def test_convolutions_stand_before_cvts_projections() -> None:
    assert not absorbable(ours("cvt_13").blocks[-1].attn), "what is projected is not the layer's input"


@pytest.mark.skipif("num_kv_heads" not in signature(AttentionRope).parameters, reason="this timm has no grouped keys")
def test_grouped_keys_of_a_wrapped_layer(attended: list) -> None:
    model = vit("vit_small_patch16_rope_224", num_heads=4, qkv_fused=False, num_kv_heads=2)
    WRAPPED["low-rank adapter"](model.blocks[-1].attn, "k_proj")
    sar = SAR(model)
    model(images())
    torch.testing.assert_close(sar._maps[0], of_the_host(attended, prefix=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_our_published_architectures_with_the_papers_last_block(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    SAR(model, variant="F")
    assert model.blocks[-1].row == ROWS["C"]


@pytest.mark.parametrize("way", ["low-rank adapter with dropout", "torch's quantisation-aware training"])
@pytest.mark.parametrize("name", ["cvt_13", "beit_base_patch16_224"])
def test_layer_wrapped_after_sar_where_nothing_stands_behind_it(name: str, way: str, attended: list) -> None:
    model = ours(name) if name in OURS else vit(name)
    attn = model.blocks[-1].attn
    attn.qkv_bias_separate = True
    sar = SAR(model)
    for layer in ("q_proj", "k_proj") if name == "cvt_13" else ("qkv",):
        WRAPPED[way](attn, layer)
    model(images())
    torch.testing.assert_close(sar._maps[0], of_the_host(attended, prefix=1), atol=1e-5, rtol=1e-4)
