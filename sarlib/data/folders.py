"""Image sets in files: ImageFolder trees, ImageNet and its IN-100, DomainNet by its official lists, torchvision's sets by name.

What lies there is listed, not decoded, and without torch, except by torchvision's own readers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from filelock import FileLock

from sarlib.config import ConfigError, require

DOMAINNET = ("clipart", "painting", "sketch")

#: torchvision's sets -> their layout below the data folder.
TORCHVISION = {
    "cifar10": "DATA/cifar-10-batches-py/ or the ImageFolder tree DATA/cifar10/{train,test}/<class>/*.png",
    "cifar100": "DATA/cifar-100-python/",
    "flowers102": "DATA/flowers-102/{jpg/,imagelabels.mat,setid.mat}",
    "oxford-iiit-pet": "DATA/oxford-iiit-pet/{images/,annotations/}",
    "stanford-cars": "DATA/stanford_cars/{cars_train/,cars_test/,devkit/,cars_test_annos_withlabels.mat}",
}
IN_FOLDERS = (*TORCHVISION, *DOMAINNET, "imagenet", "imagenet100")

#: How the names of images end, in small or capital letters: torchvision's list.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_TEST_FOLDERS = ("test", "val")


@dataclass(frozen=True)
class Split:
    """The training or the test images of a set as they lie there, either `files` or `pixels`."""

    classes: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, an index into `classes`
    files: tuple[Path, ...] | None = None
    pixels: np.ndarray | None = None  # (N, 3, H, W) uint8

    def __len__(self) -> int:
        return len(self.labels)


def expected_layout(name: str) -> str:
    """What a tree of this name must look like, in one line."""
    if name in DOMAINNET:
        lists = f"DATA/{name}_train.txt and DATA/{name}_test.txt with lines '{name}/<class>/<image> <label>'"
        return f"{lists}, and DATA/{name}/<class>/*.jpg"
    folder = "imagenet" if name == "imagenet100" else name
    return f"DATA/{folder}/train/<class>/*.jpg and DATA/{folder}/test/<class>/*.jpg (or val for test), the same classes in both"


def discover(root: Path) -> tuple[str, ...]:
    """Names of the ImageFolder sets in the folder `root`, sorted; `root` may also be one such tree itself."""
    require(root.is_dir(), f"the data folder {root} does not exist: say DATA=<folder that holds the image sets>")
    names = {folder.name for folder in root.iterdir() if _is_tree(folder)}
    return tuple(sorted(names | ({root.resolve().name} if _is_tree(root) else set())))


def read(root: Path, name: str) -> tuple[Split, Split] | None:
    """The whole training and test set `name` below `root`; a folder tree wins over torchvision's own layout.

    None if no set of this name is known or there; `ConfigError` with the expected layout if a known one is not or is misplaced.
    """
    for place in (root / name, *([root] if root.resolve().name == name else [])):
        if _is_tree(place):
            return _read_tree(place)
    if name == "imagenet100" and _is_tree(root / "imagenet"):
        return _read_tree(root / "imagenet", classes=imagenet100())
    for base in (root, root / "domainnet"):
        if name in DOMAINNET and (base / f"{name}_train.txt").is_file():
            return _read_lists(base, name)
    # a folder of this name in which torchvision keeps the set is no misplaced tree
    if (root / name).is_dir() and not TORCHVISION.get(name, "").startswith(f"DATA/{name}/"):
        raise ConfigError(f"{root / name} is not laid out as expected: {expected_layout(name)}")
    if name in TORCHVISION:
        return _read_torchvision(root, name)
    require(name not in IN_FOLDERS, f"{name} is not below {root}: expected {expected_layout(name)}")
    return None


def imagenet100() -> tuple[str, ...]:
    """The WordNet identifiers of IN-100 (Tian et al. 2020), sorted."""
    return tuple(sorted(resources.files("sarlib.data").joinpath("imagenet100.txt").read_text().split()))


def _is_tree(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / test).is_dir() for test in _TEST_FOLDERS)


def _read_tree(folder: Path, *, classes: tuple[str, ...] | None = None) -> tuple[Split, Split]:
    """An ImageFolder tree, or those of its classes that are named."""
    splits = folder / "train", next(folder / name for name in _TEST_FOLDERS if (folder / name).is_dir())
    train, test = (_class_names(split) for split in splits)
    if classes is None:
        odd = ", ".join(sorted(set(train) ^ set(test))[:5])
        require(not odd, f"{splits[0]} and {splits[1]} differ in their classes: {odd} in only one")
        classes = train
    for split, names in zip(splits, (train, test), strict=True):
        missing = sorted(set(classes) - set(names))
        some = f"{len(missing)} of the {len(classes)} classes, among them {', '.join(missing[:5])}"
        require(not missing, f"{split} lacks {some}")
    return tuple(_read_split(split, classes) for split in splits)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")))
    require(names != (), f"{folder} holds no class folders: expected {folder}/<class>/*.jpg")
    return names


def _read_split(folder: Path, classes: tuple[str, ...]) -> Split:
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(entry.path for entry in os.scandir(folder / name) if entry.name.lower().endswith(ENDINGS))
        require(found != [], f"the class folder {folder / name} holds no images ({', '.join(ENDINGS)})")
        files += map(Path, found)
        labels += [label] * len(found)
    return Split(classes, np.array(labels), files=tuple(files))


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
    for number, line in enumerate(map(str.strip, path.read_text().splitlines()), start=1):
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
    except (RuntimeError, OSError):
        pass  # absent or incomplete: fetch it
    try:
        with FileLock(root / f".{name}.lock"):
            return _as_torchvision_reads(root, name, download=True)
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
        case "oxford-iiit-pet":
            return files(datasets.OxfordIIITPet, "trainval"), files(datasets.OxfordIIITPet, "test")
        case "stanford-cars":  # `loader=Path` lists the files instead of decoding them, which the pets cannot
            return tuple(files(datasets.StanfordCars, split, loader=Path) for split in ("train", "test"))
        case "flowers102":  # as in the transfer literature the training and the validation split train together
            kind = datasets.Flowers102
            return files(kind, "train", "val", loader=Path), files(kind, "test", loader=Path)
