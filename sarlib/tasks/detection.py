"""Boxes around objects: torchvision's Faster R-CNN on ViTDet's backbone (Table 5), with VOC's and COCO's metrics."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from sarlib.config import require
from sarlib.data.augment import Plan
from sarlib.data.images import Images, to_device
from sarlib.data.loader import TrainBatches, in_memory_if_small
from sarlib.run import Run
from sarlib.tasks import average_precision
from sarlib.tasks.on_vitdet import OnViTDet

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
    n = len(indices)
    found = Boxes(torch.zeros(n, MOST, 4), torch.full((n, MOST), -1), torch.zeros(n, MOST, dtype=torch.bool))
    for row, index in enumerate(indices.tolist()):
        objects = images.objects(index, size)
        there = len(objects.boxes)
        require(there <= MOST, f"image {index} has {there} boxes, more than {MOST}: leave it out")
        for part, values in zip(found, (objects.boxes, objects.labels, objects.difficult)):
            part[row, :there] = values
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
    """Batches of images, boxes (B, MOST, 4) and labels (B, MOST), -1 where there is none. `ConfigError` if none has a box."""

    targets_move = True

    def __init__(self, images: Images, *, image_size: int, **rest: Any) -> None:
        super().__init__(in_memory_if_small(images, image_size), image_size=image_size, **rest)
        self._boxes, self._labels, _ = padded(images, torch.arange(len(images)), size=image_size)
        require(bool((self._labels >= 0).any()), "no training image has a box: choose a set with boxes")

    def _with_targets(self, images: Tensor, index: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        found = moved(self._boxes[index], self._labels[index], plan, size=self._size)
        return images[self._own], *(to_device(part[self._own], self._device) for part in found)


class Detection(OnViTDet):
    """Faster R-CNN's four losses, summed: objectness and boxes of the proposals, classes and boxes of the regions.

    A batch is images, boxes (B, M, 4) and labels (B, M), -1 where there is none. torchvision's two stages are called without
    their frame, which would normalise and resize images that are normalised and of one size.
    Metrics in %: map07, map50 and, with the extra `detection`, map (`sarlib.tasks.average_precision`).
    """

    own_loss = "detection loss"
    batch_type = BoxBatches

    def __init__(self, run: Run, classes: int) -> None:
        super().__init__(run, classes)
        task, patch = run.task, run.model.patch_size
        levels, side = ["p2", "p3", "p4", "p5"], task.region_size
        anchors = AnchorGenerator(tuple((size,) for size in task.anchors), ((0.5, 1.0, 2.0),) * len(task.anchors))
        shape, convolutions = (task.channels, side, side), [task.channels] * task.convolutions
        # A box of 14 tokens a side is looked up on the tokens' own level, as one of 224 px is at a stride of 16 px.
        level = {"canonical_scale": 14 * patch, "canonical_level": round(math.log2(patch))}
        frame = FasterRCNN(
            SimpleNamespace(out_channels=task.channels),
            rpn_anchor_generator=anchors,
            rpn_head=RPNHead(task.channels, anchors.num_anchors_per_location()[0], conv_depth=2),
            rpn_pre_nms_top_n_train=2 * task.proposals,
            rpn_pre_nms_top_n_test=2 * task.proposals,
            rpn_post_nms_top_n_train=task.proposals,
            rpn_post_nms_top_n_test=task.proposals,
            box_roi_pool=MultiScaleRoIAlign(levels, side, 2, **level),
            box_head=FastRCNNConvFCHead(shape, convolutions, [*task.hidden], norm_layer=LayerNorm2d),
            box_predictor=FastRCNNPredictor(task.hidden[-1], 1 + classes),
            box_batch_size_per_image=task.regions,
            box_detections_per_img=MOST,
        )
        self.rpn, self.roi_heads, self.levels_of_proposals = frame.rpn, frame.roi_heads, len(task.anchors)

    def forward(self, pixels: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """pixels (B, 3, S, S), boxes (B, M, 4) float32, labels (B, M) int64 -> the sum of the four losses (1,)."""
        there = labels >= 0
        targets = [{"boxes": b[t], "labels": 1 + k[t]} for b, k, t in zip(boxes, labels, there)]  # 0 is the background
        _, losses = self._stages(self.levels(pixels), pixels, targets)
        return torch.stack([*losses.values()]).sum()[None]

    @torch.compiler.disable  # loops over images, and as many boxes as there happen to be
    def _stages(self, levels: dict[str, Tensor], pixels: Tensor, targets: Any = None) -> tuple[list[dict[str, Tensor]], dict]:
        """Detections of each image in evaluation mode, losses in training mode."""
        sizes = [tuple(pixels.shape[2:])] * len(pixels)
        proposing = dict(list(levels.items())[: self.levels_of_proposals])
        proposals, losses = self.rpn(ImageList(pixels, sizes), proposing, targets)
        found, more = self.roi_heads(levels, proposals, sizes, targets)
        return found, losses | more

    def batches(self, images: Images, run: Run, **placement: Any) -> BoxBatches:
        if not average_precision.has_coco():
            print(f"{average_precision.INSTALL} (left out here)", file=sys.stderr)
        return super().batches(images, run, **placement)

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, ...]:
        box = torch.tensor([0.25, 0.25, 0.75, 0.75]) * image_size
        return torch.rand(images, 3, image_size, image_size), box.expand(images, 1, 4), torch.zeros(images, 1).long()

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        """detections and objects (B, MOST, 6), as `sarlib.tasks.average_precision` takes them."""
        found, _ = self._stages(self.levels(pixels), pixels)
        detections = pixels.new_full((len(pixels), MOST, 6), -1.0)
        for row, one in zip(detections, found):
            row[: len(one["scores"])] = torch.cat([one["boxes"], one["scores"][:, None], one["labels"][:, None] - 1.0], 1)
        boxes, labels, difficult = padded(images, indices, size=pixels.shape[-1])
        objects = torch.cat([boxes, labels[..., None], difficult[..., None]], -1)
        return {"detections": detections, "objects": objects}

    def summarize(self, measured: dict[str, Tensor]) -> dict[str, float]:
        found = average_precision.voc(**measured)
        return found | ({"map": average_precision.coco(**measured)} if average_precision.has_coco() else {})
