"""What identifies the images of a real set, so that other images under an old name are not taken for the same data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sarlib.config import ConfigError
from sarlib.data.images import Images

_SIZES_READ = 100_000  # per split: asking a network file system for the size of a million files would take minutes


def digest(train: Images, test: Images) -> str:
    """16 hexadecimal digits of a whole set, wherever it lies: classes, labels, and the bytes of images in memory or the
    names and sizes of files.

    Sizes of at most 100,000 evenly spaced files per split are read. Editing a file without changing its size goes unnoticed.
    """
    told = hashlib.sha256()
    for images in (train, test):
        told.update(repr(images.classes).encode() + images.labels.numpy().tobytes())
        if images.pixels is not None:
            told.update(images.pixels.contiguous().numpy().tobytes())
            continue
        for number, file in enumerate(images.files):
            size = _stat(file).st_size if number % (1 + len(images.files) // _SIZES_READ) == 0 else ""
            told.update(f"{file.parent.name}/{file.name} {size}\n".encode())
    return told.hexdigest()[:16]


def state(images: Images) -> str:
    """16 hexadecimal digits of what the images are now, on this machine: the sizes and times of their files, read as in `digest`, or the
    bytes of those in memory."""
    told = hashlib.sha256()
    if images.files is None:
        told.update(images.pixels.contiguous().numpy().tobytes())
    else:
        for file in images.files[:: 1 + len(images.files) // _SIZES_READ]:
            found = _stat(file)
            told.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return told.hexdigest()[:16]


def _stat(file: Path) -> os.stat_result:
    try:
        return os.stat(file)
    except OSError as error:
        raise ConfigError(f"cannot read the image {file}: {error.strerror}") from error
