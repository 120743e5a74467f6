"""Boxes go where the pixels go: against boxes around flipped masks, and around what is painted on an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from voc_layout import write_year

from sarlib import data
from sarlib.config import Augmentation, ConfigError, Data
from sarlib.data import augment, cache, shapes
from sarlib.data.augment import Plan
from sarlib.data.images import Images
from sarlib.tasks import detection
from sarlib.tasks.detection import MOST, BoxBatches, moved, padded

FLIP = Augmentation(flip=1.0)


def objects(n: int = 12) -> Images:
    return shapes.generate("object", n, image_size=32)


def batches(images: Images, augmentation: Augmentation = FLIP, *, size: int = 32, **settings: int) -> BoxBatches:
    settings = {"batch_size": 4, "seed": 0} | settings
    return BoxBatches(images, augmentation=augmentation, image_size=size, device="cpu", **settings)


def around(masks: Tensor) -> list[list[int]]:
    """[x0, y0, x1, y1] around each mask that is not empty, counted pixel by pixel."""
    places = [mask.nonzero() for mask in masks if mask.any()]
    return [[*at.amin(0).flip(0).tolist(), *(1 + at.amax(0).flip(0)).tolist()] for at in places]


def test_flipped_boxes_are_those_of_the_flipped_masks() -> None:
    images = objects()
    whole = batches(images, batch_size=12)
    (shown, found, labels) = next(whole.epoch(0))
    plain = augment.normalise(images.pixels.flip(3))
    for picture, box, label in zip(shown, found, labels, strict=True):
        (index,) = [i for i, one in enumerate(plain) if torch.equal(one, picture)]
        assert box[label >= 0].tolist() == around(images.masks[index].flip(-1))
        assert label[label >= 0].tolist() == images.mask_labels[index][images.mask_labels[index] >= 0].tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_follow_a_resized_crop_to_the_pixel(seed: int, flip: bool) -> None:
    """A painted rectangle, found again by its brightness after the crop of the pixels themselves."""
    generator = torch.Generator().manual_seed(seed)
    side, size = 40, 64
    plan = Plan(
        window=torch.tensor([[*torch.randint(0, size - side, (2,), generator=generator).tolist(), side, side - 6]]),
        resized=True,
        flip=torch.tensor([flip]),
    )
    x0, y0 = (plan.window[0, :2] + torch.randint(-4, 12, (2,), generator=generator)).clamp(min=0).tolist()
    box = torch.tensor([[[x0, y0, x0 + 17, y0 + 12]]]).float()
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    pixels[:, :, y0 : y0 + 12, x0 : x0 + 17] = 255
    seen = augment.crop_and_flip(pixels, plan)[0, 0] > 127
    found, labels = moved(box, torch.tensor([[3]]), plan, size=size)
    assert labels.item() == 3
    torch.testing.assert_close(found[0], torch.tensor(around(seen[None])).float(), atol=1.01, rtol=0)


def test_a_crop_by_hand() -> None:
    """Cut off at the borders; of the second less than a pixel is left, the third is outside, the fourth is thinner than one."""
    plan = Plan(window=torch.tensor([[2, 2, 4, 4]]))
    given = torch.tensor([[[3, 3, 5, 7], [0, 2, 2.4, 6], [6, 6, 8, 8], [4, 4, 4, 5]]]).float()
    found, labels = moved(given, torch.tensor([[5, 6, 7, 8]]), plan, size=8)
    assert labels.tolist() == [[5, -1, -1, -1]]
    assert found[0, 0].tolist() == [2, 2, 6, 8]


def test_a_shifted_crop_keeps_the_scale() -> None:
    found, _ = moved(
        torch.tensor([[[3.0, 3, 5, 7]]]), torch.zeros(1, 1).long(), Plan(window=torch.tensor([[-2, 1, 8, 8]])), size=8
    )
    assert found.tolist() == [[[5, 2, 7, 6]]]


@pytest.mark.parametrize("augmentation", [FLIP, Augmentation(crop="resized", flip=0.5), Augmentation(crop="pad", flip=0.5)])
def test_every_rank_has_its_rows_of_the_global_batch(augmentation: Augmentation) -> None:
    whole, *parts = (list(batches(objects(), augmentation, **share).epoch(1)) for share in ({}, *SHARES))
    assert len(whole) == 3
    for batch, halves in zip(whole, zip(*parts, strict=True), strict=True):
        for part, own in zip(batch, zip(*halves, strict=True), strict=True):
            assert torch.equal(part, torch.cat(own)) and len(part) == 4


SHARES = ({"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2})


@pytest.fixture
def street(tmp_path: Path) -> Path:
    write_year(tmp_path / "street" / "VOCdevkit" / "VOC2012")
    return tmp_path


def test_boxes_of_files_are_scaled_with_the_whole_image(street: Path) -> None:
    """An image of 6 x 4 px seen as 12 x 12 px; one without objects beside it; the difficult one is known."""
    train, _ = data.load(Data(name="street/voc2012", image_size=12), seed=0, root=street)
    found = padded(train, torch.tensor([1, 0]), size=12)
    assert found.boxes.shape == (2, MOST, 4) and (found.labels[0] == -1).all()
    assert found.boxes[1, :3].tolist() == [[0, 0, 4, 6], [8, 0, 12, 6], [10, 6, 12, 12]]
    assert found.labels[1, :4].tolist() == [14, 11, 14, -1] and found.difficult[1].nonzero().tolist() == [[1]]


def test_files_give_the_batches_of_pixels(street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = data.load(Data(name="street/voc2012", image_size=12), seed=0, root=street)
    augmentation = Augmentation(crop="pad", crop_padding=2, flip=0.5)
    decoded = batches(train, augmentation, size=12, batch_size=2)
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 0)
    files = batches(train, augmentation, size=12, batch_size=2)
    assert (decoded.source, files.source) == ("device", "files")
    for epoch in range(3):
        for one, other in zip(next(decoded.epoch(epoch)), next(files.epoch(epoch)), strict=True):
            assert torch.equal(one, other)


def test_sets_without_boxes_are_refused() -> None:
    train, _ = data.load(Data(name="digits", image_size=32, train_size=20, test_size=20), seed=0)
    with pytest.raises(ConfigError, match="^these images have neither masks nor boxes"):
        batches(train)
    bare = dataclasses.replace(objects(), mask_labels=torch.full((12, 3), -1))
    with pytest.raises(ConfigError, match="^no training image has a box: choose a set with boxes$"):
        batches(bare)


def test_more_boxes_than_are_counted_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MOST", 1)
    with pytest.raises(ConfigError, match="^image .* has . boxes, more than 1: leave it out$"):
        batches(objects())
