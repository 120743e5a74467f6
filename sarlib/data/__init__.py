"""Where images come from. Importing this needs no torch, nor does finding and identifying sets, but for torchvision's own."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sarlib.config import ConfigError, Data, require
from sarlib.data import cache, clips, folders, released, voc
from sarlib.data.folders import CONFLICT, EMBEDDED, IN_FOLDERS, SHAPES, Split, discover

if TYPE_CHECKING:
    from sarlib.data.images import Images

__all__ = ["CONFLICT", "EMBEDDED", "IN_FOLDERS", "SHAPES"]
__all__ += ["Inspected", "discover", "inspect", "load", "require_declared", "summary"]


class Inspected(NamedTuple):
    """What a set below the data folder holds."""

    train: int  # images
    test: int
    fingerprint: str  # `Data.fingerprint`: a digest of all of it
    classes: int = 0
    ignored: tuple[str, ...] = ()  # names of the files beside the images


def load(spec: Data, *, seed: int, root: Path | None = None) -> tuple[Images, Images]:
    """The training and the test set of a declaration; `root` is the folder that holds the image sets which are not embedded.

    `seed` draws the training subset (for procedural shapes, the training images). Sets in files come as pixels where
    `sarlib.data.cache` decodes them; sets with objects (`sarlib.data.voc`) stay files and are seen whole.

    Raises `ConfigError` for an unknown name, data that are missing, misplaced or not those of `spec.fingerprint`, sizes beyond
    the set's, classes that differ between training and test, and files that cannot be decoded or kept decoded.
    """
    from sarlib.data import images, shapes

    moving = (*SHAPES, *clips.LAYOUTS)
    require(spec.frames == 1 or spec.name in moving, f"{spec.name} has images, no clips: frames are for {', '.join(moving)}")
    if spec.name.removesuffix(CONFLICT) in SHAPES:
        return shapes.load(spec, seed=seed)
    if spec.name == "digits":
        return images.digits(spec, seed=seed)
    whole = _whole(spec.name, root)
    require_declared(spec, *whole, root=root)
    train, test = images.subsets(*map(images.from_split, whole), spec=spec, seed=seed)
    shown = {"frames": spec.frames, "size": spec.image_size}
    if spec.name == clips.DAVIS:  # which has none to train on
        return (clips.sequences(test, **shown),) * 2
    if spec.name == clips.UCF101:
        return clips.videos(train, **shown), clips.videos(test, **shown)
    if voc.known(spec.name):  # which stay files: masks are decoded with their images
        return train, test
    test = dataclasses.replace(test, crop=spec.test_crop)
    if spec.crop_from == "square" or train.files is None:
        train = cache.decoded_if_small(train, spec.image_size)
    return train, cache.decoded_if_small(test, spec.image_size)


def require_declared(spec: Data, train: Split, test: Split, *, root: Path | None) -> None:
    """`ConfigError` if the images of a set below `root` are not those of `spec.fingerprint`."""
    same = not spec.fingerprint or spec.fingerprint == cache.digest(train, test)
    require(same, f"the images of {spec.name} below {root} are not those that the run was declared for: declare it anew")


def is_embedded(name: str) -> bool:
    """Whether the images of a set are part of this package, with cues in conflict or without."""
    return name.removesuffix(CONFLICT) in EMBEDDED


def inspect(name: str, *, root: Path | None) -> Inspected:
    """What the set `name` below `root` holds, also one to test on alone (`sarlib.data.released`). Raises as `load` does."""
    train, test = (released.listed(name, root=root),) * 2 if name in released.SETS else _whole(name, root)
    mark, classes = cache.digest(train, test), len(test.classes)
    if train is test:  # there are none to train on
        return Inspected(0, len(test), mark, classes, test.ignored)
    return Inspected(len(train), len(test), mark, classes, (*train.ignored, *test.ignored))


def summary(found: Mapping[str, Inspected]) -> str:
    """One line: sets by name, their classes and images, and how many files beside these are ignored."""
    lines = []
    for name, each in sorted(found.items()):
        endings = Counter(os.path.splitext(file)[1].lower() or "without ending" for file in each.ignored)
        ignored = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items())) or "none"
        counts = f"{each.classes} classes, {each.train} training and {each.test} test images"
        lines.append(f"{name}: {counts}, files ignored: {ignored}")
    return "; ".join(lines)


def _whole(name: str, root: Path | None) -> tuple[Split, Split]:
    """All images of a set that lies below `root`."""
    if root is None and (name in (*IN_FOLDERS, *clips.LAYOUTS) or voc.known(name)):
        raise ConfigError(f"the data set {name!r} is not embedded: say DATA=<folder that holds it>")
    own, advice = (), "your own need DATA=<folder that holds them>"
    if root is not None:
        root = Path(root).expanduser()
        if voc.known(name):
            return voc.read(root, name)
        if name in clips.LAYOUTS:
            return clips.find(root, name)
        own, advice = folders.trees(root), f"as folders it would be {folders.expected_layout(name)}"
        if (found := folders.read(root, name)) is not None:
            return found
    known = ", ".join(dict.fromkeys((*EMBEDDED, *IN_FOLDERS, *voc.SETS, voc.PETS, voc.HEADS, *clips.LAYOUTS, *own)))
    raise ConfigError(f"unknown data set {name!r}; known: {known}; {advice}")
