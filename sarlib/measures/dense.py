"""What fine-tuned networks find in images: classes of pixels, and boxes, for pages that draw them without the weights."""

from __future__ import annotations

from typing import Any

import torch

from sarlib.data.loader import evaluation_batches
from sarlib.measures.finished import Finished
from sarlib.run import Measurement


def segments(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """The class that each pixel of a square view is given, (n, S, S), 0 the background."""
    images = finished.images(wanted)
    task = finished.task(classes=len(images.classes))
    with torch.no_grad():
        found = [task.logits(pixels).argmax(1) for pixels, _ in evaluation_batches(images, **finished.shown(wanted))]
    return {"metrics": {}, "arrays": {"classes": torch.cat(found).tolist()}}


def boxes(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """The boxes found in each image, [x0, y0, x1, y1, score, class], the best first."""
    images = finished.images(wanted)
    measured = finished.task(classes=len(images.classes)).measure(images, **finished.shown(wanted))
    found = measured["detections"].round(decimals=2)
    return {"metrics": {}, "arrays": {"boxes": [[row.tolist() for row in image if row[5] >= 0] for image in found]}}
