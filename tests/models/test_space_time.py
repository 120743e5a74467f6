"""A network for clips: timm's tokens of every frame in one sequence, S over space and time, and the plug-in on it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import sarlib
from sarlib import last_block, models
from sarlib.config import ConfigError, Model
from sarlib.data.augment import normalise
from sarlib.entropy import spatial_entropy
from sarlib.run import Run
from sarlib.trainer.step import build_optimizer, untrained

MODEL = Model(patch_size=8, dim=24, depth=2, heads=3, frames=4)


def network(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create(dataclasses.replace(MODEL, **changes), classes=5, image_size=32).double().eval()


def clips(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 12, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", ["A", "C"])
def test_the_class_token_alone_equals_all_tokens(variant: str) -> None:
    model, x = network(variant=variant), clips()
    alone, full = last_block.forward(model, x), last_block.forward(model, x, tokens=True)
    torch.testing.assert_close(alone.logits, model(x))
    torch.testing.assert_close(full.logits, alone.logits)
    torch.testing.assert_close(full.similarity, alone.similarity)
    assert alone.similarity.shape == (2, 3, 4, 4, 4) and full.tokens.shape == (2, 64, 24)


def test_s_is_q_dot_k_over_all_frames() -> None:
    model, x = network(), clips()
    block, seen = model.blocks[-1], []
    block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(x)
    q, k, _ = block.attn.qkv(seen[0]).unflatten(-1, (3, 3, 8)).unbind(2)
    by_hand = torch.einsum("bhd,bnhd->bhn", q[:, 0], k[:, 1:]) / 8**0.5
    torch.testing.assert_close(last_block.forward(model, x).similarity.flatten(2), by_hand)


def test_a_score_lies_where_its_patch_is_in_space_and_time() -> None:
    """With a single block, a token's score depends on its own patch only, and on how that changed since the last frame."""
    model, x = network(depth=1), clips(1)
    changed = x.clone()
    changed[:, 3 * 2 : 3 * 3, 24:, :8] += 1
    moved = (last_block.forward(model, x).similarity != last_block.forward(model, changed).similarity)[0, 0]
    assert moved.nonzero().tolist() == [[2, 3, 0], [3, 3, 0]]


def test_tokens_are_patches_of_a_frame_and_of_its_change_with_a_position_in_space_and_time() -> None:
    model, x = network(), clips()
    tokens, frames = model.embed(x), x.unflatten(1, (4, 3))
    projection = model.patch_embed.proj
    for frame in range(4):
        change = frames[:, frame] - frames[:, max(frame - 1, 0)]
        patches = torch.nn.functional.conv2d(torch.cat([frames[:, frame], change], 1), projection.weight, projection.bias, 8)
        expected = patches.flatten(2).mT + model.pos_embed[:, 1:] + model.time_embed[0, frame]
        torch.testing.assert_close(tokens[:, 1 + 16 * frame : 17 + 16 * frame], expected)
    torch.testing.assert_close(tokens[:, :1], (model.cls_token + model.pos_embed[:, :1]).expand(2, -1, -1))
    assert model.time_embed.std() > 0.01


def test_its_positions_in_time_are_not_decayed(smallest_run: Run) -> None:
    data, model = (dataclasses.replace(part, frames=4) for part in (smallest_run.data, smallest_run.model))
    run = dataclasses.replace(smallest_run, data=data, model=model)
    task = untrained(run, classes=10, device=torch.device("cpu"))
    decayed = [group for group in build_optimizer(task, run.recipe).param_groups if group["weight_decay"]]
    assert all(each is not task.model.time_embed for group in decayed for each in group["params"])


def test_frames_are_normalised_like_images() -> None:
    pixels = torch.randint(0, 256, (3, 12, 8, 8), dtype=torch.uint8)
    expected = torch.cat([normalise(frame) for frame in pixels.split(3, dim=1)], dim=1)
    assert torch.equal(normalise(pixels), expected)


def test_the_plug_in_takes_the_entropy_of_the_clip() -> None:
    model = network(variant="C").train()
    sar, x = sarlib.SAR(model, weight=2.0), clips()
    model(x)
    expected = 2 * spatial_entropy(last_block.forward(model, x).similarity, axes=3)
    sar._recorder.forget()
    model(x)
    torch.testing.assert_close(sar.loss(), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "mean"}, "unknown pool 'mean'; choose from token, avg"),
        ({"pool": "avg"}, "clips are pooled by a class token"),
        ({"name": "t2t"}, "t2t has a class token and sees one frame"),
        ({"frames": 0}, "one frame or more"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(MODEL, **changes)
