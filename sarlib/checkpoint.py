"""Saving a training so that it goes on exactly where it was, and telling when a checkpoint cannot be used."""

from __future__ import annotations

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from sarlib.durable import write_durably

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and lists and dicts of them) as the folder's checkpoint, in one step."""
    write_durably(folder / FILE, lambda file: torch.save(state, file))


def load(folder: Path, *, key: str, device: torch.device) -> dict[str, Any] | None:
    """The folder's checkpoint if there is one of the run `key`, else None.

    A checkpoint that cannot be read is moved aside and told, and None is returned: the run then starts again. Nothing is unpickled but
    tensors and plain data.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["key"] != key:
            raise ValueError(f"it belongs to run {state['key']}")
        return state
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        aside = path.with_suffix(".corrupt")
        path.replace(aside)
        print(f"checkpoint {path} cannot be used ({error}); moved to {aside.name}, the run starts again", file=sys.stderr)
        return None


def discard(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / FILE).unlink(missing_ok=True)
