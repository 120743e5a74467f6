"""The plug-in beside what trains in earnest: several processes under DistributedDataParallel, torch.compile with
generated code."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.nn.parallel import DistributedDataParallel

from sarlib.plugin import SAR

pytestmark = pytest.mark.xdist_group("several-processes")

#: Images of a whole batch, which the processes share.
BATCH = 8


def vit() -> nn.Module:
    """A small ViT, the same in every process."""
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **size).train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % 3


def step(model: nn.Module, sar: SAR, images: Tensor, labels: Tensor, *, share: float = 1.0) -> Tensor:
    """Forward and backward; returns what was added to the cross entropy."""
    loss = F.cross_entropy(model(images), labels)
    added = sar.loss()
    (share * (loss + added)).backward()
    return added.detach()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# ---- several processes -------------------------------------------------------------------------------------------------------


def in_one_go(model: nn.Module, sar: SAR, images: Tensor, labels: Tensor) -> Tensor:
    return step(model, sar, images, labels)


def accumulated(model: nn.Module, sar: SAR, images: Tensor, labels: Tensor) -> Tensor:
    """In two micro-batches, the first of which the processes do not exchange."""
    halves = list(zip(images.chunk(2), labels.chunk(2), strict=True))
    added = []
    for i, half in enumerate(halves):
        last = i == len(halves) - 1
        with nullcontext() if last else model.no_sync():
            added.append(step(model, sar, *half, share=1 / len(halves)))
    return torch.stack(added).mean()


WAYS = {"in one go": in_one_go, "accumulated": accumulated}


def train_in_process(rank: int, size: int, port: int, folder: Path) -> None:
    """What one of `size` processes does with its part of the batch, each way; leaves gradients and losses in `folder`."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        own = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
        images, labels = (part[own] for part in batch())
        found = {name: train_twice(way, images.double(), labels) for name, way in WAYS.items()}
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def train_twice(way: Callable[..., Tensor], images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    model = DistributedDataParallel(vit().double())
    sar = SAR(model, weight=0.5)
    for _ in range(2):  # DistributedDataParallel arranges its buckets anew after the first backward pass
        model.zero_grad()
        added = way(model, sar, images, labels)
    return gradients(model.module), added


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[dict[str, Tensor], Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_in_process, args=(2, port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(way: str, two_processes: list) -> None:
    model, (images, labels) = vit().double(), batch()
    whole = step(model, SAR(model, weight=0.5), images.double(), labels)
    expected = gradients(model)
    assert whole > 0 and all(gradient.abs().max() > 0 for gradient in expected.values())
    for found, _ in (outcome[way] for outcome in two_processes):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    parts = torch.stack([added for _, added in (outcome[way] for outcome in two_processes)])
    assert parts[0] != parts[1], "each process has its own images"
    torch.testing.assert_close(parts.mean(), whole)


# ---- torch.compile -----------------------------------------------------------------------------------------------------------


def test_compiled_model_has_the_loss_and_the_gradients_of_the_eager_one() -> None:
    """Forward and backward of model and hooks are one graph each, without a break; the loss stays outside of them."""
    torch._dynamo.reset()
    plain, model = vit(), vit()
    assert_equal_steps(torch.compile(model, backend="aot_eager", fullgraph=True), plain)
    torch.testing.assert_close(gradients(model), gradients(plain), atol=1e-6, rtol=1e-3)


def test_generated_code_has_the_loss_and_the_gradients_of_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the layer that has the hook only: each kernel of the others would take the compiler seconds."""
    monkeypatch.setattr(inductor, "compile_threads", 1)  # processes to compile in would take longer to start than they save
    torch._dynamo.reset()
    plain, model = vit(), vit()
    model.blocks[-1].attn.compile(backend="inductor", fullgraph=True)
    assert_equal_steps(model, plain)
    torch.testing.assert_close(gradients(model), gradients(plain), atol=1e-6, rtol=1e-3)


def test_distributed_model_may_be_compiled_as_well(tmp_path: Path) -> None:
    """In the order that torch recommends: first DistributedDataParallel, then torch.compile."""
    torch._dynamo.reset()
    plain, model = vit(), vit()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert_equal_steps(torch.compile(DistributedDataParallel(model), backend="eager"), plain)
        torch.testing.assert_close(gradients(model), gradients(plain), atol=1e-6, rtol=1e-3)
    finally:
        dist.destroy_process_group()


def assert_equal_steps(compiled: nn.Module, plain: nn.Module) -> None:
    """The first step, in which `compiled` is compiled, and one more add the same loss."""
    sar, plain_sar = SAR(compiled, weight=0.5), SAR(plain, weight=0.5)
    for _ in range(2):
        compiled.zero_grad()
        plain.zero_grad()
        torch.testing.assert_close(step(compiled, sar, *batch()), step(plain, plain_sar, *batch()))
    assert sar.entropy > 0
