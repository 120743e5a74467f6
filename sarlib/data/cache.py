"""What identifies the images of a set, and decoded images, kept on disk as one memory map of bytes: the next start is instant.

An entry is a folder with `images.uint8`, (N, 3, S, S) bytes, and `manifest.json`, which says what they were made from and their
checksum; it is valid if the manifest is what would be written now and the checksum holds. Entries lie in SAR_CACHE, else in
~/.cache/sarlib, and may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from sarlib.config import ConfigError, require
from sarlib.data.folders import Split
from sarlib.durable import sweep, write_durably

if TYPE_CHECKING:
    from sarlib.data.images import Images

#: Sets in files are decoded once if that makes up to so many bytes (53,000 images of 224 px), else they stay files. The same on
#: every machine, because the two give other batches: a random resized crop of the decoded square or of the whole photograph.
#: The latter is sharper: of 500 ImageNet photographs with a shorter side of 256 px, such crops (scale from .08) have a mean
#: gradient that is 38 % larger at an input of 112 px, and 21 % at 224. `config.Data.crop_from` chooses the photograph.
MEMORY_LIMIT = 8 * 10**9

SOURCES = ("device", "memory", "files")  # of batches, see `sarlib.data.loader`

#: How a picture becomes a square. Part of the manifest: another way makes other entries.
_VIEW = "shorter side resized bicubically, centre cropped"

_SIZES_READ = 100_000  # per split: asking a network file system for the size of a million files would take minutes
_BLOCK = 2**24  # bytes with a checksum of their own, so that all cores can check
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that this process may use
_AT_A_TIME = 64  # pictures a core that are decoded before any of them is written


def digest(train: Split, test: Split) -> str:
    """16 hexadecimal digits of a whole set, wherever it lies: classes, labels, and pixels or the names and sizes of files.

    Sizes of at most 100,000 evenly spaced files per split are read. Editing a file without changing its size goes unnoticed.
    """
    found = hashlib.sha256()
    for split in (train, test):
        found.update(repr(split.classes).encode() + split.labels.tobytes())
        if split.pixels is not None:
            found.update(split.pixels)
        for number, file in enumerate(split.files or ()):
            size = _stat(file).st_size if number % (1 + len(split) // _SIZES_READ) == 0 else ""
            found.update(os.fsencode(f"{file.parent.name}/{file.name} {size}\n"))
        for one in split.annotations or ():
            sizes = [_stat(mask).st_size for mask in (one.class_mask, one.object_mask) if mask is not None]
            found.update(f"{one.labels} {one.boxes} {one.difficult} {one.trimap_of} {sizes}\n".encode())
    return found.hexdigest()[:16]


def _state(images: Images) -> str:
    """What the images are now, on this machine: sizes and times of the files that `digest` reads, or bytes in memory."""
    if images.files is None:
        return _hashed(images.pixels.contiguous().numpy())
    found = map(_stat, images.files[:: 1 + len(images) // _SIZES_READ])
    return _hashed("".join(f"{file.st_size} {file.st_mtime_ns}\n" for file in found).encode())


def _hashed(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _stat(file: Path) -> os.stat_result:
    try:
        return os.stat(file)
    except OSError as error:
        raise ConfigError(f"cannot read the image {file}: {error.strerror}") from error


def forced_source() -> str | None:
    """The source of batches that SAR_INPUT names, None if it names none; `ConfigError` for one that does not exist."""
    source, known = os.environ.get("SAR_INPUT") or None, ", ".join(SOURCES)
    require(source in (None, *SOURCES), f"SAR_INPUT={source} is no source of images: choose from {known}, or unset it")
    return source


def stay_files(images: Images, image_size: int) -> bool:
    """Are these files that are more than `MEMORY_LIMIT` once decoded, or that SAR_INPUT=files leaves where they are?"""
    small = len(images) * 3 * image_size**2 <= MEMORY_LIMIT
    return images.files is not None and (forced_source() or ("memory" if small else "files")) == "files"


def decoded_if_small(images: Images, image_size: int) -> Images:
    """`decoded`, but for images that `stay_files`."""
    return images if stay_files(images, image_size) else decoded(images, image_size)


def decoded(images: Images, image_size: int) -> Images:
    """The same images as pixels of image_size x image_size, as `Images.view` shows them, in a memory map; masks are left out.

    Of several processes that want the same images one decodes them, on all cores. An entry that does not hold is made anew,
    with one line that says why. Raises `ConfigError` for a picture that does not decode, and if the entry cannot be written;
    neither leaves a part of it.
    """
    import torch

    if images.image_size == (image_size, image_size) and images.crop == 1:
        return images
    part = "" if images.crop == 1 else f"{images.crop:g}"
    shape, view = [len(images), 3, image_size, image_size], f"{_VIEW}, {part} of it" if part else _VIEW
    wanted = {"shape": shape, "view": view, "source": _state(images)}
    which = wanted["source"] if images.files is None else [str(file.absolute()) for file in images.files]
    name = "-".join(filter(None, (_hashed(repr(which).encode()), f"{image_size}px", part)))
    entry = _folder() / name
    pixels, _ = _read(entry, wanted)
    if pixels is None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            with FileLock(entry / "lock"):
                pixels, flaw = _read(entry, wanted)  # another process may have written it meanwhile
                if flaw:
                    print(f"the decoded images {entry} are made anew: {flaw}", file=sys.stderr)
                if pixels is None:
                    pixels = _write(entry, wanted, images)
        except OSError as error:
            reason = f"cannot keep {math.prod(shape) / 1e9:.2f} GB of decoded images in {entry} ({error.strerror or error})"
            raise ConfigError(f"{reason}: make room or say SAR_CACHE=<another folder>") from error
    undone = dict.fromkeys(("files", "masks", "mask_labels", "boxes"))
    return dataclasses.replace(images, pixels=torch.from_numpy(pixels), crop=1.0, **undone)


def _folder() -> Path:
    try:
        return Path(os.environ.get("SAR_CACHE") or "~/.cache/sarlib").expanduser()
    except RuntimeError as error:  # an unknown user, as in a container
        raise ConfigError("no home folder to keep decoded images in: set HOME, or say SAR_CACHE=<a folder>") from error


def _read(entry: Path, wanted: dict[str, Any]) -> tuple[np.ndarray | None, str | None]:
    """The pixels, or None and what is wrong with an entry that is there."""
    path, expected = entry / "images.uint8", math.prod(wanted["shape"])
    try:
        manifest = json.loads((entry / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None, "it has no manifest" if path.exists() else None
    except (OSError, ValueError) as error:
        return None, f"its manifest cannot be read ({error})"
    if not isinstance(manifest, dict) or manifest | wanted != manifest:
        return None, "the images that it was made from have changed"
    try:
        size = path.stat().st_size
    except OSError as error:
        return None, f"its images cannot be read ({error.strerror})"
    if size != expected:
        return None, f"it has {size} bytes, not {expected}"
    pixels = np.memmap(path, np.uint8, mode="c", shape=tuple(wanted["shape"]))  # what is written into it stays in memory
    return (pixels, None) if _checksum(pixels) == manifest.get("checksum") else (None, "its checksum is wrong")


def _checksum(pixels: np.ndarray) -> str:
    """Against accidents, not against intent."""
    flat = pixels.reshape(-1)
    with ThreadPoolExecutor(_CORES) as pool:
        sums = list(pool.map(lambda start: zlib.crc32(flat[start : start + _BLOCK]), range(0, len(flat), _BLOCK)))
    return _hashed(repr(sums).encode())


def _write(entry: Path, manifest: dict[str, Any], images: Images) -> np.ndarray:
    """Decode and write them, the manifest last. The caller holds the entry's lock."""
    sweep(entry)
    path, about = entry / "images.uint8", entry / "manifest.json"
    about.unlink(missing_ok=True)
    path.unlink(missing_ok=True)  # what maps it keeps it
    if (free := shutil.disk_usage(entry).free) < math.prod(manifest["shape"]):
        raise OSError(f"{free / 1e9:.2f} GB are free")
    write_durably(path, lambda file: _decode_into(file, images, manifest["shape"][-1]))
    pixels = np.memmap(path, np.uint8, mode="c", shape=tuple(manifest["shape"]))
    write_durably(about, json.dumps(manifest | {"checksum": _checksum(pixels)}, indent=1).encode())
    return pixels


def _decode_into(file: BinaryIO, images: Images, image_size: int) -> None:
    def square(index: int) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(images.view(index, image_size)).transpose(2, 0, 1))

    # Threads: Pillow decodes and resizes outside the interpreter's lock, and what they return is not copied between processes.
    step = _AT_A_TIME * _CORES
    with ThreadPoolExecutor(_CORES) as pool, tqdm(total=len(images), desc="decoding", unit=" images", unit_scale=True) as bar:
        for start in range(0, len(images), step):
            block = range(start, min(start + step, len(images)))
            for pixels in pool.map(square, block):
                file.write(pixels)
            bar.update(len(block))
