"""VOC's metric by hand, by a literal transcription of the devkit's rule, and by torchmetrics where the rules coincide."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from sarlib.config import ConfigError
from sarlib.tasks import average_precision
from sarlib.tasks.average_precision import NEEDS, coco, voc

BOX, OTHER, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)


def detections(*images: list[tuple]) -> np.ndarray:
    """Of each image [(box, score, class)]."""
    return padded([[(*box, score, kind) for box, score, kind in image] for image in images])


def objects(*images: list[tuple]) -> np.ndarray:
    """Of each image [(box, class, difficult)]."""
    return padded([[(*box, kind, difficult) for box, kind, difficult in image] for image in images])


def padded(images: list[list[tuple]]) -> np.ndarray:
    found = np.full((len(images), 1 + max(map(len, images)), 6), -1.0)
    for row, image in zip(found, images, strict=True):
        row[: len(image)] = np.array(image).reshape(-1, 6)
    return found


def both(found: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    measured = voc(found, there)
    return measured["map07"], measured["map50"]


def test_two_detections_of_a_difficult_object_are_neither_right_nor_wrong() -> None:
    there = objects([(BOX, 0, 1), (FAR, 0, 0)])
    assert both(detections([(BOX, 0.9, 0), (OTHER, 0.8, 0), (FAR, 0.7, 0)]), there) == (100, 100)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    there = objects([(BOX, 0, 0), (FAR, 0, 0)])
    assert both(detections([(BOX, 0.9, 0), (FAR, 0.8, 0), (OTHER, 0.7, 0)]), there) == (100, 100), "after all are found"
    # right, wrong, right: precision 1 up to a recall of a half, 2 / 3 above: six and five of eleven points
    found = detections([(BOX, 0.9, 0), (OTHER, 0.8, 0), (FAR, 0.7, 0)])
    assert both(found, there) == pytest.approx((100 * (6 + 5 * 2 / 3) / 11, 100 * (1 / 2 + 1 / 2 * 2 / 3)))


def test_the_better_score_takes_the_object_also_where_it_comes_later_in_the_list() -> None:
    there = objects([(BOX, 0, 0)])
    assert both(detections([(FAR, 0.2, 0), (BOX, 0.9, 0)]), there) == (100, 100)
    assert both(detections([(FAR, 0.9, 0), (BOX, 0.2, 0)]), there) == (50, 50)


def test_a_class_without_objects_is_skipped_and_one_of_difficult_ones_too() -> None:
    there = objects([(BOX, 0, 0), (FAR, 2, 1)])
    assert both(detections([(BOX, 0.9, 0), (FAR, 0.9, 1), (FAR, 0.9, 2)]), there) == (100, 100)
    assert all(np.isnan(both(detections([(FAR, 0.9, 2)]), objects([(FAR, 2, 1)]))))


def test_classes_count_alike_however_many_objects_they_have() -> None:
    there = objects([(BOX, 0, 0)], [(BOX, 0, 0)], [(FAR, 1, 0)])
    assert both(detections([(BOX, 0.9, 0)], [(BOX, 0.9, 0)], []), there) == (50, 50)


@pytest.mark.parametrize(
    ("right", "of", "eleven", "area"),
    [(3, 10, 4 / 11, 0.3), (7, 10, 8 / 11, 0.7), (1, 3, 4 / 11, 1 / 3), (0, 4, 0, 0), (4, 4, 1, 1)],
)
def test_recalls_at_the_eleven_points_are_counted_in_whole_numbers(right: int, of: int, eleven: float, area: float) -> None:
    """.3 and .7 are no sums of tenths in floating point."""
    there = objects(*[[(BOX, 0, 0)]] * of)
    found = detections(*[[(BOX, 0.9, 0)]] * right, *[[]] * (of - right))
    assert both(found, there) == pytest.approx((100 * eleven, 100 * area))


def test_an_object_of_another_image_or_class_is_not_found_and_half_an_overlap_suffices() -> None:
    assert both(detections([], [(BOX, 0.9, 0)]), objects([(BOX, 0, 0)], [])) == (0, 0)
    assert both(detections([(BOX, 0.9, 1)]), objects([(BOX, 0, 0)])) == (0, 0)
    assert both(detections([((0, 0, 10, 5), 0.9, 0)]), objects([(BOX, 0, 0)])) == (100, 100)
    assert both(detections([((0, 0, 10, 4.9), 0.9, 0)]), objects([(BOX, 0, 0)])) == (0, 0)


def devkit(found: np.ndarray, there: np.ndarray, kind: int) -> tuple[float, float]:
    """The devkit's loop over the detections of one class, as its documentation describes it."""
    ranked = sorted(
        ((row[4], i, row[:4]) for i, image in enumerate(found) for row in image if row[5] == kind), key=lambda one: -one[0]
    )
    taken, right, wrong = set(), [], []
    positives = sum(row[4] == kind and row[5] == 0 for image in there for row in image)
    for _, i, box in ranked:
        best, match = -np.inf, None
        for j, row in enumerate(there[i]):
            if row[4] == kind:
                wide = min(box[2], row[2]) - max(box[0], row[0])
                high = min(box[3], row[3]) - max(box[1], row[1])
                shared = max(wide, 0) * max(high, 0)
                area = (box[2] - box[0]) * (box[3] - box[1]) + (row[2] - row[0]) * (row[3] - row[1]) - shared
                if shared / area > best:
                    best, match = shared / area, j
        hit = best >= 0.5
        difficult = hit and there[i][match][5] == 1
        right.append(hit and not difficult and (i, match) not in taken)
        wrong.append(not right[-1] and not difficult)
        taken |= {(i, match)} if right[-1] else set()
    true, false = np.cumsum(right), np.cumsum(wrong)
    recall, precision = true / positives, true / np.maximum(true + false, 1)
    eleven = np.mean([max([p for r, p in zip(recall, precision) if r >= t - 1e-9], default=0) for t in np.arange(11) / 10])
    area, before = 0.0, 0.0
    for i, r in enumerate(recall):
        area += (r - before) * max(precision[i:])
        before = r
    return eleven, area


def scattered(seed: int, *, difficult: float) -> tuple[np.ndarray, np.ndarray]:
    """Objects on a raster, so that none overlap, each detected once or not, away from it by some pixels; and false alarms."""
    rng = np.random.default_rng(seed)
    found, there = [], []
    for _ in range(12):
        cells = rng.permutation(9)[: rng.integers(0, 6)]
        corners = np.stack([cells % 3, cells // 3], 1) * 40.0
        kinds = rng.integers(0, 3, len(cells))
        boxes = np.concatenate([corners, corners + rng.uniform(15, 30, (len(cells), 2))], 1)
        there.append([(box, kind, float(rng.random() < difficult)) for box, kind in zip(boxes, kinds)])
        seen = [(box + rng.normal(0, 3, 4), rng.random(), kind) for box, kind in zip(boxes, kinds) if rng.random() < 0.8]
        alarms = [((130.0, 130.0, 150.0, 150.0), rng.random(), kind) for kind in range(3) if rng.random() < 0.3]
        found.append(seen + alarms)
    return detections(*found), objects(*there)


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_devkits_rule(seed: int) -> None:
    """Also with difficult objects, and with every detection a second time, a little worse."""
    found, there = scattered(seed, difficult=0.3)
    again = found + (found[..., 5:] >= 0) * np.array([0, 0, 0, 0, -0.01, 0])
    found = np.concatenate([found, again], 1)
    eleven, area = np.mean([devkit(found, there, kind) for kind in range(3)], 0)
    assert both(found, there) == pytest.approx((100 * eleven, 100 * area))


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_torchmetrics_where_the_rules_coincide(seed: int) -> None:
    """Objects apart, none difficult, no duplicates; recalls are not at the eleven points' very values."""
    detection = pytest.importorskip("torchmetrics.detection")
    pytest.importorskip("faster_coco_eval")
    import torch

    found, there = (torch.from_numpy(each) for each in scattered(seed, difficult=0))
    settings = {"iou_thresholds": [0.5], "rec_thresholds": [tenth / 10 for tenth in range(11)]}
    metric = detection.MeanAveragePrecision(backend="faster_coco_eval", **settings)
    for image, truth in zip(found, there):
        image, truth = image[image[:, 5] >= 0], truth[truth[:, 4] >= 0]
        metric.update(
            [{"boxes": image[:, :4], "scores": image[:, 4], "labels": image[:, 5].long()}],
            [{"boxes": truth[:, :4], "labels": truth[:, 4].long()}],
        )
    assert voc(found, there)["map07"] == pytest.approx(100 * metric.compute()["map"].item(), abs=1e-4)


def test_the_truth_scores_a_hundred_by_every_metric() -> None:
    _, there = scattered(0, difficult=0)
    found = there.copy()
    found[..., 4], found[..., 5] = 1.0, there[..., 4]
    assert both(found, there) == (100, 100)
    for name in NEEDS:
        pytest.importorskip(name)
    assert coco(found, there) == pytest.approx(100)
    assert coco(found + np.array([4, 0, 4, 0, 0, 0]), there) < 60


def test_without_the_extra_a_line_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_spec
    monkeypatch.setattr(average_precision, "find_spec", lambda name: None if name == NEEDS[1] else real(name))
    with pytest.raises(ConfigError, match=r"^COCO's mAP needs .* pip install 'sarlib\[detection\]'$"):
        coco(*scattered(0, difficult=0))


def test_importing_the_metric_imports_neither_torch_nor_torchmetrics() -> None:
    code = (
        "import sarlib.tasks.average_precision, sys; print([name for name in ('torch', 'torchmetrics') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
