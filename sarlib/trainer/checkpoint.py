"""Saving a training so that it goes on exactly where it was, and setting aside a checkpoint that cannot be used.

    <folder>/checkpoint.pt            the newest: what `torch.save` writes, its SHA-256 (32 bytes), 8 bytes that name the layout
             checkpoint.previous.pt   the one before
             checkpoint*.corrupt      one that could not be used, moved aside

The checksum is part of the file, so that one rename puts both in place. It guards against accidents (a lost block, a flipped
bit, a file cut short); against malice there is `weights_only`, under which torch's unpickler builds tensors and plain data and
calls nothing else. torch's format and not safetensors, because an optimizer's state is nested and has numbers for keys.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sarlib.config import TrainingError
from sarlib.durable import as_training_error, sweep, write_durably
from sarlib.run import Run
from sarlib.trainer.distributed import Ranks

if TYPE_CHECKING:  # the store asks what a folder holds, and answers without torch
    import torch

FILE = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"

_LAYOUT = b"sarckpt1"
_TRAILER = hashlib.sha256().digest_size + len(_LAYOUT)
_PLAIN = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None)}


@dataclass
class Progress:
    """Where a training is: everything a checkpoint holds beside the tensors. `history` has one row a measurement:
    epoch, split (train or test), metric, value."""

    epoch: int = 0
    step: int = 0  # steps done within `epoch`
    seconds: float = 0.0
    waited: float = 0.0  # seconds of those in which the first process waited for its next batch
    losses: list[list[float]] = field(default_factory=list)  # (task, regularizers ...) of the steps done within `epoch`
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self, split: str, measured: dict[str, float]) -> None:
        self.history += [
            {"epoch": self.epoch, "split": split, "metric": name, "value": value} for name, value in measured.items()
        ]


@dataclass(frozen=True)
class State:
    """All that a checkpoint holds of a training beside its `Progress`: what has a state dict, by name."""

    run: Run
    folder: Path
    parts: dict[str, Any]

    def save(self, progress: Progress) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save(self.folder, {"key": self.run.key, "progress": vars(progress), **parts})

    def resume(self, device: torch.device, ranks: Ranks) -> Progress:
        """Puts what the checkpoint holds in place of the fresh state; a fresh `Progress` if there is none.

        The first process looks first, so that a broken checkpoint is set aside once. `TrainingError` where another does not see
        it, or it was written by another version of this package.
        """
        state = load(self.folder, key=self.run.key, device=device) if ranks.first else None
        if not ranks.broadcast(state is not None):
            return Progress()
        if not ranks.first:
            state = load(self.folder, key=self.run.key, device=device)
        if state is None:
            raise TrainingError(
                f"process {ranks.rank} does not see the checkpoint in {self.folder}: all machines must share the runs folder"
            )
        if state.keys() != {"key", "progress", *self.parts}:
            raise TrainingError(
                f"the checkpoint in {self.folder} is of another version of sarlib: finish the run with that one, or remove it"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return Progress(**state["progress"])


def save(folder: Path, state: dict[str, Any]) -> None:
    """Make `state` the folder's newest checkpoint, in one step; the newest so far becomes the one before.

    `state` has its run's key under "key", and otherwise tensors, None, numbers, strings, and lists, tuples and dicts of them:
    `TypeError` for anything else, which could not be loaded again. The caller alone writes to `folder` (it holds the store's
    lock; of several processes it is the first). `TrainingError` if the disk is full or the folder not writable: the checkpoints
    there are as they were.
    """
    import torch

    _require_plain(state, "state")
    serialized = io.BytesIO()
    torch.save(state, serialized)
    payload = serialized.getbuffer()

    def write(file: BinaryIO) -> None:
        file.write(payload)
        file.write(hashlib.sha256(payload).digest() + _LAYOUT)

    what, size = f"the checkpoint of run {state['key']}", len(payload) + _TRAILER
    with as_training_error(what, folder=folder, size=size, left=what_remains(folder)):
        sweep(folder)
        write_durably(folder / FILE, write, previous=folder / PREVIOUS)


def load(folder: Path, *, key: str, device: torch.device) -> dict[str, Any] | None:
    """The newest whole checkpoint of the run `key` in `folder` with its tensors on `device`, or None if there is none.

    One that cannot be used (its checksum is wrong, it is another run's, it holds more than tensors and plain data) is moved
    aside, with one line on stderr, and the one before it is used; `TrainingError` if it cannot be moved. Several processes may
    load at once; nobody may save until all have loaded.
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
        _set_aside(unusable, instead=f"the run goes on from {path.name}")
        return state
    _set_aside(unusable, instead="the run starts again")
    return None


def what_remains(folder: Path) -> str:
    """For the message of a training that cannot go on: what a later start resumes from."""
    there = any((folder / name).exists() for name in (FILE, PREVIOUS))
    return "its last checkpoint is intact" if there else "no checkpoint of it had been saved before"


def discard(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in (PREVIOUS, FILE):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path, *, key: str, device: torch.device) -> dict[str, Any]:
    """The checkpoint at `path`. Nothing of it is interpreted before its checksum is found right."""
    import torch

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


def _set_aside(unusable: list[tuple[Path, Exception]], *, instead: str) -> None:
    """Move what cannot be used out of the way, and say so."""
    for path, error in unusable:
        aside = path.with_suffix(".corrupt")
        try:
            path.replace(aside)
        except FileNotFoundError:  # another process of this training has just done so, and said so
            continue
        except OSError as failure:
            raise TrainingError(
                f"checkpoint {path} cannot be used ({error}), nor moved aside ({failure.strerror})"
            ) from failure
        print(f"checkpoint {path} cannot be used ({error}); moved to {aside.name}, {instead}", file=sys.stderr)


def _require_plain(value: Any, where: str) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        return
    if type(value) not in _PLAIN:  # not isinstance: a NumPy float is a float, but is pickled as NumPy's
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise TypeError(f"a checkpoint holds tensors and plain data, and {where} is a {kind}")
    if isinstance(value, dict):
        for name, item in value.items():
            _require_plain(name, f"a key of {where}")
            _require_plain(item, f"{where}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _require_plain(item, f"{where}[{i}]")
