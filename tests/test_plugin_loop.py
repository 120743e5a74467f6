"""The plug-in in the loops that people write: checkpointing, compilation, cells run twice, copies, empty batches, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper
from torch.utils.checkpoint import checkpoint

from sarlib.config import ConfigError
from sarlib.entropy import component_counts, component_probabilities, components, map_entropy, spatial_entropy
from sarlib.plugin import SAR


def vit(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **{**small, **settings}).train()


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, run: Callable[[Tensor], Tensor], sar: SAR, *, steps: int = 3) -> list[Tensor]:
    """After that many steps, each of which records one forward pass."""
    for step in range(steps):
        model.zero_grad()
        torch.manual_seed(step)
        logits = run(images())
        assert len(sar._maps) == 1, "one forward pass is recorded once"
        (logits.square().mean() + sar.loss()).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.fixture
def right() -> list[Tensor]:
    """The gradients of the model as it is, with stochastic depth."""
    model = vit(drop_path_rate=0.3)
    return gradients(model, model, SAR(model, weight=1.0))


# ---- gradient checkpointing --------------------------------------------------------------------------------------------------


def whole(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: checkpoint(model, x, use_reentrant=False)


def without_early_stop(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: checkpoint(model, x, use_reentrant=False, early_stop=False)


def twice(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A checkpoint in a checkpoint."""
    model.set_grad_checkpointing(True)
    return whole(model)


def by_timm(model: nn.Module) -> nn.Module:
    model.set_grad_checkpointing(True)
    return model


def last_block(model: nn.Module) -> nn.Module:
    block = model.blocks[-1]
    block.forward = lambda x, forward=block.forward, **_: checkpoint(forward, x, use_reentrant=False)
    return model


def wrappers(model: nn.Module) -> nn.Module:
    """What FSDP's users put around the blocks."""
    for i, block in enumerate(model.blocks):
        model.blocks[i] = checkpoint_wrapper.checkpoint_wrapper(block)
    return model


@pytest.mark.parametrize("way", [whole, without_early_stop, twice, by_timm, last_block, wrappers])
def test_checkpoint_records_once(way: Callable, right: list[Tensor]) -> None:
    model = vit(drop_path_rate=0.3)
    sar = SAR(model, weight=1.0)
    for found, expected in zip(gradients(model, way(model), sar), right, strict=True):
        torch.testing.assert_close(found, expected)


def test_wrapped_blocks_may_be_there_before(right: list[Tensor]) -> None:
    model = wrappers(vit(drop_path_rate=0.3))
    for found, expected in zip(gradients(model, model, SAR(model, weight=1.0)), right, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("way", [whole, by_timm])
def test_checkpoint_and_compilation(way: Callable) -> None:
    """A checkpoint of the compiled model, and the compiled model with checkpoints inside."""
    torch._dynamo.reset()
    plain, model = vit(), vit()
    sar = SAR(model, weight=1.0)
    if way is whole:
        run = whole(torch.compile(model, backend="aot_eager", fullgraph=True))
    else:
        run = torch.compile(by_timm(model), backend="aot_eager")
    expected = gradients(plain, plain, SAR(plain, weight=1.0))
    torch.testing.assert_close(gradients(model, run, sar), expected, atol=1e-6, rtol=1e-4)


def test_reentrant_checkpoint_is_named() -> None:
    model = vit()
    sar = SAR(model)
    checkpoint(model, images().requires_grad_(), use_reentrant=True)
    with pytest.raises(ConfigError, match="non-reentrant"):
        sar.loss()


# ---- torch.compile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_any_number_of_forward_passes_compiles_twice_at_most(wrapped: bool) -> None:
    torch._dynamo.reset()
    model, counter = vit(depth=1), CompileCounterWithBackend("eager")
    if wrapped:
        model.blocks[-1].attn.qkv.register_forward_hook(lambda *_: None)
    sar = SAR(model)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for passes in (1, 4, 20, 70, 1):
        for _ in range(passes):
            compiled(images())
        found = sar._maps
        assert len(found) == passes and all(torch.equal(maps, found[0]) for maps in found)
        assert sar.loss().requires_grad
    assert counter.frame_count <= 2


def test_passes_are_recorded_in_their_order() -> None:
    torch._dynamo.reset()
    model = vit(depth=1)
    sar = SAR(model)
    for run in (model, torch.compile(model, backend="eager", fullgraph=True)):
        batches = images(6).split([1, 2, 3])
        for batch in batches:
            run(batch)
        for found, batch in zip(sar._maps, batches, strict=True):
            torch.testing.assert_close(found, sar.maps(batch), atol=1e-6, rtol=1e-5)
        sar.loss()


@pytest.mark.parametrize("which", [slice(-1, None), slice(0, -1)])
def test_some_blocks_compiled(which: slice) -> None:
    torch._dynamo.reset()
    plain, model = vit(), vit()
    sar = SAR(model, weight=1.0)
    for block in model.blocks[which]:
        block.compile(backend="eager", fullgraph=True)
    expected = gradients(plain, plain, SAR(plain, weight=1.0))
    torch.testing.assert_close(gradients(model, model, sar), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_all_blocks_compiled_one_by_one(before: bool, in_place: bool) -> None:
    """They share the code of the first, which has no hook; the error says so, and its advice is good (the test above)."""
    torch._dynamo.reset()
    model = vit()
    sar = SAR(model) if before else None
    for i, block in enumerate(model.blocks):
        if in_place:
            block.compile(backend="eager")
        else:
            model.blocks[i] = torch.compile(block, backend="eager")
    sar = sar or SAR(model)
    model(images())
    with pytest.raises(ConfigError, match="one by one .* all blocks but the last"):
        sar.loss()


def test_all_blocks_compiled_one_by_one_with_the_papers_last_block() -> None:
    """A last block of another class has code of its own."""
    torch._dynamo.reset()
    model = vit()
    sar = SAR(model, variant="F")
    for block in model.blocks:
        block.compile(backend="eager")
    model(images())
    assert sar.loss() > 0


# ---- modes, batches, devices -------------------------------------------------------------------------------------------------


def test_last_block_in_evaluation_mode() -> None:
    model = vit()
    sar = SAR(model)
    model.blocks[-1].eval()
    model(images())
    with pytest.raises(ConfigError, match="last block is in evaluation mode"):
        sar.loss()
    model.blocks[-1].train()
    model(images())
    assert sar.loss() > 0


def test_last_block_alone_in_training_mode() -> None:
    model = vit()
    sar = SAR(model)
    model.eval().blocks[-1].train()
    model(images())
    assert sar.loss() > 0


def test_empty_batch() -> None:
    """It costs nothing, beside others and alone; DistributedDataParallel still wants a gradient, of zero."""
    model = vit()
    sar = SAR(model, weight=1.0)
    model(images(0))
    loss = sar.loss()
    assert loss == 0
    loss.backward()
    gradient = model.blocks[-1].attn.qkv.weight.grad
    assert gradient is not None and not gradient.any()
    model(images())
    expected = sar.loss()
    model(images())
    model(images(0))
    torch.testing.assert_close(sar.loss(), expected)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Another default device than that of the maps."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_other_default_device(right: list[Tensor], request: pytest.FixtureRequest) -> None:
    maps = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    functions = (components, component_counts, component_probabilities, map_entropy, spatial_entropy)
    expected = [function(maps) for function in functions]
    model, x = vit(drop_path_rate=0.3), images()
    sar = SAR(model, weight=1.0)
    request.getfixturevalue("elsewhere")
    for function, value in zip(functions, expected, strict=True):
        assert torch.equal(function(maps), value)
    for found, value in zip(gradients(model, lambda _: model(x), sar), right, strict=True):
        torch.testing.assert_close(found, value)
