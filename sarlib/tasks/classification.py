"""One class an image: cross entropy with soft labels, and accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sarlib.data.images import Images
from sarlib.tasks.masks import map_metrics
from sarlib.tasks.task import Task


class Classification(Task):
    """Cross entropy of the head's logits with target probabilities, in nats.

    Metrics: top1 and, with more than five classes, top5 in %; loss, the cross entropy with the true class; and `map_metrics`.
    """

    own_loss = "cross entropy"

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """pixels (B, 3, H, W), of clips (B, 3 T, H, W), targets (B, classes) that sum to 1 -> losses (1 + regularizers,)."""
        output = self.output(pixels, tokens=self.tokens)
        return self.with_regularizers(F.cross_entropy(output.logits.float(), targets), output)

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, Tensor]:
        classes = self.model.num_classes
        channels = 3 * getattr(self.model, "frames", 1)
        return torch.rand(images, channels, image_size, image_size), torch.full((images, classes), 1 / classes)

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        found = self.output(pixels)
        logits, labels = found.logits.float(), images.labels[indices].to(pixels.device)
        measured = {"top1": 100.0 * (logits.argmax(1) == labels)}
        if logits.shape[1] > 5:
            measured["top5"] = 100.0 * (logits.topk(5).indices == labels[:, None]).any(1)
        measured["loss"] = F.cross_entropy(logits, labels, reduction="none")
        return measured | map_metrics(found.similarity, images, indices)
