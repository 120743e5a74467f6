"""Boxes around objects: torchvision's Faster R-CNN on ViTDet's backbone (Table 5), with VOC's and COCO's metrics."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from sarlib.data.boxes import MOST, BoxBatches, padded
from sarlib.data.images import Images
from sarlib.run import Run
from sarlib.tasks import average_precision
from sarlib.tasks.on_vitdet import OnViTDet


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
