"""Images of a set decoded once: kept on disk as one memory map of bytes, so that the next start is instant.

An entry is a folder with `images.uint8`, (N, 3, S, S) bytes, and `manifest.json`, which says what they were made from and their checksum;
it is valid if the manifest is what would be written now and the checksum holds. Entries lie in SAR_CACHE, else in ~/.cache/sarlib, and may
be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from sarlib.config import ConfigError
from sarlib.data.fingerprint import state
from sarlib.data.images import Images
from sarlib.durable import sweep, write_durably

VARIABLE = "SAR_CACHE"

#: How a picture becomes a square. Part of the manifest: another way makes other entries.
_VIEW = "shorter side resized bicubically, centre cropped"
_PART = ", {:g} of it"

_BLOCK = 2**24  # bytes with a checksum of their own, so that all cores can check
_AT_A_TIME = 64  # pictures a core that are decoded before any of them is written


def folder() -> Path:
    """Where the entries lie."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/sarlib").expanduser()


def decoded(images: Images, image_size: int) -> Images:
    """The same images as pixels of image_size x image_size, each as `Images.view` shows it, in a memory map; masks are left out.

    Of several processes that want the same images one decodes them, on all cores. An entry that does not hold is made anew, which is told
    in one line. Raises `ConfigError` for a picture that does not decode, and if the entry cannot be written; neither leaves a part of it.
    """
    if images.image_size == (image_size, image_size) and images.crop == 1:
        return images
    wanted = {"shape": [len(images), 3, image_size, image_size], "view": _view(images), "source": state(images)}
    entry = folder() / _name(images, image_size)
    pixels, _ = _read(entry, wanted)
    if pixels is None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            with FileLock(entry / "lock"):
                pixels, flaw = _read(entry, wanted)  # another process may have written it meanwhile
                if pixels is None:
                    if flaw:
                        print(f"the decoded images {entry} are made anew: {flaw}", file=sys.stderr)
                    pixels = _write(entry, wanted, images)
        except OSError as error:
            told = f"cannot keep {_bytes(wanted) / 1e9:.2f} GB of decoded images in {entry} ({error.strerror or error})"
            raise ConfigError(f"{told}: make room or say {VARIABLE}=<another folder>") from error
    return Images(labels=images.labels, classes=images.classes, pixels=pixels)


def _name(images: Images, image_size: int) -> str:
    """Of the entry: which images, wherever their content has got to since."""
    which = [str(file.absolute()) for file in images.files] if images.files is not None else state(images)
    part = "" if images.crop == 1 else f"-{images.crop:g}"
    return f"{hashlib.sha256(repr(which).encode()).hexdigest()[:16]}-{image_size}px{part}"


def _view(images: Images) -> str:
    return _VIEW if images.crop == 1 else _VIEW + _PART.format(images.crop)


def _bytes(manifest: dict[str, Any]) -> int:
    return int(np.prod(manifest["shape"]))


def _read(entry: Path, wanted: dict[str, Any]) -> tuple[Tensor | None, str | None]:
    """The pixels, or None and what is wrong with an entry that is there."""
    path = entry / "images.uint8"
    try:
        manifest = json.loads((entry / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None, "it has no manifest" if path.exists() else None
    except (OSError, ValueError) as error:
        return None, f"its manifest cannot be read ({error})"
    if not isinstance(manifest, dict) or {name: manifest.get(name) for name in wanted} != wanted:
        return None, "the images that it was made from have changed"
    try:
        size = path.stat().st_size
    except OSError as error:
        return None, f"its images cannot be read ({error.strerror})"
    if size != _bytes(wanted):
        return None, f"it has {size} bytes, not {_bytes(wanted)}"
    pixels = _mapped(path, wanted)
    return (pixels, None) if _checksum(pixels) == manifest.get("checksum") else (None, "its checksum is wrong")


def _mapped(path: Path, manifest: dict[str, Any]) -> Tensor:
    """Private to the process: what is written into it stays in memory."""
    return torch.from_file(str(path), shared=False, size=_bytes(manifest), dtype=torch.uint8).view(manifest["shape"])


def _checksum(pixels: Tensor) -> str:
    """16 hexadecimal digits: against accidents, not against intent."""
    flat = pixels.flatten().numpy()
    with ThreadPoolExecutor(_cores()) as pool:
        sums = list(pool.map(lambda start: zlib.crc32(flat[start : start + _BLOCK]), range(0, len(flat), _BLOCK)))
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def _write(entry: Path, manifest: dict[str, Any], images: Images) -> Tensor:
    """Decode and write them, the manifest last. The caller holds the entry's lock."""
    sweep(entry)
    (entry / "manifest.json").unlink(missing_ok=True)
    (entry / "images.uint8").unlink(missing_ok=True)  # what maps it keeps it
    if shutil.disk_usage(entry).free < _bytes(manifest):
        raise OSError(f"{shutil.disk_usage(entry).free / 1e9:.2f} GB are free")
    path = entry / "images.uint8"
    write_durably(path, lambda file: _decode_into(file, images, manifest["shape"][-1]))
    pixels = _mapped(path, manifest)
    content = {**manifest, "checksum": _checksum(pixels)}
    write_durably(entry / "manifest.json", json.dumps(content, indent=1).encode())
    return pixels


def _decode_into(file: BinaryIO, images: Images, image_size: int) -> None:
    def square(index: int) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(images.view(index, image_size)).transpose(2, 0, 1))

    # Threads: Pillow decodes and resizes outside the interpreter's lock, and what they return is not copied between processes.
    step = _AT_A_TIME * _cores()
    with ThreadPoolExecutor(_cores()) as pool, tqdm(total=len(images), desc="decoding", unit=" images", unit_scale=True) as bar:
        for start in range(0, len(images), step):
            block = range(start, min(start + step, len(images)))
            for pixels in pool.map(square, block):
                file.write(pixels.data)
            bar.update(len(block))


def _cores() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
