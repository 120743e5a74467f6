"""What several tests of the runner look at."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from sarlib.trainer import loop as training


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the runs that are really trained in this process."""
    keys: list[str] = []
    original = training.train
    monkeypatch.setattr(training, "train", lambda run, **rest: keys.append(run.key) or original(run, **rest))
    return keys


@pytest.fixture
def disk_full_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """In the body of `with disk_full_at(call)` the disk is full at that fsync, counted from 0."""

    @contextmanager
    def full(call: int) -> Iterator[None]:
        fsync, calls = os.fsync, itertools.count()

        def fail(descriptor: int) -> None:
            if next(calls) == call:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            yield

    return full
