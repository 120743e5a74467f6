"""Several classes an image: binary cross entropy on the presence of each, and mean average precision."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sarlib.config import require
from sarlib.data import augment
from sarlib.data.images import Images, to_device
from sarlib.data.loader import Batch, TrainBatches, in_memory_if_small
from sarlib.tasks.masks import map_metrics
from sarlib.tasks.task import Task


class PresenceBatches(TrainBatches):
    """Batches of images and of the `presence` of their classes; mixup mixes both."""

    def __init__(self, images: Images, *, image_size: int, **rest: Any) -> None:
        super().__init__(in_memory_if_small(images, image_size), image_size=image_size, **rest)
        self._presence = presence(images, torch.arange(len(images)))

    def _with_targets(self, images: Tensor, index: Tensor, plan: augment.Plan) -> Batch:
        targets = augment.mixed_labels(self._presence[index], plan.mixing)
        return Batch(images[self._own], to_device(targets[self._own], self._device))


class MultiLabel(Task):
    """Binary cross entropy of the head's logits with the presence of each class, in nats: the mean over classes and images.

    Metrics: mlmap, the mean average precision in % (`mean_average_precision`); loss; and `map_metrics`.
    """

    own_loss = "binary cross entropy"
    batch_type = PresenceBatches

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """pixels (B, 3, H, W), targets (B, classes) in 0..1, NaN where unknown -> losses (1 + regularizers,)."""
        output = self.output(pixels, tokens=self.tokens)
        return self.with_regularizers(binary_cross_entropy(output.logits.float(), targets).mean(), output)

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, Tensor]:
        return torch.rand(images, 3, image_size, image_size), torch.zeros(images, self.model.num_classes)

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        found = self.output(pixels)
        logits, targets = found.logits.float(), presence(images, indices).to(pixels.device)
        measured = {"scores": logits, "targets": targets, "loss": binary_cross_entropy(logits, targets).mean(1)}
        return measured | map_metrics(found.similarity, images, indices)

    def summarize(self, measured: dict[str, Tensor]) -> dict[str, float]:
        scores, targets, others = measured["scores"], measured["targets"], dict(measured)
        del others["scores"], others["targets"]
        return {"mlmap": mean_average_precision(scores, targets)} | super().summarize(others)


def presence(images: Images, indices: Tensor) -> Tensor:
    """Which classes the images[indices] show: (n, classes) float32, 1 or 0, whatever the number of objects.

    NaN for a class of which an image has *difficult* objects alone (Pascal VOC): it is neither learned nor scored there.
    """
    shown = torch.zeros(len(indices), len(images.classes))
    if images.annotations is None:
        require(images.mask_labels is not None, "these images have one label each: choose a set with objects")
        image, instance = (images.mask_labels[indices] >= 0).nonzero(as_tuple=True)
        shown[image, images.mask_labels[indices][image, instance]] = 1
        return shown
    for row, index in zip(shown, indices.tolist(), strict=True):
        one = images.annotations[index]
        labels, difficult = torch.tensor(one.labels).long(), torch.tensor(one.difficult).bool()
        row[labels] = torch.nan
        row[labels[~difficult]] = 1
    return shown


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, classes) in nats; 0 where the target is NaN."""
    loss = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return loss.where(~targets.isnan(), 0.0)


def mean_average_precision(scores: Tensor, targets: Tensor) -> float:
    """In %: the mean over classes of scikit-learn's average precision (the sum of precision x step in recall).

    scores, targets: (N, classes); NaN targets are left out, and so is a class without a positive. NaN if no class has one.
    """
    from sklearn.metrics import average_precision_score

    each = []
    for score, target in zip(scores.T, targets.T, strict=True):
        known = ~target.isnan()
        if target[known].any():
            each.append(average_precision_score(target[known], score[known]))
    return 100.0 * sum(each) / len(each) if each else float("nan")
