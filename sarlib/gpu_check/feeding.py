"""Whether the input keeps up: the same training step fed with a batch that never changes and with augmented images, in turns."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sarlib import data
from sarlib.bench.interleaved import Fact, Side, clock, measure
from sarlib.bench.waits import WAITS, waits
from sarlib.config import ConfigError, Data
from sarlib.data import sources
from sarlib.data.batches import TrainBatches
from sarlib.data.images import Images
from sarlib.gpu_check.parts import Found, Task
from sarlib.gpu_check.plan import Plan
from sarlib.gpu_check.training import Step, objective, synthetic

NAME = "training step by source of its images"
SYNTHETIC = "synthetic"
RESIDENT = "made images, on the device"
STREAMED = "made images, memory map"
CIFAR = "CIFAR-10, on the device"

#: Cells a side of the noise that made images are of, coarse to fine, each weighted by its coarseness: a photograph's 1/f spectrum.
_CELLS = (2, 4, 8, 16, 32)
_AT_A_TIME = 256


def find(task: Task) -> Iterator[Found]:
    """The step with SAR, with DeiT's augmentation on the device; images of `sarlib.data` and of a memory map that is made here.

    The map is read back from where it was just written, so that its pages are in memory: what a disk costs is not measured.
    """
    device, plan = torch.device(task.device), task.plan
    step = Step(objective(plan, "F", device), plan.setting.row("F"), next(iter(plan.compiled.values())))
    constant = synthetic(plan, plan.fed_batch, device)
    with tempfile.TemporaryDirectory() as folder:
        made = _made(Path(folder) / "images.uint8", plan, device)
        fed = {RESIDENT: _endless(made, "device", plan, device), STREAMED: _endless(made, "memory", plan, device)}
        try:
            fed[CIFAR] = _endless(_cifar10(task), "device", plan, device)
        except ConfigError as error:
            yield Found(skipped=(f"CIFAR-10: {error}",))
        sides = [Side(name=SYNTHETIC, run=lambda: step(*constant))]
        sides += [Side(name=name, run=lambda batches=batches: step(*next(batches))) for name, batches in fed.items()]
        settings = {"model": plan.setting.dataset, "B": plan.fed_batch, "pixels": made.image_size[0]}
        yield Found(measurements=(measure(NAME, sides, effort=plan.feeding, now=clock(device), settings=settings),))
        if device.type == "cuda":
            facts = [Fact(name=WAITS, settings={"side": side.name}, value=waits(side.run), unit="a step") for side in sides]
            yield Found(facts=tuple(facts))
        for batches in fed.values():
            batches.close()


def _endless(images: Images, source: str, plan: Plan, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch of `images` from `source`, augmented by the recipe."""
    run = plan.setting.baseline
    with _forced(source):
        batches = TrainBatches(
            images,
            augmentation=run.augmentation,
            batch_size=plan.fed_batch,
            image_size=run.data.image_size,
            seed=0,
            device=device,
        )
    return (batch for epoch in itertools.count() for batch in batches.epoch(epoch))


@contextmanager
def _forced(source: str) -> Iterator[None]:
    before = os.environ.get(sources.VARIABLE)
    os.environ[sources.VARIABLE] = source
    try:
        yield
    finally:
        os.environ.pop(sources.VARIABLE)
        if before is not None:
            os.environ[sources.VARIABLE] = before


def _made(path: Path, plan: Plan, device: torch.device) -> Images:
    """Coloured noise with the spectrum of photographs, in a memory map at `path`, with labels at random."""
    generator = torch.Generator(device).manual_seed(0)
    n, size = plan.pictures, plan.setting.baseline.data.image_size
    pixels = torch.from_file(str(path), shared=True, size=n * 3 * size * size, dtype=torch.uint8).view(n, 3, size, size)
    for block in pixels.split(_AT_A_TIME):
        octaves = torch.zeros(block.shape, device=device)
        for cells in _CELLS:
            noise = torch.randn(len(block), 3, cells, cells, device=device, generator=generator)
            octaves += F.interpolate(noise, size=(size, size), mode="bilinear") * (2 / cells) ** 0.5
        block.copy_(octaves.sigmoid_().mul_(255).to(torch.uint8))
    labels = torch.arange(n) % plan.classes
    return Images(labels=labels, classes=_classes(plan), pixels=pixels)


def _cifar10(task: Task) -> Images:
    """As many training images of CIFAR-10 as of the made ones, enlarged; under as many classes as the model has."""
    if task.data is None:
        raise ConfigError("no folder was given with --data")
    available, _, _ = data.inspect("cifar10", root=task.data)
    size = task.plan.setting.baseline.data.image_size
    # Of the test images one a class, which are decoded too.
    spec = Data(name="cifar10", image_size=size, train_size=min(task.plan.pictures, available), test_size=10)
    images, _ = data.load(spec, seed=0, root=task.data)
    return dataclasses.replace(images, classes=_classes(task.plan))


def _classes(plan: Plan) -> tuple[str, ...]:
    return tuple(map(str, range(plan.classes)))
