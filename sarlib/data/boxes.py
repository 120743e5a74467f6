"""Boxes beside images: padded to tensors, so that they go where images go, and moved as images are cropped and flipped."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sarlib.config import require
from sarlib.data.augment import Plan
from sarlib.data.cache import MEMORY_LIMIT
from sarlib.data.images import Images, in_memory, to_device
from sarlib.data.loader import TrainBatches

#: Boxes an image: as many as COCO's metric counts detections. (VOC's and COCO's images have fewer objects.)
MOST = 100


class Boxes(NamedTuple):
    """boxes: (n, MOST, 4) float32, x0 y0 x1 y1 in pixels of a square view, x1 and y1 exclusive. labels: (n, MOST) int64, -1
    where there is none. difficult: (n, MOST) bool."""

    boxes: Tensor
    labels: Tensor
    difficult: Tensor


def padded(images: Images, indices: Tensor, *, size: int) -> Boxes:
    """The boxes of images[indices] as `Images.view` shows them at `size` px; `ConfigError` for images without such a thing."""
    found = Boxes(
        torch.zeros(len(indices), MOST, 4),
        torch.full((len(indices), MOST), -1),
        torch.zeros(len(indices), MOST, dtype=torch.bool),
    )
    for row, index in enumerate(indices.tolist()):
        objects = images.objects(index, size)
        n = len(objects.boxes)
        require(n <= MOST, f"image {index} has {n} boxes, more than {MOST}: leave it out")
        for part, values in zip(found, (objects.boxes, objects.labels, objects.difficult)):
            part[row, :n] = values
    return found


def moved(boxes: Tensor, labels: Tensor, plan: Plan, *, size: int) -> tuple[Tensor, Tensor]:
    """boxes (n, M, 4) and labels (n, M) of images of `size` px after a plan's crop and flip, cut off at the image's borders.

    One of which less than a pixel a side is left gets the label -1: torchvision refuses boxes without extent.
    """
    if plan.window is not None:
        x, y, width, height = plan.window.float()[:, None].unbind(-1)
        boxes = (boxes - torch.stack([x, y, x, y], -1)) * (size / torch.stack([width, height, width, height], -1))
    if plan.flip is not None:
        x0, y0, x1, y1 = boxes.unbind(-1)
        boxes = torch.where(plan.flip[:, None, None], torch.stack([size - x1, y0, size - x0, y1], -1), boxes)
    boxes = boxes.clamp(0, size)
    return boxes, labels.where((boxes[..., 2:] - boxes[..., :2] >= 1).all(-1), -1)


class BoxBatches(TrainBatches):
    """Batches of images, boxes (B, MOST, 4) and labels (B, MOST), -1 where there is none; `ConfigError` if no image has a box.

    Images that are files are decoded once where that makes no more bytes than `MEMORY_LIMIT`.
    """

    targets_move = True

    def __init__(self, images: Images, *, image_size: int, **rest: Any) -> None:
        small = len(images) * 3 * image_size**2 <= MEMORY_LIMIT
        super().__init__(in_memory(images, image_size) if small else images, image_size=image_size, **rest)
        self._boxes, self._labels, _ = padded(images, torch.arange(len(images)), size=image_size)
        require(bool((self._labels >= 0).any()), "no training image has a box: choose a set with boxes")

    def _with_targets(self, images: Tensor, index: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        found = moved(self._boxes[index], self._labels[index], plan, size=self._size)
        return images[self._own], *(to_device(part[self._own], self._device) for part in found)
