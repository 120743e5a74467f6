"""Batches for training and for evaluation, from the device, from memory or from files.

A training batch is a pure function of (seed, epoch, step): not of what ran before, the number of workers, the device or the
number of ranks. That is what makes an interrupted run resumable and a run on several GPUs comparable with one on one GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sarlib.config import Augmentation, ConfigError
from sarlib.data import augment, sources, streams
from sarlib.data.images import Images
from sarlib.data.pictures import AugmentedPictures, WholePictures
from sarlib.data.placement import place

#: What of a batch is augmented at a time on a CPU, in bytes of float32: few enough to stay in its cache, many enough to keep its cores busy.
_PIECE = 2**23

_ORDER, _BATCH, _PICTURE = 0, 1, 2  # what a random stream is for


def _seed(purpose: int, seed: int, epoch: int, index: int) -> int:
    """63 bits that differ for every argument (a SeedSequence ignores trailing zeros: keep the length fixed)."""
    return int(np.random.SeedSequence((purpose, seed, epoch, index)).generate_state(1, np.uint64)[0] >> 1)


def _generator(purpose: int, seed: int, epoch: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(purpose, seed, epoch, index))


class TrainBatches:
    """Augmented, normalised batches of (images, soft labels), and the order they come in.

    `source` says where they come from (`sarlib.data.sources`): images on the device or in memory are augmented in batches on `device`;
    from files they go picture by picture through `workers` processes, and only erasing and mixing are left to the device. The last
    images of an epoch that fill no batch are dropped; a set smaller than a batch is one batch. With several ranks each yields its slice
    of the global batch of `batch_size` images.

    Raises `ConfigError` if images in memory are not image_size x image_size, ranks do not divide the batch, or a source is forced that
    the images cannot have; while iterating `TrainingError` if a worker dies.
    """

    def __init__(
        self,
        images: Images,
        *,
        augmentation: Augmentation,
        batch_size: int,
        image_size: int,
        seed: int,
        device: torch.device | str,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_size(images, image_size)
        self._batch = min(batch_size, len(images))
        if self._batch % world_size:
            raise ConfigError(f"a batch of {self._batch} images cannot be shared by {world_size} ranks: choose a multiple")
        self.steps_per_epoch = len(images) // self._batch
        self._images, self._seed, self._size, self._workers = images, seed, image_size, workers
        self._device = torch.device(device)
        self._labels = images.labels.to(self._device)
        self.source = sources.choose(images, device=self._device)
        by_picture = self.source == "files"
        self._pictures = AugmentedPictures(images, augmentation=augmentation, image_size=image_size) if by_picture else None
        self._pixels = images.pixels.to(self._device) if self.source == "device" else images.pixels
        # what is left to do in batches
        done = dict(crop="none", flip=0.0, color_jitter=0.0, rand_augment=None) if by_picture else {}
        self._augmentation = dataclasses.replace(augmentation, **done)
        self._rows, self._own, self._other = self._share(rank, world_size)

    def _share(self, rank: int, world_size: int) -> tuple[Tensor, slice, Tensor]:
        """Rows of the global batch this rank prepares, and where among them its own images and their mixing partners are."""
        size = self._batch // world_size
        own = torch.arange(rank * size, (rank + 1) * size)
        other = augment.partners(self._batch)[own]
        mixed = self._augmentation.mixup > 0 or self._augmentation.cutmix > 0
        rows = torch.unique(torch.cat([own, other])) if mixed else own
        first = int(torch.searchsorted(rows, own[0]))
        return rows, slice(first, first + size), torch.searchsorted(rows, other).to(self._device) if mixed else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, start + 1, ... of an epoch, on the device: normalised x (B, 3, S, S), target (B, classes)."""
        order = torch.randperm(len(self._images), generator=_generator(_ORDER, self._seed, epoch, 0))
        batches = [order[step * self._batch :][: self._batch][self._rows] for step in range(start, self.steps_per_epoch)]
        for step, index, source in zip(range(start, self.steps_per_epoch), batches, self._sources(epoch, batches)):
            generator = _generator(_BATCH, self._seed, epoch, step)
            plan = augment.draw(self._batch, augmentation=self._augmentation, size=self._size, generator=generator)
            yield self._finish(source, self._labels[place(index, self._device)], plan)

    def _sources(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """(rows, 3, S, S) uint8 on the device for each batch."""
        if self.source == "device":
            return (self._pixels[place(index, self._device)] for index in batches)
        if self.source == "memory":
            return streams.from_memory(self._pixels, batches, device=self._device)
        seeded = [[(i, _seed(_PICTURE, self._seed, epoch, i)) for i in index.tolist()] for index in batches]
        return streams.from_files(self._pictures, seeded, workers=self._workers, device=self._device)

    def _finish(self, pixels: Tensor, labels: Tensor, plan: augment.Plan) -> tuple[Tensor, Tensor]:
        x = self._augmented(pixels, plan.rows(self._rows))
        target = augment.soft_labels(labels, classes=len(self._images.classes), smoothing=self._augmentation.label_smoothing)
        if plan.mixing is None:
            return x, target
        share = plan.mixing.share
        x = augment.mix(x, own=self._own, other=self._other, mixing=plan.mixing)
        return x, target[self._own] * share + target[self._other] * (1 - share)

    def _augmented(self, pixels: Tensor, plan: augment.Plan) -> Tensor:
        resized = self._augmentation.crop == "resized"
        n = len(pixels)
        step = max(1, _PIECE // (4 * pixels[0].numel())) if pixels.device.type == "cpu" else n
        x = torch.empty(pixels.shape, device=pixels.device)
        for start in range(0, n, step):
            piece = slice(start, start + step)
            augment.apply(pixels[piece], plan.rows(piece), resized=resized, out=x[piece])
        return x


def evaluation_batches(
    images: Images, *, batch_size: int, image_size: int, device: torch.device | str, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, unaugmented: x (B, 3, S, S) float32 normalised on the device, and its indices (B,) int64
    on the CPU.

    Files are shown as `whole_view` shows them. Raises `ConfigError` if images in memory are not image_size x image_size.
    """
    _check_size(images, image_size)
    device = torch.device(device)
    batches = torch.arange(len(images)).split(batch_size)
    if images.files is None:
        shown = (place(images.pixels[index], device) for index in batches)
    else:
        pictures = WholePictures(images, image_size=image_size)
        shown = streams.from_files(pictures, [index.tolist() for index in batches], workers=workers, device=device)
    for index, pixels in zip(batches, shown):
        yield augment.normalise(pixels), index


def _check_size(images: Images, size: int) -> None:
    if images.pixels is not None and images.image_size != (size, size):
        height, width = images.image_size
        raise ConfigError(f"images in memory are {height} x {width} px, the run wants {size} x {size}")
