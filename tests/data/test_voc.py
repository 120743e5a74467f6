"""The VOC layout and the pets' trimaps: boxes, masks one at a time, square views, what is refused. Real sets where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pixelwise import class_map
from torchvision.datasets import OxfordIIITPet, VOCDetection, VOCSegmentation
from voc_layout import CLASS_MASK, OBJECTS, palette, write_year, xml

from sarlib import data
from sarlib.config import ConfigError, Data
from sarlib.data import voc
from sarlib.data.images import Images


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """VOC2012 below a folder."""
    return write_year(tmp_path / "street" / "VOCdevkit" / "VOC2012")


def load(year: Path, name: str = "voc2012-masks", size: int = 8) -> Images:
    return data.load(Data(name=name, image_size=size), seed=0, root=year.parents[1])[1]


def test_boxes_count_from_zero_and_masks_are_indices(year: Path) -> None:
    a, b = (load(year).objects(index) for index in (0, 1))
    assert [voc.CLASSES[label] for label in a.labels] == ["person", "dog", "person"]
    assert a.boxes.tolist() == [[0, 0, 2, 2], [4, 0, 6, 2], [5, 2, 6, 4]] and a.difficult.tolist() == [False, True, False]
    assert a.mask_labels.tolist() == a.labels.tolist() and a.masks.sum((1, 2)).tolist() == [4, 4, 2]
    for mask, box in zip(a.masks, a.boxes.long().tolist(), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box
    assert class_map(a).tolist() == CLASS_MASK and a.void.sum() == 4
    assert len(b.labels) == len(b.masks) == len(b.mask_labels) == 0
    assert b.boxes.shape == (0, 4) and b.masks.shape == (0, 4, 6) and class_map(b).sum() == 0


def test_what_torchvision_reads(year: Path) -> None:
    theirs, masks = VOCDetection(year.parents[1], image_set="val"), VOCSegmentation(year.parents[1], image_set="val")
    ours = load(year)
    assert [str(path) for path in ours.files] == theirs.images == masks.images
    for index in range(len(ours)):
        found = theirs[index][1]["annotation"].get("object", [])
        boxes = [[int(each["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for each in found]
        assert [[x0 - 1, y0 - 1, x1, y1] for x0, y0, x1, y1 in boxes] == ours.objects(index).boxes.tolist()
        assert np.array_equal(np.asarray(masks[index][1]), class_map(ours.objects(index)))


def test_a_set_with_boxes_alone_needs_no_masks(year: Path) -> None:
    for mask in year.glob("Segmentation*/*.png"):
        mask.unlink()
    one = load(year, "voc2012").objects(0)
    assert one.masks is one.void is one.mask_labels is None and len(one.boxes) == 3


def test_a_square_view_squeezes_the_image_its_masks_and_its_boxes(year: Path) -> None:
    images = load(year, size=12)
    one, view = images.objects(0, 12), images.view(0, 12)
    assert view.size == (12, 12) and one.masks.shape == (3, 12, 12)
    assert torch.equal(class_map(one), torch.tensor(CLASS_MASK).repeat_interleave(3, 0).repeat_interleave(2, 1))
    assert one.boxes.tolist() == [[0, 0, 4, 6], [8, 0, 12, 6], [10, 6, 12, 12]]
    smaller = images.subset([1, 0])
    assert smaller.annotations == images.annotations[::-1] and torch.equal(smaller.objects(1).masks, images.objects(0).masks)


def test_objects_of_images_in_memory_are_those_of_the_generator() -> None:
    images = data.load(Data(name="shapes-object", image_size=32, train_size=2, test_size=6), seed=0)[1]
    for index in range(6):
        one, there = images.objects(index, 32), images.mask_labels[index] >= 0
        assert torch.equal(one.masks, images.masks[index][there]) and not one.void.any() and not one.difficult.any()
        assert torch.equal(one.boxes, images.boxes[index][there].float())
        assert torch.equal(class_map(one) > 0, images.masks[index].any(0))
    with pytest.raises(ConfigError, match="masks in memory are of 32 px, not of 64"):
        images.objects(0, 64)


def test_sets_are_found_here_and_one_folder_further_down_and_are_no_classification_sets(year: Path) -> None:
    root = year.parents[1]
    assert voc.discover(root) == ("voc2012", "voc2012-masks") and data.discover(root) == ()
    assert voc.discover(root.parent) == (f"{root.name}/voc2012", f"{root.name}/voc2012-masks")
    assert len(data.load(Data(name=f"{root.name}/voc2012", image_size=8), seed=0, root=root.parent)[1]) == 2
    with pytest.raises(ConfigError, match="'voc2012' is not embedded: say DATA="):
        data.load(Data(name="voc2012", image_size=8), seed=0)
    with pytest.raises(ConfigError, match="'voc2012' is not embedded: say DATA="):
        voc.read(None, "voc2012")
    with pytest.raises(ConfigError, match="voc2012 is not below .*: expected .*VOCdevkit/VOC2012/JPEGImages"):
        data.load(Data(name="voc2012", image_size=8), seed=0, root=year)


def test_the_fingerprint_follows_boxes_and_masks(year: Path) -> None:
    def fingerprint() -> str:
        return data.inspect("voc2012-masks", root=year.parents[1]).fingerprint

    first = fingerprint()
    palette(year / "SegmentationClass/a.png", np.random.default_rng(0).integers(0, 21, (4, 6)))
    second = fingerprint()
    annotate(year, ("person", 1, 1, 2, 3, 0))
    assert len({first, second, fingerprint()}) == 3


def annotate(year: Path, *objects, **size: int) -> None:
    (year / "Annotations" / "a.xml").write_text(xml(objects, **size))


def _no_class_masks(year: Path) -> None:
    for path in (year / "SegmentationClass").iterdir():
        path.unlink()
    (year / "SegmentationClass").rmdir()


BROKEN = {
    "has no SegmentationClass": _no_class_masks,
    r"Class/a.png has 5 x 4 px, its image .*a.jpg 6 x 4": lambda y: palette(y / "SegmentationClass/a.png", np.zeros((4, 5))),
    r"SegmentationObject/a.png has 6 x 3 px": lambda y: palette(y / "SegmentationObject/a.png", np.zeros((3, 6))),
    r"SegmentationClass/b.png is missing": lambda y: (y / "SegmentationClass/b.png").unlink(),
    r"a.jpg is missing": lambda y: (y / "JPEGImages/a.jpg").unlink(),
    r"cannot read the annotation .*b.xml": lambda y: (y / "Annotations/b.xml").unlink(),
    r"cannot read the annotation .*a.xml": lambda y: (y / "Annotations/a.xml").write_text("<annotation>"),
    r"a.xml is of an image of 7 x 4 px": lambda y: annotate(y, *OBJECTS, width=7),
    r"the box 1 1 7 2 of a person is not inside": lambda y: annotate(y, ("person", 1, 1, 7, 2, 0)),
    r"the box 0 1 2 2 of a person is not inside": lambda y: annotate(y, ("person", 0, 1, 2, 2, 0)),
    r"an object 'yeti', which is no class": lambda y: annotate(y, ("yeti", 1, 1, 2, 2, 0)),
    r"list .*val.txt is missing": lambda y: (y / "ImageSets/Segmentation/val.txt").unlink(),
    r"list .*val.txt names no image": lambda y: (y / "ImageSets/Segmentation/val.txt").write_text("\n"),
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_what_does_not_fit_is_said_when_the_set_is_read(year: Path, message: str) -> None:
    BROKEN[message](year)
    with pytest.raises(ConfigError, match=message) as caught:
        load(year)
    assert "\n" not in str(caught.value)


def test_masks_with_colours_or_without_a_class_are_refused_when_they_are_decoded(year: Path) -> None:
    palette(year / "SegmentationClass/a.png", np.full((4, 6), 21))
    with pytest.raises(ConfigError, match=r"a.png holds 21, which is no class"):
        load(year).objects(0)
    Image.new("RGB", (6, 4)).save(year / "SegmentationClass/a.png")
    with pytest.raises(ConfigError, match=r"a.png has colours"):
        load(year).objects(0)


def test_without_object_masks_every_class_is_one_object(year: Path) -> None:
    for path in (year / "SegmentationObject").iterdir():
        path.unlink()
    (year / "SegmentationObject").rmdir()
    one = load(year).objects(0)
    assert [voc.CLASSES[label] for label in one.mask_labels] == ["dog", "person"] and one.masks.sum((1, 2)).tolist() == [4, 6]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    lines = []
    for number, name in enumerate(("Abyssinian_1", "basset_hound_2"), start=1):
        Image.new("RGB", (5, 3)).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(np.array([[1, 1, 3, 2, 2]] * 3, dtype=np.uint8)).save(
            folder / "annotations" / "trimaps" / f"{name}.png"
        )
        lines.append(f"{name} {number} 1 1\n")
    for split in ("trainval", "test"):
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))
    return folder


def test_a_trimap_is_one_object_and_its_border_is_void(pets: Path) -> None:
    images = data.load(Data(name=voc.PETS, image_size=8), seed=0, root=pets.parent)[1]
    assert images.classes == ("Abyssinian", "basset_hound") and images.labels.tolist() == [0, 1]
    one = images.objects(1)
    assert class_map(one).tolist() == [[2, 2, 255, 0, 0]] * 3 and one.mask_labels.tolist() == [1] and len(one.boxes) == 0
    theirs = OxfordIIITPet(pets.parent, split="test", target_types=("category", "segmentation"))
    assert [theirs[index][1][0] for index in range(2)] == images.labels.tolist()
    assert np.array_equal(np.asarray(theirs[1][1][1]) == 1, one.masks[0])
    assert voc.discover(pets.parent) == (voc.PETS,)
    (pets / "annotations" / "test_masks.txt").write_text("Abyssinian_1 1 1 1\n")
    assert len(data.load(Data(name=voc.PETS, image_size=8), seed=0, root=pets.parent)[1]) == 1


def test_heads_of_pets_have_boxes_and_the_others_are_left_out(pets: Path) -> None:
    xmls = pets / "annotations" / "xmls"
    xmls.mkdir()
    spec = Data(name=voc.HEADS, image_size=8)
    with pytest.raises(ConfigError, match="boxes of 0 images of trainval.txt"):
        data.load(spec, seed=0, root=pets.parent)
    (pets / "annotations" / "test.txt").write_text("pug_3 3 2 1\n")  # which has no box, as in Oxford's own archive
    for name, kind in (("Abyssinian_1", "cat"), ("basset_hound_2", "dog")):
        (xmls / f"{name}.xml").write_text(xml([(kind, 2, 1, 4, 2, 0)], width=5, height=3))
    sets = data.load(spec, seed=0, root=pets.parent)
    assert [[images.classes[label] for label in images.labels] for images in sets] == [["dog"], ["cat"]], "one in four"
    one = sets[1].objects(0, 10)
    assert one.boxes.tolist() == [[2, 0, 8, pytest.approx(20 / 3)]] and one.masks is None
    (pets / "annotations" / "test.txt").write_text("basset_hound_2 2 2 1\n")
    assert [len(images) for images in data.load(spec, seed=0, root=pets.parent)] == [2, 1], "where there are some"
    assert voc.discover(pets.parent) == (voc.HEADS, voc.PETS)


REAL = Path(os.environ.get("SAR_TEST_DATA", ""))
#: Where each archive is unpacked -> training images, test images, test images without an object (counted in the PNGs), classes.
SAMPLES = {
    "voc-coco256/voc2012-masks": (100, 100, 22, 19),
    "voc-pennfudan/voc2007-masks": (57, 60, 0, 1),
    "oxford-iiit-pet-masks": (703, 307, 1, 37),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_real_sets(name: str) -> None:
    if "SAR_TEST_DATA" not in os.environ or not (REAL.is_dir() and name in voc.discover(REAL)):
        pytest.skip(f"SAR_TEST_DATA does not name a folder with {name}")
    train, test = data.load(Data(name=name, image_size=96), seed=0, root=REAL)
    seen = [test.objects(index) for index in range(len(test))]
    classes = {label for one in seen for label in one.mask_labels.tolist()}
    assert (len(train), len(test), sum(not len(one.masks) for one in seen)) == SAMPLES[name][:3]
    assert len(classes) <= SAMPLES[name][3] and all(one.masks.shape[1:] == one.void.shape for one in seen)
    assert sum(one.void.sum() > 0 for one in seen) > 0.9 * len(seen)
