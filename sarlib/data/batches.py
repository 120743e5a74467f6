"""Batches for training and for evaluation, from the device, from memory or from files.

A training batch is a pure function of (seed, epoch, step): not of what ran before, the number of workers, the device or the
number of ranks. That is what makes an interrupted run resumable and a run on several GPUs comparable with one on one GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sarlib.config import Augmentation, ConfigError
from sarlib.data import augment, sources, streams
from sarlib.data.images import Images
from sarlib.data.pictures import AugmentedPictures, WholePictures
from sarlib.data.pieces import in_pieces
from sarlib.data.placement import fresh, place

#: Bytes of float32 that a core augments at a time: few enough to stay in its cache, enough to be worth the calls.
_PIECE = 2**22

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
        """Rows of the global batch this rank prepares, and where among them its own images and everybody's mixing partners are."""
        size = self._batch // world_size
        own, other = torch.arange(rank * size, (rank + 1) * size), augment.partners(self._batch)
        mixed = self._augmentation.mixup > 0 or self._augmentation.cutmix > 0
        rows = torch.unique(torch.cat([own, other[own]])) if mixed else own
        first = int(torch.searchsorted(rows, own[0]))
        return rows, slice(first, first + size), torch.searchsorted(rows, other[rows]).to(self._device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, start + 1, ... of an epoch, on the device: normalised x (B, 3, S, S), target (B, classes)."""
        order = torch.randperm(len(self._images), generator=_generator(_ORDER, self._seed, epoch, 0))
        batches = [order[step * self._batch :][: self._batch][self._rows] for step in range(start, self.steps_per_epoch)]
        for step, index, shown in zip(range(start, self.steps_per_epoch), batches, self._shown(epoch, batches)):
            generator = _generator(_BATCH, self._seed, epoch, step)
            plan = augment.draw(self._batch, augmentation=self._augmentation, size=self._size, generator=generator)
            yield self._finish(shown, self._labels[place(index, self._device)], plan.rows(self._rows))

    def _shown(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Callable[[slice], Tensor]]:
        """For each batch what gives a piece of it: (n, 3, S, S) uint8 on the device."""
        if self.source == "device":
            for index in batches:
                index = place(index, self._device)
                yield lambda piece, index=index: self._pixels.index_select(0, index[piece])
            return
        if self.source == "memory":
            stream = streams.from_memory(self._pixels, batches, device=self._device)
        else:
            seeded = [[(i, _seed(_PICTURE, self._seed, epoch, i)) for i in index.tolist()] for index in batches]
            stream = streams.from_files(self._pictures, seeded, workers=self._workers, device=self._device)
        for pixels in stream:
            yield pixels.__getitem__

    def _finish(self, shown: Callable[[slice], Tensor], labels: Tensor, plan: augment.Plan) -> tuple[Tensor, Tensor]:
        n, classes = len(labels), len(self._images.classes)
        x = fresh((n, 3, self._size, self._size), device=self._device)
        target = fresh((n, classes), device=self._device)

        def finish(piece: slice) -> None:
            # Both images of a pair are among the rows, or none, and pieces are even: partners are in one piece.
            other = self._other[piece] - piece.start
            part = plan.rows(piece)
            augment.apply(shown(piece), part, resized=self._augmentation.crop == "resized", other=other, out=x[piece])
            soft = augment.soft_labels(labels[piece], classes=classes, smoothing=self._augmentation.label_smoothing)
            target[piece] = soft if plan.mixing is None else augment.mix_labels(soft, other, plan.mixing)

        if self._device.type == "cpu":
            in_pieces(finish, n, step=max(2, _PIECE // (4 * x[0].numel()) // 2 * 2))
        else:
            finish(slice(0, n))
        return x[self._own], target[self._own]


def evaluation_batches(
    images: Images, *, batch_size: int, image_size: int, device: torch.device | str, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, unaugmented: x (B, 3, S, S) float32 normalised on the device, and its indices (B,) int64
    on the CPU.

    Files are shown as `Images.view` shows them. Raises `ConfigError` if images in memory are not image_size x image_size.
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
