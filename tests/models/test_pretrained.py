"""Starting from trained weights: all but the head is taken bit by bit, and another architecture is refused in one line."""

from __future__ import annotations

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from tiny_models import SIZE, TINY
from torch import Tensor, nn

from sarlib import models
from sarlib.config import ConfigError, Model, Published
from sarlib.models.pretrained import origin, start_from
from sarlib.run import Run

GRID = {"vit": 4, "t2t": 4, "pvt": 4, "cvt": 8}  # tokens a side at SIZE


def build(declared: Model, *, seed: int, classes: int = 5, image_size: int = SIZE, trained: bool = False) -> nn.Module:
    """An untrained network, or with every parameter and statistic away from what it is initialised to."""
    torch.manual_seed(seed)
    model = models.create(declared, classes=classes, image_size=image_size)
    if trained:
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(torch.rand_like(tensor) if tensor.is_floating_point() else 3)
    return model


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def names(model: nn.Module, *parts: str) -> set[str]:
    """Tensors of the head, and of the last block's norm2 where `parts` name it."""
    last = next(name for name, module in model.named_modules() if module is model.blocks[-1])
    wanted = tuple({"head": "head.", "norm2": f"{last}.norm2."}[part] for part in parts)
    return {name for name in model.state_dict() if name.startswith(wanted)}


@pytest.mark.parametrize("variants", ["AA", "AC", "CC", "CA", "BD"])
@pytest.mark.parametrize("name", list(TINY))
def test_everything_but_the_head_is_taken(name: str, variants: str) -> None:
    """Also a head of the right size stays new; so does the norm that row C lacks, where a stock block comes back."""
    parent, child = (dataclasses.replace(TINY[name], variant=variant) for variant in variants)
    weights, model = copied(build(parent, seed=1, trained=True)), build(child, seed=2)
    before = copied(model)
    new = set(start_from(model, weights, grid=GRID[name], heads=3))
    assert new == names(model, "head", *(["norm2"] if variants == "CA" else []))
    for tensor, value in model.state_dict().items():
        assert torch.equal(value, (before if tensor in new else weights)[tensor]), tensor


@pytest.mark.parametrize("name", list(TINY))
def test_there_and_back_restores_all_but_norm2(name: str) -> None:
    stock, row_c = (dataclasses.replace(TINY[name], variant=variant) for variant in "AC")
    weights = copied(build(stock, seed=1, trained=True))
    between, back = build(row_c, seed=2), build(stock, seed=3)
    fresh = copied(back)
    start_from(between, weights, grid=GRID[name], heads=3)
    start_from(back, copied(between), grid=GRID[name], heads=3)
    lost = names(back, "head", "norm2")
    for tensor, value in back.state_dict().items():
        assert torch.equal(value, (fresh if tensor in lost else weights)[tensor]), tensor
    assert all(not torch.equal(fresh[tensor], weights[tensor]) for tensor in lost), "they differ from the parent's"


def test_a_network_without_head_starts_one_with_a_head_of_any_size() -> None:
    weights = copied(build(TINY["vit"], seed=1, classes=0, trained=True))
    assert not any(name.startswith("head") for name in weights)
    for classes in (5, 100):
        model = build(TINY["vit"], seed=2, classes=classes)
        assert set(start_from(model, weights, grid=4, heads=3)) == {"head.weight", "head.bias"}
        assert model.head.out_features == classes


def test_timms_own_network_gives_the_same_features() -> None:
    settings = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    torch.manual_seed(1)
    published = timm.models.vision_transformer.VisionTransformer(**settings).eval()
    model = build(TINY["vit"], seed=2).eval()
    start_from(model, published.state_dict(), grid=4, heads=3)
    x = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(model.forward_features(x), published.forward_features(x))


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", ["vit", "t2t", "pvt"])
def test_positions_are_resampled_from_the_old_grid(name: str, size: int) -> None:
    """By torch's bicubic interpolation, at every stage from that stage's own grid; the class token's stays."""
    weights, model = copied(build(TINY[name], seed=1, trained=True)), build(TINY[name], seed=2, image_size=size)
    start_from(model, weights, grid=4, heads=3)
    found = {tensor: value for tensor, value in model.state_dict().items() if tensor.endswith("pos_embed")}
    sides = {"stages.0.pos_embed": (8, 0), "stages.1.pos_embed": (4, 1), "pos_embed": (4, 1)}
    assert len(found) == (2 if name == "pvt" else 1)
    for tensor, value in found.items():
        side, prefix = sides[tensor]
        new = side * size // SIZE
        old = weights[tensor][:, prefix:].mT.unflatten(2, (side, side))
        by_hand = F.interpolate(old, size=(new, new), mode="bicubic", antialias=True).flatten(2).mT
        assert torch.equal(value, torch.cat([weights[tensor][:, :prefix], by_hand], 1)), tensor
    others = [tensor for tensor in weights if tensor not in found and not tensor.startswith("head")]
    assert all(torch.equal(model.state_dict()[tensor], weights[tensor]) for tensor in others)


@pytest.mark.parametrize(
    ("parent", "spoil", "heads", "message"),
    [
        (Model(patch_size=8, dim=24, depth=2, heads=6), {}, 6, "weights of a network with 6 heads cannot start one with 3"),
        (Model(patch_size=8, dim=48, depth=2, heads=3), {}, 3, "30 tensors do not fit, among them blocks.0.attn.proj.bias"),
        (Model(patch_size=8, dim=24, depth=3, heads=3), {}, 3, "12 tensors do not fit, among them blocks.2"),
        (Model(patch_size=8, dim=24, depth=1, heads=3), {}, 3, "12 tensors do not fit, among them blocks.0.norm2|blocks.1"),
        (Model(patch_size=4, dim=24, depth=2, heads=3), {}, 3, "tensors do not fit, among them patch_embed.proj.weight"),
        (TINY["t2t"], {}, 3, "among them blocks.0.attn.qkv.bias"),
        (TINY["vit"], {"surprise": torch.zeros(1)}, 3, "1 tensors do not fit, among them surprise"),
        (TINY["vit"], {"norm.weight": None}, 3, "1 tensors do not fit, among them norm.weight"),
        (TINY["vit"], {"blocks.0.norm2.bias": None}, 3, "among them blocks.0.norm2.bias"),
        (TINY["vit"], {"pos_embed": torch.zeros(1, 26, 24)}, 3, "among them pos_embed"),
    ],
)
def test_another_architecture_is_refused(parent: Model, spoil: dict[str, Tensor | None], heads: int, message: str) -> None:
    """In one line, and nothing of the network has changed. Six heads of 4 channels have the tensors of three of 8."""
    weights = copied(build(parent, seed=1, trained=True)) | spoil
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}
    model = build(TINY["vit"], seed=2)
    before = copied(model)
    with pytest.raises(ConfigError, match=message) as error:
        start_from(model, weights, grid=4, heads=heads)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_says_where_its_parent_comes_from(smallest_run: Run) -> None:
    pyramid = dataclasses.replace(smallest_run, model=TINY["cvt"])
    assert origin(smallest_run) == {"grid": 4, "heads": 2}
    assert origin(pyramid) == {"grid": 8, "heads": 3}, "its tokens, not its keys"


@pytest.mark.parametrize(("name", "grid", "heads"), [("deit_small_patch16_224", 14, 6), ("deit_tiny_patch16_224", 14, 3)])
def test_timm_says_it_of_a_published_network(name: str, grid: int, heads: int) -> None:
    assert origin(Published(name=f"timm/{name}", sha256="0" * 64)) == {"grid": grid, "heads": heads}


@pytest.mark.parametrize("name", ["timm/nonsense_patch16", "facebook/deit_small", "timm/resnet18"])
def test_a_published_network_that_timm_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"timm knows no ViT '{name}'"):
        origin(Published(name=name, sha256="0" * 64))


@pytest.mark.parametrize(("what", "value"), [("heads", 4), ("dim", 32), ("depth", 3), ("patch_size", 4), ("mlp_ratio", 2.0)])
def test_a_declaration_is_refused_before_anything_is_trained(smallest_run: Run, what: str, value: float) -> None:
    parent = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, **{what: value}))
    with pytest.raises(ConfigError, match=f"a run with {what} .* cannot start from run {parent.key}, which has {what} {value}"):
        dataclasses.replace(smallest_run, pretrained=parent)
