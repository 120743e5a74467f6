"""A class for each pixel: cross entropy of a semantic FPN's logits, and mean intersection over union."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sarlib.config import require
from sarlib.data import augment
from sarlib.data.images import Images, central_view, to_device
from sarlib.data.loader import Batch, TrainBatches, in_memory_if_small
from sarlib.data.voc import BACKGROUND, VOID
from sarlib.run import Run
from sarlib.tasks.on_vitdet import OnViTDet

WIDTH = 0.5  # channels of the head, of the pyramid's: 128 of 256 as published


class LabelMapBatches(TrainBatches):
    """Batches of images and of the classes of their pixels, (B, S, S) uint8, which are cropped and flipped together."""

    targets_move = True

    def __init__(self, images: Images, *, image_size: int, **rest: Any) -> None:
        super().__init__(in_memory_if_small(images, image_size), image_size=image_size, **rest)
        self._labels = torch.stack([label_map(images, index, image_size) for index in range(len(images))])

    def _with_targets(self, images: Tensor, index: Tensor, plan: augment.Plan) -> Batch:
        labels = to_device(self._labels[index], self._device)[:, None]
        labels = augment.crop_and_flip(labels, plan.to(self._device), mode="nearest")[:, 0].to(torch.uint8)
        return Batch(images[self._own], labels[self._own])


class Segmentation(OnViTDet):
    """Classes of pixels: 0 is background, 1 + i the i-th class of the set. Images are seen as squares and scored at
    their own size.

    The loss is the cross entropy in nats, a mean over all pixels of a batch to which void ones add nothing: so it is the mean
    of what equal parts of the batch give. Metrics: miou and pixel, both in % (`scores`).
    """

    own_loss = "cross entropy"
    batch_type = LabelMapBatches

    def __init__(self, run: Run, classes: int) -> None:
        super().__init__(run, classes)
        self.classes = 1 + classes
        self.head = SemanticFPN(run.task.channels, self.classes)

    def logits(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) -> (B, 1 + classes, H, W) float32."""
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=pixels.is_cuda):
            logits = self.head(self.model(pixels))
        return F.interpolate(logits.float(), size=pixels.shape[-2:], mode="bilinear", align_corners=False)

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """pixels (B, 3, H, W), targets (B, H, W) uint8 -> losses (1,)."""
        each = F.cross_entropy(self.logits(pixels), targets.long(), ignore_index=VOID, reduction="none")
        return each.mean()[None]

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, Tensor]:
        square = (images, image_size, image_size)
        return torch.rand(images, 3, image_size, image_size), torch.zeros(square, dtype=torch.uint8)

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        counts = []
        for logits, index in zip(self.logits(pixels), indices.tolist(), strict=True):
            truth = label_map(images, index).to(pixels.device)
            found = F.interpolate(logits[None], size=truth.shape, mode="bilinear", align_corners=False)[0].argmax(0)
            counts.append(confusion(truth, found, classes=self.classes))
        return {"confusion": torch.stack(counts)}

    def summarize(self, measured: dict[str, Tensor]) -> dict[str, float]:
        return scores(measured["confusion"].sum(0))


class SemanticFPN(nn.Module):
    """The semantic branch of Kirillov et al. (2019, arXiv:1901.02446, Figure 3): levels of the pyramid (B, channels, h, w) by
    name -> logits (B, classes, h, w) at the size of p2.

    Each level is brought to that size by stages of a 3 x 3 convolution, group norm, ReLU and 2 x bilinear upsampling, p2 by one
    stage without it; their sum goes through a 1 x 1 convolution.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = max(1, int(channels * WIDTH))
        self.levels = nn.ModuleDict(
            {name: _upsampled(channels, width, times) for times, name in enumerate(("p2", "p3", "p4", "p5"))}
        )
        self.classes = nn.Conv2d(width, classes, 1)

    def forward(self, levels: dict[str, Tensor]) -> Tensor:
        return self.classes(sum(stages(levels[name]) for name, stages in self.levels.items()))


def _upsampled(channels: int, width: int, times: int) -> nn.Sequential:
    stages = []
    for stage in range(max(1, times)):
        stages += [
            nn.Conv2d(width if stage else channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(width, 32), width),
            nn.ReLU(),
        ]
        stages += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)] * bool(times)
    return nn.Sequential(*stages)


def label_map(images: Images, index: int, size: int | None = None) -> Tensor:
    """The class of each pixel of image `index` at its own size, or as `view` shows it at `size` px, (H, W) uint8.

    Of the pets all breeds are one class. `ConfigError` for images without masks, and for a mask that does not decode or holds
    what is no class.
    """
    if images.annotations is None:
        require(images.masks is not None, "these images have no masks: choose a set with objects")
        return (images.masks[index] * (1 + images.mask_labels[index])[:, None, None]).amax(0).to(torch.uint8)
    classes, _ = images.annotations[index].maps()
    if images.annotations[index].trimap_of is not None:
        classes = np.where((classes == BACKGROUND) | (classes == VOID), classes, 1)
    if size is not None:
        nearest = Image.Resampling.NEAREST
        classes = np.array(central_view(Image.fromarray(classes), size, crop=images.crop, resample=nearest))
    return torch.from_numpy(classes)


def confusion(truth: Tensor, found: Tensor, *, classes: int) -> Tensor:
    """How many pixels of each class (rows, `truth`) were given which (columns, `found`), those that are not void.

    truth, found: integers of one shape. Returns (classes, classes) int64.
    """
    counted = truth != VOID
    pairs = truth[counted].long() * classes + found[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def scores(confusion: Tensor) -> dict[str, float]:
    """From the summed counts (classes, classes) of a test set, in %.

    miou: intersection over union, a mean over classes; one that neither truth nor prediction has is left out. pixel: the share
    of the pixels that have the right class.
    """
    counts = confusion.double()
    right, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    there = union > 0
    return {"miou": 100 * (right[there] / union[there]).mean().item(), "pixel": 100 * (right.sum() / counts.sum()).item()}
