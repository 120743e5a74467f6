"""Image sets in files: ImageFolder trees, ImageNet and its IN-100, DomainNet by its official lists, torchvision's sets by name.

What lies there is listed, not decoded, and without torch, except by torchvision's own readers. In a tree the training folder is
called train or training, the other one test, testing, val, valid or validation (the first of these that is there), in small
or capital letters; a class has all images in its folder and in those therein. What systems and editors leave is passed over:
names that begin with a dot, and those of `_LEFT_BEHIND`. Other files that are no images by the end of their name (GIFs are not,
as in torchvision) or lie outside the class folders are counted as `Split.ignored`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from filelock import FileLock

from sarlib.config import ConfigError, require

SHAPES = ("shapes-object", "shapes-clipart", "shapes-painting", "shapes-sketch")
#: Ends the names of embedded sets whose objects have the shape of one class and the look of another.
CONFLICT = "-conflict"
EMBEDDED = (*SHAPES, "digits")
DOMAINNET = ("clipart", "painting", "sketch")
#: Where torchvision leaves Imagenette, at a shorter side of 160 px: an ImageFolder tree of another name.
IMAGENETTE = "imagenette2-160"
PACS = ("pacs-art_painting", "pacs-cartoon", "pacs-photo", "pacs-sketch")

#: torchvision's sets -> their layout below the data folder.
TORCHVISION = {
    "cifar10": "DATA/cifar-10-batches-py/ or the ImageFolder tree DATA/cifar10/{train,test}/<class>/*.png",
    "cifar100": "DATA/cifar-100-python/",
    "flowers102": "DATA/flowers-102/{jpg/,imagelabels.mat,setid.mat}",
    "imagenette": "DATA/imagenette2-160/{train,val}/<class>/*.JPEG or the tree DATA/imagenette/{train,test}/<class>/*",
    "oxford-iiit-pet": "DATA/oxford-iiit-pet/{images/,annotations/}",
    "stanford-cars": "DATA/stanford_cars/{cars_train/,cars_test/,devkit/,cars_test_annos_withlabels.mat}",
}
#: What lies there once a set is unpacked, which those that nobody names are found by. (Imagenette is a tree.)
_UNPACKED = {
    "cifar10": "cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-python/meta",
    "flowers102": "flowers-102/setid.mat",
    "oxford-iiit-pet": "oxford-iiit-pet/annotations/trainval.txt",
    "stanford-cars": "stanford_cars/cars_test_annos_withlabels.mat",
}
IN_FOLDERS = (*TORCHVISION, *DOMAINNET, *PACS, "imagenet", "imagenet100")

#: How the names of images end, in small or capital letters: torchvision's list.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
_LEFT_BEHIND = ("__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information")


@dataclass(frozen=True)
class Split:
    """The training or the test images of a set as they lie there, either `files` or `pixels`."""

    classes: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, an index into `classes`
    files: tuple[Path, ...] | None = None
    pixels: np.ndarray | None = None  # (N, 3, H, W) uint8
    ignored: tuple[str, ...] = ()  # names of the files beside the images
    annotations: tuple[Any, ...] | None = None  # the objects of each image, `sarlib.data.voc.Annotation`

    def __len__(self) -> int:
        return len(self.labels)


def expected_layout(name: str) -> str:
    """What a tree of this name must look like, in one line."""
    if name in DOMAINNET:
        lists = f"DATA/{name}_train.txt and DATA/{name}_test.txt with lines '{name}/<class>/<image> <label>'"
        return f"{lists}, and DATA/{name}/<class>/*.jpg"
    if name in PACS:
        split = "Li et al. 2017 give the images of a domain without a split: make one"
        return f"DATA/{name}/train/<class>/*.jpg and DATA/{name}/test/<class>/*.jpg, the same seven classes in both ({split})"
    folder = "imagenet" if name == "imagenet100" else name
    return f"DATA/{folder}/train/<class>/*.jpg and DATA/{folder}/test/<class>/*.jpg (or val, valid), the same classes in both"


def discover(root: Path) -> tuple[str, ...]:
    """Names of the image sets in the folder `root`, sorted: ImageFolder trees, of which `root` may be one itself, and what lies
    there as torchvision or DomainNet's authors lay it out.

    `ConfigError` for a folder without any image set, and for names that a table cannot have.
    """
    names, reserved = tuple(sorted({*trees(root), *_laid_out(root)})), ", ".join(EMBEDDED)
    for name in names:
        sayable = ";" not in name and name.isprintable() and name not in EMBEDDED
        require(sayable, f"rename the image set {name!a} in {root}: names are UTF-8, without ';', and not {reserved}")
    devkits = [*root.glob("VOCdevkit"), *root.glob("*/VOCdevkit")]  # sets with objects, see `sarlib.data.voc`
    require(names or devkits, f"no image set in {root}, which holds {_holds(root)}: expected {expected_layout('<set>')}")
    return names


def trees(root: Path) -> tuple[str, ...]:
    """The ImageFolder trees alone, whatever their names are, and if there are none."""
    require(root.is_dir(), f"the data folder {root} does not exist: say DATA=<folder that holds the image sets>")
    names = {"imagenette" if name == IMAGENETTE else name for name in next(_walk(root))[1] if _splits(root / name)}
    return tuple(sorted(names | ({root.resolve().name} if _splits(root) else set())))


def _laid_out(root: Path) -> set[str]:
    """Names of the sets that lie there whole in torchvision's layout, and of domains with their lists."""
    files = [(name, root / file) for name, file in _UNPACKED.items()]
    files += [(name, base / f"{name}_train.txt") for name in DOMAINNET for base in (root, root / "domainnet")]
    return {name for name, file in files if file.is_file()}


def read(root: Path, name: str) -> tuple[Split, Split] | None:
    """The whole training and test set `name` below `root`; a folder tree wins over torchvision's own layout.

    None if no set of this name is known or there; `ConfigError` with the expected layout if a known one is not or is misplaced.
    """
    also = [root] if root.resolve().name == name else [root / IMAGENETTE] if name == "imagenette" else []
    for place in (root / name, *also):
        if _splits(place):
            return _read_tree(place)
    if name == "imagenet100" and _splits(root / "imagenet"):
        return _read_tree(root / "imagenet", only=imagenet100())
    for base in (root, root / "domainnet"):
        if name in DOMAINNET and (base / f"{name}_train.txt").is_file():
            return _read_lists(base, name)
    # a folder of this name in which torchvision keeps the set is no misplaced tree
    if (root / name).is_dir() and not TORCHVISION.get(name, "").startswith(f"DATA/{name}/"):
        layout = expected_layout(name)
        raise ConfigError(f"{root / name} is not laid out as expected: {layout}; it holds {_holds(root / name)}")
    if name in TORCHVISION:
        return _read_torchvision(root, name)
    require(name not in IN_FOLDERS, f"{name} is not below {root}: expected {expected_layout(name)}")
    return None


def imagenet100() -> tuple[str, ...]:
    """The WordNet identifiers of IN-100 (Tian et al. 2020), sorted."""
    return tuple(sorted(resources.files("sarlib.data").joinpath("imagenet100.txt").read_text().split()))


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, sorted, without what is passed over; `ConfigError` for a folder that cannot be read."""

    def refuse(error: OSError) -> NoReturn:
        raise ConfigError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        for names in (folders, files):
            names[:] = sorted(name for name in names if not name.startswith(".") and name.lower() not in _LEFT_BEHIND)
        yield place, folders, files


def _holds(folder: Path) -> str:
    _, folders, files = next(_walk(folder))
    return ", ".join((folders + files)[:8]) or "nothing"


def _splits(folder: Path) -> tuple[Path, Path] | None:
    """The folders with the training and the test images of a tree; None if it is none."""
    if not folder.is_dir():
        return None
    there = {name.lower(): folder / name for name in next(_walk(folder))[1]}
    train, test = (next((there[name] for name in names if name in there), None) for names in (_TRAIN, _TEST))
    return (train, test) if train and test else None


def _read_tree(folder: Path, *, only: tuple[str, ...] = ()) -> tuple[Split, Split]:
    """An ImageFolder tree, or those of its classes that are named."""
    splits = _splits(folder)
    lacks = f"{folder} has no folders of training and test images, it holds {_holds(folder)}"
    require(splits is not None, f"{lacks}: expected {expected_layout(folder.name)}")
    train, test = (_class_folders(split) for split in splits)
    if not only:
        odd = ", ".join(sorted(train.keys() ^ test.keys())[:5])
        require(not odd, f"{splits[0]} and {splits[1]} differ in their classes: {odd} in only one")
        require(len(train) > 1, f"{folder} has one class alone, {', '.join(train)}: a classifier needs two or more")
    classes = only or tuple(train)
    for split, there in zip(splits, (train, test), strict=True):
        missing = sorted(set(classes) - there.keys())
        some = f"{len(missing)} of the {len(classes)} classes, among them {', '.join(missing[:5])}"
        require(not missing, f"{split} lacks {some}")
    names = tuple(train[name] for name in classes)
    return tuple(_read_split(split, names, [there[name] for name in classes]) for split, there in zip(splits, (train, test)))


def read_classes(folder: Path) -> Split:
    """Images of one split alone: a folder a class."""
    below = _class_folders(folder)
    return _read_split(folder, tuple(below), list(below.values()))


def _class_folders(split: Path) -> dict[str, str]:
    """Names of the class folders in Unicode's composed form, as what they are compared by -> as they lie there; sorted."""
    names = next(_walk(split))[1]
    require(names != [], f"{split} holds no class folders: expected {split}/<class>/*.jpg")
    composed = {unicodedata.normalize("NFC", name): name for name in names}
    twice = ", ".join(set(names) - set(composed.values()))
    require(not twice, f"{split} holds {twice} twice, in two Unicode normal forms: make it one folder")
    return composed


def _read_split(folder: Path, classes: tuple[str, ...], below: list[str]) -> Split:
    """The images of `classes`, which lie in the folders `below`, in torchvision's order."""
    files, labels, ignored = [], [], next(_walk(folder))[2]
    for label, kind in enumerate(below):
        found = [(place, name) for place, _, names in sorted(_walk(folder / kind)) for name in names]
        images = [Path(place, name) for place, name in found if name.lower().endswith(ENDINGS)]
        require(images != [], f"the class folder {folder / kind} holds no images ({', '.join(ENDINGS)})")
        ignored += [name for _, name in found if not name.lower().endswith(ENDINGS)]
        files += images
        labels += [label] * len(images)
    return Split(classes, np.array(labels), files=tuple(files), ignored=tuple(ignored))


def _read_lists(base: Path, name: str) -> tuple[Split, Split]:
    train, test = (_read_list(base, base / f"{name}_{split}.txt") for split in ("train", "test"))
    same = train[2] == test[2] and set(train[2]) == set(range(len(train[2])))
    require(same, f"the lists {name}_train.txt and {name}_test.txt in {base} do not name the same classes 0, 1, 2, ...")
    names = tuple(train[2][label] for label in range(len(train[2])))
    return tuple(Split(names, np.array(labels), files=tuple(files)) for files, labels, _ in (train, test))


def _read_list(base: Path, path: Path) -> tuple[list[Path], list[int], dict[int, str]]:
    """Files, labels, and the class of each label (the file's folder) of one official list."""
    require(path.is_file(), f"the list {path} is missing")
    files, labels, classes = [], [], {}
    lines = os.fsdecode(path.read_bytes()).splitlines()  # decoded as the names of the files are
    for number, line in enumerate(map(str.strip, lines), start=1):
        file, _, label = line.rpartition(" ")
        well_formed = not line or (file and label.isdigit())
        require(well_formed, f"{path}, line {number}: expected '<domain>/<class>/<image> <label>', got {line[:80]!r}")
        if line:
            files.append(base / file)
            labels.append(int(label))
            classes[int(label)] = Path(file).parent.name
    require(files != [], f"the list {path} names no image")
    there = files[0].is_file()
    require(there, f"{path} names {files[0]}, which does not exist: unpack the domain's images beside its lists")
    return files, labels, classes


def _read_torchvision(root: Path, name: str) -> tuple[Split, Split]:
    """A set in torchvision's own layout, downloaded where it is missing and torchvision can."""
    try:
        return _as_torchvision_reads(root, name)
    except ConfigError:  # which is a ValueError: what is there has been read, and cannot be used
        raise
    except (RuntimeError, OSError, ValueError):
        pass  # absent or incomplete: fetch it
    try:
        with FileLock(root / f".{name}.lock"):
            return _as_torchvision_reads(root, name, download=True)
    except ConfigError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        reason = f"{name} is not below {root} and cannot be downloaded ({str(error).splitlines()[0]})"
        raise ConfigError(f"{reason}; expected {TORCHVISION[name]}") from error


def _as_torchvision_reads(root: Path, name: str, *, download: bool = False) -> tuple[Split, Split]:
    from torchvision import datasets  # takes seconds, which only these sets should cost

    def pixels(kind: type, train: bool) -> Split:
        found = kind(root, train=train, download=download)
        content = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
        return Split(tuple(found.classes), np.array(found.targets, dtype=np.int64), pixels=content)

    def files(kind: type, *splits: str, **loader: type) -> Split:
        parts = [kind(root, split=split, download=download, **loader) for split in splits]
        # the pets' lists of files and labels have no public name
        samples = [pair for part in parts for pair in (part if loader else zip(part._images, part._labels, strict=True))]
        paths, labels = zip(*samples, strict=True)
        return Split(tuple(parts[0].classes), np.array(labels, dtype=np.int64), files=tuple(map(Path, paths)))

    match name:
        case "cifar10" | "cifar100":
            return tuple(pixels(getattr(datasets, name.upper()), train) for train in (True, False))
        case "imagenette":  # whose folder is a tree
            datasets.Imagenette(root, size="160px", download=download)
            return _read_tree(root / IMAGENETTE)
        case "oxford-iiit-pet":
            return files(datasets.OxfordIIITPet, "trainval"), files(datasets.OxfordIIITPet, "test")
        case "stanford-cars":  # `loader=Path` lists the files instead of decoding them, which the pets cannot
            return tuple(files(datasets.StanfordCars, split, loader=Path) for split in ("train", "test"))
        case "flowers102":  # as in the transfer literature the training and the validation split train together
            kind = datasets.Flowers102
            return files(kind, "train", "val", loader=Path), files(kind, "test", loader=Path)
