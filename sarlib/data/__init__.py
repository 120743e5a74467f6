"""Where images come from: `load` turns a declaration into a training and a test set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib import config
from sarlib.data import cache, digits, folders, shapes, sources, torchvision_sets
from sarlib.data.fingerprint import digest
from sarlib.data.folders import discover
from sarlib.data.images import Images
from sarlib.data.shape_styles import STYLES
from sarlib.data.splits import subsets

SHAPES = tuple(f"shapes-{style}" for style in STYLES)
EMBEDDED = (*SHAPES, "digits")
IN_FOLDERS = (*torchvision_sets.LAYOUTS, *folders.DOMAINNET, "imagenet", "imagenet100")

#: Sets in files are decoded once if that makes up to so many bytes (53,000 images of 224 px), else they stay files. It is the same on every
#: machine, because the two give different batches: a random resized crop from the decoded square and from the whole photograph.
MEMORY_LIMIT = 8 * 10**9

__all__ = ["EMBEDDED", "IN_FOLDERS", "MEMORY_LIMIT", "SHAPES", "Images", "discover", "fingerprint", "inspect", "load"]


def load(spec: config.Data, *, seed: int, root: Path | None = None) -> tuple[Images, Images]:
    """The training and the test set of a declaration; `root` is the folder that holds the image sets which are not embedded.

    `seed` draws the training subset (for procedural shapes, the training images); the test set never depends on it. Sets
    that fit into `MEMORY_LIMIT` come as pixels of the declared size, a memory map that is made once (`sarlib.data.cache`): shorter
    side resized (bicubic, antialiased), centre cropped (of test images the share `spec.test_crop`); a random resized crop then cuts from that square, not from the whole
    photograph. SAR_INPUT (`sarlib.data.sources`) decodes larger sets too, or none.

    Raises `ConfigError` for an unknown name, missing or misplaced data (with the expected layout), sizes beyond the set's,
    classes that differ between training and test, a file that does not decode, decoded images that cannot be kept, and images that
    are not those of `spec.fingerprint`.
    """
    if spec.name in SHAPES:
        return shapes.load(spec, seed=seed)
    if spec.name == "digits":
        return digits.load(spec, seed=seed)
    whole = _whole(spec.name, root)
    if spec.fingerprint and spec.fingerprint != digest(*whole):
        told = f"the images of {spec.name} below {root} are not those that the run was declared for"
        raise config.ConfigError(f"{told}: declare it anew")
    train, test = subsets(*whole, spec=spec, seed=seed)
    test = dataclasses.replace(test, crop=spec.test_crop)
    return _decoded_if_small(train, spec.image_size), _decoded_if_small(test, spec.image_size)


def fingerprint(name: str, *, root: Path | None = None) -> str:
    """`Data.fingerprint` of a set: "" for an embedded one, else a digest of what lies below `root`. Raises as `load` does."""
    return "" if name in EMBEDDED else digest(*_whole(name, root))


def inspect(name: str, *, root: Path) -> tuple[int, int, str]:
    """Number of training and of test images, and the fingerprint, of a set below `root`; raises `ConfigError` as `load` does."""
    train, test = _whole(name, root)
    return len(train), len(test), digest(train, test)


def _whole(name: str, root: Path | None) -> tuple[Images, Images]:
    """All images of a set that lies below `root`. A folder tree of that name wins over torchvision's own layout."""
    if root is None:
        if name in IN_FOLDERS:
            raise config.ConfigError(f"the data set {name!r} is not embedded: say DATA=<folder that holds it>")
        raise config.ConfigError(f"unknown data set {name!r}; known: {_known()}; your own need DATA=<folder that holds them>")
    root = Path(root).expanduser()
    own = discover(root)
    found = folders.find(root, name)
    if found is not None:
        return found
    if (root / name).is_dir() and not torchvision_sets.lies_in(name):
        raise config.ConfigError(f"{root / name} is not laid out as expected: {folders.expected_layout(name)}")
    if name in torchvision_sets.LAYOUTS:
        return torchvision_sets.read(root, name)
    if name in IN_FOLDERS:
        raise config.ConfigError(f"{name} is not below {root}: expected {folders.expected_layout(name)}")
    as_folders = folders.expected_layout(name)
    raise config.ConfigError(f"unknown data set {name!r}; known: {_known(own)}; as folders it would be {as_folders}")


def _known(own: tuple[str, ...] = ()) -> str:
    return ", ".join(dict.fromkeys((*EMBEDDED, *IN_FOLDERS, *own)))


def _decoded_if_small(images: Images, image_size: int) -> Images:
    source = sources.forced()
    small = len(images) * 3 * image_size**2 <= MEMORY_LIMIT
    stay_files = images.files is not None and (source == "files" or (source is None and not small))
    return images if stay_files else cache.decoded(images, image_size)
