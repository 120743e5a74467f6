"""MoCo-v3's loss in closed form, its fixed parts, and that a batch and its keys are whole."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from self_supervised import MOCO
from torch import nn

from sarlib import data
from sarlib.config import ConfigError
from sarlib.tasks import moco
from sarlib.trainer.loop import train
from sarlib.trainer.step import build_optimizer, untrained

CPU = torch.device("cpu")


def task_of(temperature: float) -> moco.MoCo:
    task = untrained(MOCO, classes=10, device=CPU)
    task.settings = dataclasses.replace(task.settings, temperature=temperature)
    return task


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_orthogonal_keys_have_a_closed_form(tau: float) -> None:
    """n keys at right angles: a query at its own has 2 tau log(1 + (n - 1) exp(-1 / tau)), one at another's that + 2."""
    keys, task = 5 * torch.eye(6, 12), task_of(tau)
    found = task.contrast(3 * keys, keys).item()
    wrong = task.contrast(keys.roll(1, 0), keys).item()
    expected = 2 * tau * math.log(1 + 5 * math.exp(-1 / tau))
    assert (found, wrong) == (pytest.approx(expected, rel=1e-5), pytest.approx(expected + 2, rel=1e-5))
    task.keys = 6
    flat = task.contrast(torch.ones(6, 12), torch.ones(6, 12)).item()
    assert 2 * flat == pytest.approx(task.chance(), rel=1e-6), "the loss of both views"


def test_each_view_is_to_find_the_other() -> None:
    """Against info_nce by hand, each view through the heads by itself."""
    task = untrained(dataclasses.replace(MOCO, regularizers=()), classes=10, device=CPU).eval()
    (views,) = task.example_batch(5, 32)
    with torch.no_grad():
        features = [task.model(views[:, i]) for i in (0, 1)]
        queries, keys = [task.predictor(task.head(each)) for each in features], [task.head(each) for each in features]
        total = 0.0
        for query, key in ((queries[0], keys[1]), (queries[1], keys[0])):
            logits = F.cosine_similarity(query[:, None], key[None], dim=-1) / 0.2
            total += 2 * 0.2 * -logits.log_softmax(1).diagonal().mean().item()
        assert task(views).item() == pytest.approx(total, rel=1e-4)


def test_projection_and_positions_stand_still_and_all_else_decays() -> None:
    task = untrained(MOCO, classes=10, device=CPU)
    fixed = {name for name, parameter in task.model.named_parameters() if not parameter.requires_grad}
    assert fixed == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    (group,) = build_optimizer(task, MOCO.recipe).param_groups
    assert group["weight_decay"] == MOCO.recipe.weight_decay
    assert len(group["params"]) == sum(parameter.requires_grad for parameter in task.parameters())
    # of row and column, at frequencies 1, 10000^-1/4, ...: dim 16 has four sines and four cosines of each
    where = task.model.pos_embed[0, 1:].unflatten(0, (4, 4))[2, 3]
    wanted = [f(at * 10000 ** (-i / 4)) for f in (math.sin, math.cos) for at in (2, 3) for i in range(4)]
    assert where.tolist() == pytest.approx(wanted, abs=1e-6) and task.model.pos_embed[0, 0].abs().max() == 0
    bound = math.sqrt(6 / (3 * 8 * 8 + 16))
    assert bound * 0.95 < task.model.patch_embed.proj.weight.abs().max() <= bound


def test_batch_norm_is_torchs_and_learns_nothing_from_other_batches() -> None:
    ours, theirs = moco.BatchNorm(5), nn.BatchNorm1d(5).train()
    x = 3 + 2 * torch.randn(9, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs(x))
    assert list(ours.buffers()) == []
    last = moco.perceptron(3, 4, 5)
    assert [type(layer).__name__ for layer in last] == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
    assert last[-1].weight is None and last[1].weight is not None and last[0].bias is None


def test_a_batch_is_taken_whole(tmp_path: Path) -> None:
    images = data.load(MOCO.data, seed=0)
    with pytest.raises(ConfigError, match="moco takes a batch whole: say micro_batches 1"):
        train(MOCO, images=images, device=CPU, folder=tmp_path, micro_batches=2)
