"""The augmentation of DeiT's recipe: our batches against timm's transforms.

timm's are applied to one picture at a time, by two worker processes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import RandAugment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.interleaved import Fact, Measurement, Side, clock, measure, require_equal
from bench.loss import one_thread
from bench.plan import Plan
from sarlib.data.images import Images
from sarlib.data.loader import TrainBatches
from sarlib.trainer.recipes import DEIT_AUGMENTATION

NAME = "augmentation of a batch"
OURS = "in batches"
TIMM = "timm, two workers"

WORKERS = 2
CLASSES = 1000

#: Batches in a row, so that both workers have as much to do, and waiting for the first of them is shared by several.
BATCHES = 4

#: Mean and spread of the augmented pixels may differ by so much over the root of the number of images: both draw at random.
TOLERANCE = 6.0


def measure_augmentation(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """Seconds an image, from decoded images to normalised batches on the device, with targets.

    Neither side decodes: ours has bytes on the device, timm's has PIL pictures in its workers.
    """
    images = _images(plan.baseline_batch, plan.image_size)
    batch, size = plan.baseline_batch, plan.image_size
    settings = {"B": batch, "pixels": size, "workers": WORKERS, "threads": torch.get_num_threads()}
    ours, theirs = _ours(images, size, device), _timm(images, size, device)
    found, reference = (_moments(batches()) for batches in (ours, theirs))
    repeats = BATCHES * batch
    allowed = {"what": "mean and spread of the pixels", "tolerance": TOLERANCE / math.sqrt(repeats)}
    check = require_equal(OURS, TIMM, found=found, reference=reference, **allowed)
    sides = [Side(name=name, run=_through(batches), repeats=repeats) for name, batches in ((OURS, ours), (TIMM, theirs))]
    effort = dataclasses.replace(plan.loss, seconds=4 * plan.loss.seconds)
    measured = measure(NAME, sides, effort=effort, now=clock(device), settings=settings, checks=[check])
    facts = [
        Fact(name="augmented", settings={**settings, "side": timing.name}, value=1 / timing.median, unit="images a second")
        for timing in measured.timings
    ]
    return [measured], facts


def _images(n: int, size: int) -> Images:
    """Smooth random colours with a little noise: neither flat nor noise alone, so that no operation is spared its work."""
    generator = torch.Generator().manual_seed(0)
    coarse = F.interpolate(torch.rand(n, 3, 7, 7, generator=generator), size=(size, size), mode="bicubic")
    pixels = 255 * coarse + 8 * torch.randn(n, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return Images(labels=labels, classes=tuple(map(str, range(CLASSES))), pixels=pixels.clamp(0, 255).to(torch.uint8))


def _ours(images: Images, size: int, device: torch.device) -> Callable[[], Iterator[Tensor]]:
    batches = TrainBatches(
        images, augmentation=DEIT_AUGMENTATION, batch_size=len(images), image_size=size, seed=0, device=device
    )
    return lambda: (x for epoch in range(BATCHES) for x, _ in batches.epoch(epoch))


def _timm(images: Images, size: int, device: torch.device) -> Callable[[], Iterator[Tensor]]:
    loader = DataLoader(_Pictures(images, size), batch_size=len(images), num_workers=WORKERS, persistent_workers=True)
    mixup = Mixup(
        mixup_alpha=DEIT_AUGMENTATION.mixup,
        cutmix_alpha=DEIT_AUGMENTATION.cutmix,
        switch_prob=DEIT_AUGMENTATION.mix_switch,
        label_smoothing=DEIT_AUGMENTATION.label_smoothing,
        num_classes=CLASSES,
    )

    def batches() -> Iterator[Tensor]:
        with one_thread():  # both cores are the workers': more threads here would get in their way
            for x, labels in loader:
                yield mixup(x.to(device), labels.to(device))[0]

    return batches


class _Pictures(Dataset):
    """Decoded PIL pictures under timm's training transforms, `BATCHES` times over."""

    def __init__(self, images: Images, size: int) -> None:
        self._pictures: list[Image.Image] = [images.picture(i) for i in range(len(images))]
        self._labels = images.labels.tolist()
        self._transform = create_transform(
            size,
            is_training=True,
            auto_augment=DEIT_AUGMENTATION.rand_augment,
            interpolation="bicubic",
            hflip=DEIT_AUGMENTATION.flip,
            re_prob=DEIT_AUGMENTATION.erasing,
            re_mode="pixel",
        )
        for step in self._transform.transforms:
            if isinstance(step, RandAugment):
                _posterize_at_least_one_bit(step)

    def __len__(self) -> int:
        return BATCHES * len(self._pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index %= len(self._pictures)
        return self._transform(self._pictures[index]), self._labels[index]


def _posterize_at_least_one_bit(policy: RandAugment) -> None:
    """timm's strongest posterisation keeps 0 bits, which current Pillow rejects."""
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = functools.partial(_one_bit, operation.level_fn)


def _one_bit(bits: Callable[[float, dict], tuple[int]], level: float, settings: dict) -> tuple[int]:
    return (max(1, bits(level, settings)[0]),)


def _moments(batches: Iterator[Tensor]) -> Tensor:
    """(2, 3): 1 + mean, and standard deviation, of each channel of the normalised pixels."""
    means = [torch.stack([1 + x.mean((0, 2, 3)), x.std((0, 2, 3))]) for x in batches]
    return torch.stack(means).mean(0)


def _through(batches: Callable[[], Iterator[Tensor]]) -> Callable[[], None]:
    def run() -> None:
        for _ in batches():
            pass

    return run
