"""ViTDet's backbone against timm's blocks, an attention with a mask written out, and the rates of its released code."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from tiny_models import SIZE, TINY
from torch import Tensor

from sarlib import models
from sarlib.config import ON_VITDET, Augmentation, ConfigError, Model, Regularizer, Task
from sarlib.last_block import query_key_gradient
from sarlib.models.pretrained import start_from
from sarlib.models.vitdet import GridAttention, ViTDet, layer_groups
from sarlib.run import Run

DIM, HEADS = 24, 3
PYRAMID = Task(channels=16)


def attention(side: int, window: int) -> tuple[Block, GridAttention]:
    """timm's block, and what takes the weights of its attention over."""
    torch.manual_seed(0)
    block = Block(DIM, HEADS, qkv_bias=True)
    return block, GridAttention(block.attn, side=side, window=window)


def by_hand(layer: GridAttention, x: Tensor) -> Tensor:
    """float64, one query after the other: q.k / sqrt(d) + q.r_rows + q.r_columns over the tokens of the query's own window."""
    layer, x = layer.double(), x.double()
    side, window = layer.side, layer.window
    q, k, v = layer.qkv(x).view(len(x), side * side, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
    places = [(row, column) for row in range(side) for column in range(side)]
    out = torch.zeros_like(q)
    for i, (row, column) in enumerate(places):
        scores = torch.full((len(x), HEADS, side * side), -math.inf, dtype=torch.float64)
        for j, (other_row, other_column) in enumerate(places):
            if (row // window, column // window) == (other_row // window, other_column // window):
                relative = layer.relative_rows[row - other_row + window - 1]
                relative = relative + layer.relative_columns[column - other_column + window - 1]
                product = (q[:, :, i] * k[:, :, j]).sum(-1) / math.sqrt(DIM // HEADS)
                scores[:, :, j] = product + (q[:, :, i] * relative).sum(-1)
        out[:, :, i] = (scores.softmax(-1)[..., None] * v).sum(2)
    return layer.proj(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("side", "window"), [(4, 2), (5, 2), (7, 3), (4, 4), (4, 9), (3, 1)])
@torch.no_grad()
def test_attention_in_windows_with_relative_positions(side: int, window: int) -> None:
    """Also where the windows do not tile the grid, and where one covers it."""
    _, layer = attention(side, window)
    for table in (layer.relative_rows, layer.relative_columns):
        table.normal_(std=0.5)
    x = torch.randn(2, side * side, DIM)
    torch.testing.assert_close(layer(x).double(), by_hand(layer, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [4, 14])
@torch.no_grad()
def test_a_window_over_the_whole_grid_is_timms_attention(window: int) -> None:
    """Relative positions are zero at the start, and leave the block as it was."""
    block, layer = attention(4, window)
    x = torch.randn(2, 16, DIM)
    before = block(x)
    block.attn = layer
    torch.testing.assert_close(block(x), before, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_token_sees_no_other_window_and_no_padding() -> None:
    _, layer = attention(5, 3)
    x = torch.randn(1, 25, DIM)
    moved = x.clone().view(1, 5, 5, DIM)
    moved[:, 3:] += 1
    first, then = (layer(each.view(1, 25, DIM)).view(5, 5, DIM) for each in (x, moved))
    torch.testing.assert_close(then[:3], first[:3], atol=1e-6, rtol=0)
    assert (then[3:] - first[3:]).abs().amax() > 0.1


@pytest.mark.parametrize("variant", list("ABCD"))
@torch.no_grad()
def test_the_last_map_is_that_of_the_blocks_without_class_token(variant: str) -> None:
    model = dataclasses.replace(TINY["vit"], variant=variant, depth=3)
    torch.manual_seed(0)
    vit = models.create(model, classes=5, image_size=SIZE).eval()
    network = ViTDet(model, PYRAMID, image_size=SIZE).eval()
    start_from(network, vit.state_dict(), grid=4, heads=HEADS)
    seen = []
    network.pyramid.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.randn(2, 3, SIZE, SIZE)
    network(images)
    x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
    for block in vit.blocks:
        x = block(x)
    torch.testing.assert_close(seen[0], x.mT.reshape(2, DIM, 4, 4), atol=1e-5, rtol=0)


@torch.no_grad()
def test_levels_of_the_pyramid() -> None:
    network = ViTDet(TINY["vit"], PYRAMID, image_size=64)
    levels = network(torch.rand(2, 3, 64, 64))
    assert {name: tuple(level.shape[1:]) for name, level in levels.items()} == {
        "p2": (16, 32, 32),
        "p3": (16, 16, 16),
        "p4": (16, 8, 8),
        "p5": (16, 4, 4),
        "p6": (16, 2, 2),
    }
    assert torch.equal(levels["p6"], levels["p5"][..., ::2, ::2])
    means = levels["p3"].mean(1)
    torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-5, rtol=0)  # a LayerNorm over channels comes last


def test_parameters_of_the_published_pyramid() -> None:
    """ViT-B with 256 channels by the sizes of the published layers: 2 x 2 transposed convolutions with, others without bias."""
    dim, out = 768, 256
    up = {d: d * d // 2 * 4 + d // 2 for d in (dim, dim // 2)}
    to_channels = {d: d * out + out * out * 9 + 2 * 2 * out for d in (dim, dim // 2, dim // 4)}
    expected = up[dim] + 2 * dim // 2 + up[dim // 2] + to_channels[dim // 4]
    expected += up[dim] + to_channels[dim // 2] + 2 * to_channels[dim]
    with torch.device("meta"):
        network = ViTDet(Model(dim=dim, heads=12), Task(), image_size=224)
    assert sum(parameter.numel() for parameter in network.pyramid.parameters()) == expected


def test_four_of_twelve_blocks_attend_everywhere() -> None:
    with torch.device("meta"):
        network = ViTDet(Model(dim=DIM, heads=3), Task(), image_size=512)
        short = ViTDet(Model(dim=DIM, heads=3, depth=3), Task(), image_size=512)
    assert [i for i, block in enumerate(network.blocks) if block.attn.window == 32] == [2, 5, 8, 11]
    assert {block.attn.window for block in network.blocks} == {14, 32}
    assert [block.attn.window for block in short.blocks] == [32] * 3


@pytest.mark.parametrize("name", ["vit", "t2t"])
@pytest.mark.parametrize("variants", ["AA", "AC", "CC", "CA"])
@pytest.mark.parametrize("left_out", [0, 1])
def test_only_what_is_new_stays_new(name: str, variants: str, left_out: int) -> None:
    parent, child = (dataclasses.replace(TINY[name], variant=variant) for variant in variants)
    weights = models.create(parent, classes=7, image_size=SIZE).state_dict()
    weights = {tensor: value + 0.5 for tensor, value in weights.items()}
    network = ViTDet(child, dataclasses.replace(PYRAMID, blocks_left_out=left_out), image_size=SIZE)
    new = start_from(network, weights, grid=4, heads=HEADS)
    expected = {name for name in network.state_dict() if "relative" in name or name.startswith("pyramid.")}
    assert set(new) == expected | (
        {"blocks.1.norm2.weight", "blocks.1.norm2.bias"} if (variants, left_out) == ("CA", 0) else set()
    )
    taken = {tensor: value for tensor, value in network.state_dict().items() if tensor not in new}
    assert taken and all(torch.equal(value, weights[tensor]) for tensor, value in taken.items())


def test_positions_are_resampled_without_the_class_tokens() -> None:
    vit = models.create(TINY["vit"], classes=3, image_size=SIZE)
    network, larger = ViTDet(TINY["vit"], PYRAMID, image_size=64), models.create(TINY["vit"], classes=3, image_size=64)
    for model in (network, larger):
        start_from(model, vit.state_dict(), grid=4, heads=HEADS)
    assert torch.equal(network.pos_embed, larger.pos_embed)
    images = torch.rand(1, 3, 64, 64)
    before = network(images)["p4"]
    with torch.no_grad():
        network.pos_embed[:, 0] += 1
    assert torch.equal(network(images)["p4"], before)


def test_a_released_network_of_timm_can_be_started_from() -> None:
    torch.manual_seed(0)
    published = VisionTransformer(img_size=SIZE, patch_size=8, embed_dim=DIM, depth=2, num_heads=HEADS, num_classes=11)
    network = ViTDet(TINY["vit"], PYRAMID, image_size=SIZE)
    start_from(network, published.state_dict(), grid=4, heads=HEADS)
    assert torch.equal(network.blocks[1].attn.qkv.weight, published.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize(
    ("spoil", "heads", "message"),
    [
        ({"blocks.0.norm2.bias": None}, 3, "1 tensors do not fit, among them blocks.0.norm2.bias"),
        ({"blocks.0.attn.qkv.weight": None}, 3, "among them blocks.0.attn.qkv.weight"),
        ({"surprise": torch.zeros(1)}, 3, "among them surprise"),
        ({"blocks.2.attn.proj.bias": torch.zeros(24)}, 3, "among them blocks.2.attn.proj.bias"),
        ({"pos_embed": None}, 3, "among them pos_embed"),
        ({}, 6, "weights of a network with 6 heads cannot start one with 3"),
    ],
)
def test_weights_of_another_network_are_refused(spoil: dict[str, Tensor | None], heads: int, message: str) -> None:
    weights = models.create(TINY["vit"], classes=3, image_size=SIZE).state_dict() | spoil
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        start_from(ViTDet(TINY["vit"], PYRAMID, image_size=SIZE), weights, grid=4, heads=heads)


def test_rates_fall_from_layer_to_layer() -> None:
    """0.7^(13 - layer) of 12 blocks; no weight decay for norms, biases and positions of tokens; every parameter once."""
    with torch.device("meta"):
        network = ViTDet(Model(dim=DIM, heads=3), PYRAMID, image_size=64)
    groups = layer_groups(network, blocks=12, decay=0.7, weight_decay=0.1)
    found = {id(each): (group["lr_scale"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        layer = 13
        if name.startswith(("patch_embed", "pos_embed")):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        decayed = parameter.ndim > 1 and name != "pos_embed"
        assert found[id(parameter)] == (pytest.approx(0.7 ** (13 - layer)), 0.1 if decayed else 0), name


@pytest.mark.parametrize("left_out", [0, 1])
def test_every_parameter_gets_a_gradient_and_the_last_block_shows_its_norm(left_out: int) -> None:
    network = ViTDet(TINY["vit"], dataclasses.replace(PYRAMID, blocks_left_out=left_out), image_size=SIZE)
    assert len(network.blocks) == 2 - left_out
    loss = sum(level.square().mul(torch.rand_like(level)).mean() for level in network(torch.rand(2, 3, SIZE, SIZE)).values())
    assert query_key_gradient(network, loss).norm() > 0
    loss.backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({"model": TINY["pvt"]}, {}, "needs the one map of a ViT: choose vit or t2t, not pvt"),
        ({"regularizers": (Regularizer(name="spatial_entropy", weight=0.01),)}, {}, "no class token"),
        ({}, {"blocks_left_out": 2}, "without 2 of 2 blocks: leave at least one"),
        ({}, {"channels": 0}, "channels must be 1 or more, got 0"),
        ({}, {"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1, got 1.5"),
    ],
)
def test_declarations_are_checked(smallest_run: Run, changes: dict, task: dict, message: str, monkeypatch) -> None:
    monkeypatch.setattr("sarlib.config.learning.TASKS", ON_VITDET)
    changes = {"regularizers": (), "augmentation": Augmentation(flip=0.5)} | changes
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(smallest_run, **changes, task=Task(name="detection", **task))
