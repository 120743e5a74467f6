"""Where images come from. Importing this needs no torch, nor does finding and identifying sets, but for torchvision's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sarlib.config import ConfigError, Data, require
from sarlib.data import cache, clips, folders, voc
from sarlib.data.folders import CONFLICT, EMBEDDED, IN_FOLDERS, SHAPES, discover, summary

if TYPE_CHECKING:
    from sarlib.data.images import Images

__all__ = [
    "CONFLICT",
    "EMBEDDED",
    "IN_FOLDERS",
    "SHAPES",
    "discover",
    "fingerprint",
    "inspect",
    "load",
    "summary",
    "with_masks",
]


def load(spec: Data, *, seed: int, root: Path | None = None) -> tuple[Images, Images]:
    """The training and the test set of a declaration; `root` is the folder that holds the image sets which are not embedded.

    `seed` draws the training subset (for procedural shapes, the training images); the test set never depends on it. Sets in
    files come as pixels of the declared size where `sarlib.data.cache` decodes them: shorter side resized, centre cropped (of
    test images the share `spec.test_crop`); a random resized crop then cuts from that square, not from the whole photograph.
    Sets with objects (`sarlib.data.voc`) stay files and are seen whole.
    Where `spec.crop_from` says photograph, the training images stay files.

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
    if spec.fingerprint and spec.fingerprint != cache.digest(*whole):
        changed = f"the images of {spec.name} below {root} are not those that the run was declared for"
        raise ConfigError(f"{changed}: declare it anew")
    train, test = images.subsets(*map(images.from_split, whole), spec=spec, seed=seed)
    if spec.name in clips.LAYOUTS:
        return clips.load(spec, train, test)
    if voc.known(spec.name):  # which stay files: masks are decoded with their images
        return train, test
    test = dataclasses.replace(test, crop=spec.test_crop)
    if spec.crop_from == "square" or train.files is None:
        train = cache.decoded_if_small(train, spec.image_size)
    return train, cache.decoded_if_small(test, spec.image_size)


def with_masks(root: Path | None) -> tuple[str, ...]:
    """Names of the sets below `root` of which every image has object masks (see `sarlib.data.voc`)."""
    found = () if root is None else voc.discover(root)
    return tuple(name for name in found if name.rpartition("/")[2] in voc.WITH_MASKS)


def is_embedded(name: str) -> bool:
    """Whether the images of a set are part of this package, with cues in conflict or without."""
    return name.removesuffix(CONFLICT) in EMBEDDED


def fingerprint(name: str, *, root: Path | None = None) -> str:
    """`Data.fingerprint` of a set: "" for an embedded one, else a digest of what lies below `root`. Raises as `load` does."""
    return "" if is_embedded(name) else cache.digest(*_whole(name, root))


def inspect(name: str, *, root: Path) -> tuple[int, int, str]:
    """Number of training and of test images, and the fingerprint, of a set below `root`. Raises as `load` does."""
    train, test = _whole(name, root)
    return len(train), len(test), cache.digest(train, test)


def _whole(name: str, root: Path | None) -> tuple[folders.Split, folders.Split]:
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
    known = ", ".join(dict.fromkeys((*EMBEDDED, *IN_FOLDERS, *voc.SETS, voc.PETS, *clips.LAYOUTS, *own)))
    raise ConfigError(f"unknown data set {name!r}; known: {known}; {advice}")
