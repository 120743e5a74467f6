"""Saving a training so that it goes on exactly where it was, and telling when a checkpoint cannot be used.

    <folder>/checkpoint.pt            the newest: what `torch.save` writes, its SHA-256 (32 bytes), and 8 bytes that name this layout
             checkpoint.previous.pt   the one before
             checkpoint*.corrupt      one that could not be used, moved aside

The checksum is part of the file, so that one rename puts both in place. It guards against accidents (a lost block, a flipped bit, a file
cut short); against malice there is `weights_only`, under which torch's unpickler builds tensors and plain data and calls nothing else.
torch's format and not safetensors, because an optimizer's state is nested and has numbers for keys.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sarlib.config import TrainingError
from sarlib.durable import as_training_error, sweep, write_durably

FILE = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"

_LAYOUT = b"sarckpt1"
_TRAILER = hashlib.sha256().digest_size + len(_LAYOUT)
_PLAIN = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None)}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Make `state` the folder's newest checkpoint, in one step; the newest so far becomes the one before.

    `state` has its run's key under "key", and otherwise tensors, None, numbers, strings, and lists, tuples and dicts of them: `TypeError`
    for anything else, which could not be loaded again. The caller alone writes to `folder` (it holds the store's lock; of several
    processes it is the first). `TrainingError` if the disk is full or the folder not writable: the checkpoints there are as they were.
    """
    _require_plain(state, "state")
    serialized = io.BytesIO()
    torch.save(state, serialized)
    payload = serialized.getbuffer()

    def write(file: BinaryIO) -> None:
        file.write(payload)
        file.write(hashlib.sha256(payload).digest() + _LAYOUT)

    what, size = f"the checkpoint of run {state['key']}", len(payload) + _TRAILER
    with as_training_error(what, folder=folder, size=size, left=what_is_kept(folder)):
        sweep(folder)
        write_durably(folder / FILE, write, previous=folder / PREVIOUS)


def load(folder: Path, *, key: str, device: torch.device) -> dict[str, Any] | None:
    """The newest whole checkpoint of the run `key` in `folder` with its tensors on `device`, or None if there is none.

    One that cannot be used (its checksum is wrong, it is another run's, it holds more than tensors and plain data) is moved aside, told in
    one line on stderr, and the one before it is used; `TrainingError` if it cannot be moved. Several processes may load at once; nobody
    may save until all have loaded.
    """
    unusable = []
    for path in (folder / FILE, folder / PREVIOUS):
        try:
            state = _read(path, key=key, device=device)
        except FileNotFoundError:  # also: of two processes the other has just moved it aside
            continue
        except (OSError, ValueError) as error:
            unusable.append((path, error))
            continue
        _tell(unusable, instead=f"the run goes on from {path.name}")
        return state
    _tell(unusable, instead="the run starts again")
    return None


def what_is_kept(folder: Path) -> str:
    """For the message of a training that cannot go on: what a later start resumes from."""
    kept = any((folder / name).exists() for name in (FILE, PREVIOUS))
    return "its last checkpoint is intact" if kept else "no checkpoint of it had been saved before"


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in (PREVIOUS, FILE):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path, *, key: str, device: torch.device) -> dict[str, Any]:
    """The checkpoint at `path`. Nothing of it is interpreted before its checksum is found right."""
    with path.open("rb") as file:
        payload = file.read(max(0, os.fstat(file.fileno()).st_size - _TRAILER))
        trailer = file.read()
    if not trailer.endswith(_LAYOUT):
        raise ValueError("it is cut short or no checkpoint")
    if trailer != hashlib.sha256(payload).digest() + _LAYOUT:
        raise ValueError("its checksum is wrong")
    try:
        state = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds more than tensors and plain data, and was not unpickled") from error
    if not isinstance(state, dict) or "key" not in state:
        raise ValueError("it names no run")
    if state["key"] != key:
        raise ValueError(f"it belongs to run {state['key']}")
    return state


def _tell(unusable: list[tuple[Path, Exception]], *, instead: str) -> None:
    """Move aside what cannot be used, and say so."""
    for path, error in unusable:
        aside = path.with_suffix(".corrupt")
        try:
            path.replace(aside)
        except FileNotFoundError:  # another process of this training has just done so, and told
            continue
        except OSError as failure:
            raise TrainingError(
                f"checkpoint {path} cannot be used ({error}), nor moved aside ({failure.strerror})"
            ) from failure
        print(f"checkpoint {path} cannot be used ({error}); moved to {aside.name}, {instead}", file=sys.stderr)


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, Tensor):
        return
    if type(value) not in _PLAIN:  # not isinstance: a NumPy float is a float, but is pickled as NumPy's
        raise TypeError(
            f"a checkpoint holds tensors and plain data, and {where} is a {type(value).__module__}.{type(value).__name__}"
        )
    if isinstance(value, dict):
        for name, item in value.items():
            _require_plain(name, f"a key of {where}")
            _require_plain(item, f"{where}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _require_plain(item, f"{where}[{i}]")
