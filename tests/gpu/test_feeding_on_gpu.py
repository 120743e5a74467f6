"""Batches on a GPU: the CPU's, from wherever the images come, without a wait of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bench.device import waits
from torch import Tensor

from sarlib import data
from sarlib.config import Data
from sarlib.data.images import Images
from sarlib.data.loader import TrainBatches, evaluation_batches
from sarlib.trainer.recipes import DEIT_AUGMENTATION

pytestmark = pytest.mark.gpu

SIZE = 32


@pytest.fixture
def images() -> Images:
    return data.load(Data(name="shapes-object", image_size=SIZE, train_size=32, test_size=20), seed=0, root=None)[0]


@pytest.fixture
def files(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setenv("SAR_INPUT", "files")
    return data.load(Data(name="pets", image_size=SIZE), seed=0, root=image_folder)[0]


def batches(images: Images, device: torch.device) -> TrainBatches:
    settings = {"augmentation": DEIT_AUGMENTATION, "batch_size": 8, "image_size": SIZE, "seed": 3}
    return TrainBatches(images, **settings, device=device)


def pairs(one: TrainBatches, other: TrainBatches) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    return zip(one.epoch(1), other.epoch(1), strict=True)


def test_images_on_the_device_and_in_memory_give_the_same_batches(
    gpu: torch.device, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for source in ("device", "memory"):
        monkeypatch.setenv("SAR_INPUT", source)
        found.append(batches(images, gpu))
        assert found[-1].source == source
    for (x, y), (other_x, other_y) in pairs(*found):
        assert x.device.type == y.device.type == gpu.type
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


@pytest.mark.parametrize("source", ["images", "files"])
def test_batches_are_those_of_the_cpu(gpu: torch.device, source: str, request: pytest.FixtureRequest) -> None:
    """A byte that is rounded the other way may be another byte after RandAugment: in one pixel of a hundred at most."""
    images = request.getfixturevalue(source)
    ours, theirs = batches(images, gpu), batches(images, torch.device("cpu"))
    for (x, y), (other_x, other_y) in pairs(ours, theirs):
        assert ((x.cpu() - other_x).abs() > 0.02).double().mean() < 0.01
        assert torch.allclose(y.cpu(), other_y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", ["images", "files"])
def test_test_images_are_those_of_the_cpu(gpu: torch.device, source: str, request: pytest.FixtureRequest) -> None:
    images = request.getfixturevalue(source)
    ours, theirs = (
        evaluation_batches(images, batch_size=5, image_size=SIZE, device=device) for device in (gpu, torch.device("cpu"))
    )
    for (x, indices), (other_x, other_indices) in zip(ours, theirs, strict=True):
        assert x.device.type == gpu.type and torch.equal(indices, other_indices)
        assert torch.allclose(x.cpu(), other_x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("source", ["device", "memory"])
def test_the_host_waits_for_no_batch(gpu: torch.device, images: Images, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu.type != "cuda":
        pytest.skip("needs CUDA's record of waits")
    monkeypatch.setenv("SAR_INPUT", source)
    assert waits(lambda: list(batches(images, gpu).epoch(0))) == 0
