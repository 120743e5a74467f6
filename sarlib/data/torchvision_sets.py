"""Image sets that torchvision knows, by the names the tables use; downloaded below the data folder where torchvision can."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from filelock import FileLock

from sarlib.config import ConfigError
from sarlib.data.images import Images

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

#: name -> layout below the data folder
LAYOUTS = {
    "cifar10": "DATA/cifar-10-batches-py/ or the ImageFolder tree DATA/cifar10/{train,test}/<class>/*.png",
    "cifar100": "DATA/cifar-100-python/",
    "flowers102": "DATA/flowers-102/{jpg/,imagelabels.mat,setid.mat}",
    "oxford-iiit-pet": "DATA/oxford-iiit-pet/{images/,annotations/}",
    "stanford-cars": "DATA/stanford_cars/{cars_train/,cars_test/,devkit/,cars_test_annos_withlabels.mat}",
}


def lies_in(folder: str) -> bool:
    """Does torchvision keep the set of this name in a folder of this name? Such a folder is no misplaced ImageFolder tree."""
    return LAYOUTS.get(folder, "").startswith(f"DATA/{folder}/")


def read(root: Path, name: str) -> tuple[Images, Images]:
    """The whole training and test set; downloads what is missing. `ConfigError` with the expected layout where that fails."""
    # torchvision takes seconds to import, which only these sets should cost.
    from torchvision import datasets

    builders = {
        "cifar10": _cifar10,
        "cifar100": _cifar100,
        "flowers102": _flowers,
        "oxford-iiit-pet": _pets,
        "stanford-cars": _cars,
    }
    build = builders[name]
    try:
        return build(datasets, root, download=False)
    except (RuntimeError, OSError):
        pass  # absent or incomplete: fetch it
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            return build(datasets, root, download=True)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        told = f"{name} is not below {root} and cannot be downloaded ({reason})"
        raise ConfigError(f"{told}; expected {LAYOUTS[name]}") from error


def _cifar10(datasets: ModuleType, root: Path, *, download: bool) -> tuple[Images, Images]:
    return tuple(_in_memory(datasets.CIFAR10(root, train=train, download=download)) for train in (True, False))


def _cifar100(datasets: ModuleType, root: Path, *, download: bool) -> tuple[Images, Images]:
    return tuple(_in_memory(datasets.CIFAR100(root, train=train, download=download)) for train in (True, False))


def _in_memory(dataset: CIFAR10) -> Images:
    pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return Images(labels=torch.tensor(dataset.targets), classes=tuple(dataset.classes), pixels=pixels)


def _flowers(datasets: ModuleType, root: Path, *, download: bool) -> tuple[Images, Images]:
    """102 classes; as in the transfer literature the training and the validation split train together."""
    # `loader=Path` lists the files instead of decoding them.
    splits = ("train", "val", "test")
    parts = {split: datasets.Flowers102(root, split=split, download=download, loader=Path) for split in splits}
    classes = tuple(datasets.Flowers102.classes)
    return _files([*parts["train"], *parts["val"]], classes), _files(list(parts["test"]), classes)


def _cars(datasets: ModuleType, root: Path, *, download: bool) -> tuple[Images, Images]:
    parts = [datasets.StanfordCars(root, split=split, download=download, loader=Path) for split in ("train", "test")]
    return tuple(_files(list(part), tuple(part.classes)) for part in parts)


def _pets(datasets: ModuleType, root: Path, *, download: bool) -> tuple[Images, Images]:
    parts = [datasets.OxfordIIITPet(root, split=split, download=download) for split in ("trainval", "test")]
    # This class alone takes no loader; its lists of files and labels have no public name.
    return tuple(_files(list(zip(part._images, part._labels)), tuple(part.classes)) for part in parts)


def _files(samples: list[tuple[Path, int]], classes: tuple[str, ...]) -> Images:
    labels = torch.tensor([int(label) for _, label in samples])
    return Images(labels=labels, classes=classes, files=tuple(Path(path) for path, _ in samples))
