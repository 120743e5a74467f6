"""Mean average precision of detected boxes: Pascal VOC's, 11-point and as an area, and COCO's.

Detections are (N, D, 6) and objects (N, M, 6), float, a row an image: x0 y0 x1 y1 (ends exclusive), then score and class of a
detection, class and *difficult* (0 or 1) of an object. Where there is none the class is -1. Torch's tensors or numpy's arrays.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike

from sarlib.config import require

#: What COCO's metric needs beside sarlib.
NEEDS = ("torchmetrics", "faster_coco_eval")
INSTALL = "COCO's mAP needs torchmetrics and faster-coco-eval: pip install 'sarlib[detection]'"


def voc(detections: ArrayLike, objects: ArrayLike) -> dict[str, float]:
    """map07 (11-point, VOC 2007's) and map50 (area, VOC 2010's), in %, at an overlap of .5: means over classes with objects.

    By the devkit's rule (Everingham et al., 2010, section 4.2): in the order of their scores detections take the object of
    their class that they overlap most with; one that takes an object again is wrong, and one that takes a difficult object
    counts neither for nor against. A class whose objects are all difficult has none. NaN where no class has any.
    """
    detections, objects = np.asarray(detections, dtype=np.float64), np.asarray(objects, dtype=np.float64)
    kinds = np.unique(objects[(objects[..., 4] >= 0) & (objects[..., 5] == 0), 4])
    found = np.array([_average_precisions(detections, objects, kind) for kind in kinds]).reshape(-1, 2)
    eleven, area = found.mean(0) if len(kinds) else (np.nan, np.nan)
    return {"map07": 100.0 * float(eleven), "map50": 100.0 * float(area)}


def _average_precisions(detections: np.ndarray, objects: np.ndarray, kind: float) -> tuple[float, float]:
    """Of one class: the 11-point figure and the area under the precision-recall curve, 0 to 1."""
    own = objects[..., 4] == kind
    positives = int((own & (objects[..., 5] == 0)).sum())
    image, place = np.nonzero(detections[..., 5] == kind)
    order = np.argsort(-detections[image, place, 4], kind="stable")
    image, boxes = image[order], detections[image, place, :4][order]
    overlap = np.where(own[image], _overlap(boxes[:, None], objects[image, :, :4]), -1.0)
    match = overlap.argmax(1)
    hit = overlap.max(1, initial=-1.0) >= 0.5
    counted = ~(hit & (objects[image, match, 5] > 0))
    right = np.zeros(len(boxes), dtype=np.int64)
    _, first = np.unique((image * objects.shape[1] + match)[hit], return_index=True)  # the first of each object's detections
    right[np.flatnonzero(hit)[first]] = 1
    true = right[counted].cumsum()
    precision = true / np.arange(1, len(true) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the highest precision at this recall or a larger one
    eleven = [best[10 * true >= tenth * positives].max(initial=0.0) for tenth in range(11)]  # recall >= .0, .1, … 1 in integers
    return float(np.mean(eleven)), float(best[right[counted] == 1].sum() / positives)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4), 0 where one is empty."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    both = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return np.divide(shared, both, out=np.zeros_like(shared), where=both > 0)


def has_coco() -> bool:
    return all(find_spec(name) for name in NEEDS)


def coco(detections: ArrayLike, objects: ArrayLike) -> float:
    """COCO's mAP, the mean over overlaps .50, .55, … .95, in %. It knows nothing difficult: such objects count like others.

    `ConfigError` without the extra `detection`.
    """
    require(has_coco(), INSTALL)
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    detections, objects = torch.as_tensor(detections), torch.as_tensor(objects)
    found = [each[each[:, 5] >= 0] for each in detections]
    there = [each[each[:, 4] >= 0] for each in objects]
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(
        [{"boxes": each[:, :4], "scores": each[:, 4], "labels": each[:, 5].long()} for each in found],
        [{"boxes": each[:, :4], "labels": each[:, 4].long()} for each in there],
    )
    return 100.0 * metric.compute()["map"].item()
