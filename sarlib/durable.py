"""Writing files so that a reader sees the old one or the new one, never a half: temporary file, fsync, rename, fsync."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sarlib.config import TrainingError

MIB = 2**20
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_durably(path: Path, content: bytes | Callable[[BinaryIO], None], *, previous: Path | None = None) -> None:
    """Replace `path` by `content` (bytes, or a function that writes to an open binary file) in one step.

    Killed at any moment, `path` holds either what it held before or all of the new content. With `previous`, what it held
    before stays under that name, in the same folder; a kill may leave `path` absent, but then its old content is in `previous`.
    `OSError` if the folder cannot be written, the disk is full included: `path` is as before and nothing half-written is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(name, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # where the rename itself is durable only once the folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed. Only for who alone writes to `folder`."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


@contextmanager
def as_training_error(what: str, *, folder: Path, size: int, left: str) -> Iterator[None]:
    """Turn an `OSError` of the body into a `TrainingError` of one line: `what` cannot be written to `folder`, and why.

    For want of space it says how much is free beside the `size` (bytes) of what is written. It ends with what is `left`.
    """
    try:
        yield
    except OSError as error:
        advice = "put that right and start again"
        if error.errno in NO_SPACE:
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
            advice = f"it needs {size / MIB:.1f} MiB and {free / MIB:.1f} MiB are free: make room and start again"
        raise TrainingError(f"{what} cannot be written to {folder} ({error.strerror or error}); {advice}; {left}") from error
