"""Images with objects: sets in the layout of Pascal VOC, with boxes and masks, and the Oxford-IIIT pets' trimaps and heads.

VOCdevkit/VOC2007 and VOCdevkit/VOC2012 hold JPEGImages, Annotations, ImageSets/Main and, for masks, ImageSets/Segmentation,
SegmentationClass and SegmentationObject. They lie in the data folder or in a folder therein, whose name then stands before the
set's: street/voc2007. Everything but what pixels a mask holds is checked when a set is read; masks are decoded one at a time.
Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sarlib.config import ConfigError, require
from sarlib.data.folders import Split, _walk

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND, VOID = 0, 255  # in class and object masks; class c is 1 + c

#: name -> (kind of list, training lists, test list). "masks": images of which every one has masks.
SETS = {
    "voc2007": ("Main", ("2007/trainval",), "2007/test"),
    "voc2012": ("Main", ("2012/train",), "2012/val"),
    "voc0712": ("Main", ("2007/trainval", "2012/trainval"), "2007/test"),
    "voc2007-masks": ("Segmentation", ("2007/trainval",), "2007/test"),
    "voc2012-masks": ("Segmentation", ("2012/train",), "2012/val"),
    "voc12-07-masks": ("Segmentation", ("2012/trainval",), "2007/test"),
}
#: VOC2012 holds the images of VOC2007 that have masks, its test images among them: they are left out of what is trained on,
#: unless the name of the set ends in `LITERAL`.
LEAKY, LITERAL = "voc12-07-masks", "-literal"
PETS = "oxford-iiit-pet-masks"
HEADS = "oxford-iiit-pet-heads"  # the pets whose head has a box: a cat's or a dog's
EACH = 4  # Oxford's test images have no such boxes: every fourth training image with one is tested on instead
WITH_MASKS = ("voc2007-masks", "voc2012-masks", PETS)  # by themselves, to measure on


@dataclass(frozen=True)
class Annotation:
    """The objects of one image of `size` (width, height). `boxes` (x0, y0, x1, y1) count pixels from 0, x1 and y1 exclusive;
    `labels` and `difficult` are theirs. Objects may have a box and no mask, or a mask and no box."""

    size: tuple[int, int]
    labels: tuple[int, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    difficult: tuple[bool, ...] = ()
    class_mask: Path | None = None  # a PNG with the class of each pixel
    object_mask: Path | None = None  # a PNG with the number of each pixel's object; None: all pixels of a class are one object
    trimap_of: int | None = None  # the class of the one object if `class_mask` is a trimap: 1 object, 2 background, 3 void

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 each: the pixels' classes (0 background, 1 + label, 255 void), and the numbers of their objects.

        `ConfigError` if a mask does not decode or holds what is no class.
        """
        require(self.class_mask is not None, "this set has boxes alone: take the one whose name ends in -masks")
        classes = _indices(self.class_mask)
        allowed = (*range(len(CLASSES) + 1), VOID) if self.trimap_of is None else (1, 2, 3)
        odd = ", ".join(map(str, np.setdiff1d(classes, allowed)[:5]))
        require(not odd, f"the mask {self.class_mask} holds {odd}, which is no class: {allowed[0]} to {allowed[-1]}")
        if self.trimap_of is not None:
            classes = np.array([0, 1 + self.trimap_of, BACKGROUND, VOID], dtype=np.uint8)[classes]
        return classes, classes if self.object_mask is None else _indices(self.object_mask)


def instances(classes: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From `Annotation.maps`, also resized, to masks (M, H, W) bool and labels (M,) int64 of the objects, by their numbers.

    The class of an object is that of most of its pixels. Void pixels are in no mask.
    """
    clear = np.where((classes == VOID) | (classes == BACKGROUND), BACKGROUND, objects)
    numbers = np.setdiff1d(clear, (BACKGROUND, VOID))
    masks = clear == numbers[:, None, None]
    labels = [np.bincount(classes[mask]).argmax() - 1 for mask in masks]
    return masks, np.array(labels, dtype=np.int64)


def known(name: str) -> bool:
    """Whether `name` is that of a set with objects, wherever it lies."""
    return name.rpartition("/")[2] in (*SETS, LEAKY + LITERAL, PETS, HEADS)


def discover(root: Path) -> tuple[str, ...]:
    """Names of the sets with objects in the folder `root` and in the folders therein, sorted: those whose lists are there."""
    found = []
    for base in ("", *(f"{name}/" for name in next(_walk(root))[1])):
        for name, (kind, train, test) in SETS.items():
            if all(_list(root / base / "VOCdevkit", kind, each).is_file() for each in (*train, test)):
                found.append(base + name)
        for name, folder in ((PETS, "trimaps"), (HEADS, "xmls")):
            if (root / base / "oxford-iiit-pet" / "annotations" / folder).is_dir():
                found.append(base + name)
    return tuple(sorted(found))


def read(root: Path | None, name: str) -> tuple[Split, Split]:
    """The whole training and test set. `ConfigError` names what is missing, or does not fit its image."""
    require(root is not None, f"the data set {name!r} is not embedded: say DATA=<folder that holds it>")
    base, _, own = name.rpartition("/")
    folder = root / base / "oxford-iiit-pet"
    if own == PETS:
        return _read_pets(folder, "trainval"), _read_pets(folder, "test")
    if own == HEADS:
        return _read_heads(folder)
    kind, train, test = SETS[own.removesuffix(LITERAL)]
    devkit = root / base / "VOCdevkit"
    require(devkit.is_dir(), f"{name} is not below {root}: expected {devkit}/VOC{test[:4]}/JPEGImages, Annotations, ImageSets")
    train, test = _read_voc(devkit, kind, train), _read_voc(devkit, kind, (test,))
    return (_without(train, set().union(*repeated(train, test))) if own == LEAKY else train), test


def digest(image: Path) -> bytes:
    return hashlib.sha256(image.read_bytes()).digest()


def repeated(train: Split, test: Split) -> tuple[list[int], list[int]]:
    """Which training images are test images: by name (image 000032 of VOC2007 is 2007_000032 in VOC2012), and by content."""
    tested, contents = {f"2007_{file.stem}" for file in test.files}, {digest(file) for file in test.files}
    named = [index for index, file in enumerate(train.files) if file.stem in tested]
    return named, [index for index, file in enumerate(train.files) if digest(file) in contents]


def _without(split: Split, left_out: set[int]) -> Split:
    rest = [index for index in range(len(split)) if index not in left_out]
    require(rest != [], "every training image is a test image")
    files, annotations = ([part[index] for index in rest] for part in (split.files, split.annotations))
    return _split(split.classes, files, annotations)


def _list(devkit: Path, kind: str, place: str) -> Path:
    year, name = place.split("/")
    return devkit / f"VOC{year}" / "ImageSets" / kind / f"{name}.txt"


def _lines(path: Path) -> list[list[str]]:
    require(path.is_file(), f"the list {path} is missing")
    found = [line.split() for line in path.read_text().splitlines() if line.strip()]
    require(found != [], f"the list {path} names no image")
    return found


def _read_voc(devkit: Path, kind: str, places: tuple[str, ...]) -> Split:
    files, annotations = [], []
    for place in places:
        year = devkit / f"VOC{place[:4]}"
        masks = kind == "Segmentation"
        lacks = f"{year} has no SegmentationClass: unpack the masks there, or take the set without -masks, which has boxes"
        require(not masks or (year / "SegmentationClass").is_dir(), lacks)
        for name, *_ in _lines(_list(devkit, kind, place)):
            files.append(year / "JPEGImages" / f"{name}.jpg")
            folders = [year / each for each in ("SegmentationClass", "SegmentationObject") if masks and (year / each).is_dir()]
            there = [folder / f"{name}.png" for folder in folders]
            annotations.append(_annotation(year / "Annotations" / f"{name}.xml", files[-1], *there))
    return _split(CLASSES, files, annotations)


def _split(classes: tuple[str, ...], files: list[Path], annotations: list[Annotation]) -> Split:
    """An image's label is the class of its first object, 0 where there is none: such sets are not for classification."""
    labels = [each.labels[0] if each.labels else each.trimap_of or 0 for each in annotations]
    return Split(classes, np.array(labels, dtype=np.int64), files=tuple(files), annotations=tuple(annotations))


def _annotation(xml: Path, image: Path, *masks: Path) -> Annotation:
    size = _size(image)
    try:
        tree = ElementTree.parse(xml).getroot()
        stated = tuple(int(tree.findtext(f"size/{side}", str(own))) for side, own in zip(("width", "height"), size))
        require(stated == size, f"{xml} is of an image of {_times(stated)} px, {image} has {_times(size)}")
        found = list(_boxes(xml, tree, size))
    except ConfigError:
        raise
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ConfigError(f"cannot read the annotation {xml}: {error}") from error
    boxes = tuple(zip(*found, strict=True)) or ((), (), ())
    for mask in masks:
        _require_size(mask, size, image)
    return Annotation(size, *boxes, *masks)


def _boxes(xml: Path, tree: ElementTree.Element, size: tuple[int, int]) -> Iterator[tuple[int, tuple, bool]]:
    """(label, box, difficult) of every object. VOC counts pixels from 1, and the last one is inside."""
    for item in tree.findall("object"):
        name = item.findtext("name", "").strip()
        require(name in CLASSES, f"{xml} has an object {name!r}, which is no class of VOC ({', '.join(CLASSES)})")
        place = item.find("bndbox")
        require(place is not None, f"{xml} has a {name} without a bndbox")
        x0, y0, x1, y1 = (int(float(place.findtext(side, ""))) for side in ("xmin", "ymin", "xmax", "ymax"))
        inside = 1 <= x0 <= x1 <= size[0] and 1 <= y0 <= y1 <= size[1]
        require(inside, f"{xml}: the box {x0} {y0} {x1} {y1} of a {name} is not inside the image of {_times(size)} px")
        yield CLASSES.index(name), (x0 - 1, y0 - 1, x1, y1), item.findtext("difficult", "0").strip() == "1"


def _read_pets(folder: Path, split: str) -> Split:
    """The pets of a list, in torchvision's layout; of `<split>_masks.txt`, where there is one, which leaves some out."""
    trimaps = folder / "annotations" / "trimaps"
    require(trimaps.is_dir(), f"{folder} has no annotations/trimaps: unpack the pets' annotations there")
    paths = [folder / "annotations" / f"{split}{end}.txt" for end in ("_masks", "")]
    lines = _lines(paths[0] if paths[0].is_file() else paths[1])
    breeds = {int(number): name.rpartition("_")[0] for name, number, *_ in lines}
    files, annotations = [], []
    for name, number, *_ in lines:
        files.append(folder / "images" / f"{name}.jpg")
        one = Annotation(_size(files[-1]), class_mask=trimaps / f"{name}.png", trimap_of=int(number) - 1)
        _require_size(one.class_mask, one.size, files[-1])
        annotations.append(one)
    classes = tuple(breeds.get(number, "") for number in range(1, max(breeds) + 1))
    return _split(classes, files, annotations)


def _read_heads(folder: Path) -> tuple[Split, Split]:
    """The pets of both lists whose heads have a box."""
    boxes = folder / "annotations" / "xmls"

    def boxed(split: str) -> list[str]:
        return [name for name, *_ in _lines(folder / "annotations" / f"{split}.txt") if (boxes / f"{name}.xml").is_file()]

    def split(names: list[str]) -> Split:
        files = [folder / "images" / f"{name}.jpg" for name in names]
        annotations = [_annotation(boxes / f"{name}.xml", file) for name, file in zip(names, files, strict=True)]
        return _split(CLASSES, files, annotations)

    train, test = boxed("trainval"), boxed("test")
    enough = len(train) + len(test) > 1 and train != []
    require(enough, f"{boxes} has boxes of {len(train)} images of trainval.txt: unpack the pets' annotations there")
    if not test:
        test, train = train[::EACH], [name for index, name in enumerate(train) if index % EACH]
    return split(train), split(test)


def _size(path: Path) -> tuple[int, int]:
    """(width, height), without decoding."""
    try:
        from PIL import Image  # finding sets needs none

        with Image.open(path) as file:
            return file.size
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing: the lists name it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"cannot read the image {path}: {error}") from error


def _require_size(mask: Path, size: tuple[int, int], image: Path) -> None:
    found = _size(mask)
    require(found == size, f"the mask {mask} has {_times(found)} px, its image {image} {_times(size)}")


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _indices(path: Path) -> np.ndarray:
    """The palette's indices of a PNG, not its colours."""
    try:
        from PIL import Image

        with Image.open(path) as file:
            require(file.mode in ("P", "L"), f"the mask {path} has colours instead of a palette's indices (mode {file.mode})")
            return np.array(file)
    except ConfigError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"cannot decode the mask {path}: {error}") from error
