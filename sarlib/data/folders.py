"""Image sets that lie in folders: ImageFolder trees, ImageNet restricted to IN-100, and DomainNet with its official lists."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import torch

from sarlib.config import ConfigError
from sarlib.data.images import Images

DOMAINNET = ("clipart", "painting", "sketch")
_TEST_FOLDERS = ("test", "val")


def expected_layout(name: str) -> str:
    """What a tree of this name must look like, in one line."""
    if name in DOMAINNET:
        lists = f"DATA/{name}_train.txt and DATA/{name}_test.txt with lines '{name}/<class>/<image> <label>'"
        return f"{lists}, and DATA/{name}/<class>/*.jpg"
    folder = "imagenet" if name == "imagenet100" else name
    return f"DATA/{folder}/train/<class>/*.jpg and DATA/{folder}/test/<class>/*.jpg (or val for test), the same classes in both"


def discover(root: Path) -> tuple[str, ...]:
    """Names of the ImageFolder sets in the folder `root`, sorted; `root` may also be one such tree itself."""
    if not root.is_dir():
        raise ConfigError(f"the data folder {root} does not exist: say DATA=<folder that holds the image sets>")
    names = {entry.name for entry in root.iterdir() if _is_tree(entry)}
    return tuple(sorted(names | ({root.resolve().name} if _is_tree(root) else set())))


def find(root: Path, name: str) -> tuple[Images, Images] | None:
    """The whole training and test set `name` below `root` as files; None if it is not there in this layout."""
    for place in (root / name, *([root] if root.resolve().name == name else [])):
        if _is_tree(place):
            return _read_tree(place, classes=None)
    if name == "imagenet100" and _is_tree(root / "imagenet"):
        return _read_tree(root / "imagenet", classes=imagenet100())
    if name in DOMAINNET:
        for base in (root, root / "domainnet"):
            if (base / f"{name}_train.txt").is_file():
                return _read_lists(base, name)
    return None


def imagenet100() -> tuple[str, ...]:
    """The WordNet identifiers of IN-100 (Tian et al. 2020), sorted."""
    return tuple(sorted(resources.files("sarlib.data").joinpath("imagenet100.txt").read_text().split()))


def _is_tree(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / test).is_dir() for test in _TEST_FOLDERS)


def _read_tree(folder: Path, *, classes: tuple[str, ...] | None) -> tuple[Images, Images]:
    test = next(folder / name for name in _TEST_FOLDERS if (folder / name).is_dir())
    names = _class_names(folder / "train"), _class_names(test)
    if classes is None:
        if names[0] != names[1]:
            odd = sorted(set(names[0]) ^ set(names[1]))
            raise ConfigError(f"{folder / 'train'} and {test} differ in their classes: {', '.join(odd[:5])} in only one")
        classes = names[0]
    for split, present in zip((folder / "train", test), names):
        missing = sorted(set(classes) - set(present))
        if missing:
            some = ", ".join(missing[:5])
            raise ConfigError(f"{split} lacks {len(missing)} of the {len(classes)} classes, among them {some}")
    return _read_split(folder / "train", classes), _read_split(test, classes)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")))
    if not names:
        raise ConfigError(f"{folder} holds no class folders: expected {folder}/<class>/*.jpg")
    return names


def _read_split(folder: Path, classes: tuple[str, ...]) -> Images:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # seconds of imports, for real sets only

    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(entry.path for entry in os.scandir(folder / name) if entry.name.lower().endswith(IMG_EXTENSIONS))
        if not found:
            raise ConfigError(f"the class folder {folder / name} holds no images ({', '.join(IMG_EXTENSIONS)})")
        files.extend(map(Path, found))
        labels.extend([label] * len(found))
    return Images(labels=torch.tensor(labels), classes=classes, files=tuple(files))


def _read_lists(base: Path, name: str) -> tuple[Images, Images]:
    splits = [_read_list(base, base / f"{name}_{split}.txt") for split in ("train", "test")]
    classes = splits[0][2] | splits[1][2]
    if splits[0][2] != splits[1][2] or set(classes) != set(range(len(classes))):
        raise ConfigError(f"the lists {name}_train.txt and {name}_test.txt in {base} do not name the same classes 0, 1, 2, ...")
    names = tuple(classes[label] for label in range(len(classes)))
    return tuple(Images(labels=torch.tensor(labels), classes=names, files=files) for files, labels, _ in splits)


def _read_list(base: Path, path: Path) -> tuple[tuple[Path, ...], list[int], dict[int, str]]:
    """Files, labels, and the class of each label (the file's folder) of one official list."""
    if not path.is_file():
        raise ConfigError(f"the list {path} is missing")
    files, labels, classes = [], [], {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(" ")
        if not file or not label.isdigit():
            raise ConfigError(f"{path}, line {number}: expected '<domain>/<class>/<image> <label>', got {line.strip()[:80]!r}")
        files.append(base / file)
        labels.append(int(label))
        classes[int(label)] = Path(file).parent.name
    if not files:
        raise ConfigError(f"the list {path} names no image")
    if not files[0].is_file():
        raise ConfigError(f"{path} names {files[0]}, which does not exist: unpack the domain's images beside its lists")
    return tuple(files), labels, classes
