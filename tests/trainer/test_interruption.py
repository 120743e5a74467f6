"""A request to stop is noted, waits for the save, and is told by name; who asked nobody is not disturbed."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path

import pytest
import torch

from sarlib.trainer import checkpoint
from sarlib.trainer.interruption import SIGNALS, Interrupted, listening


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_noted_and_ends_nothing(number: int) -> None:
    with listening() as asked:
        assert asked.number == 0
        os.kill(os.getpid(), number)
        assert asked.number == number
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.number == number, "the first one counts"


def test_earlier_handlers_come_back() -> None:
    came = []
    mine = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in SIGNALS}
    try:
        with pytest.raises(Interrupted), listening() as outer:
            with listening() as inner:
                os.kill(os.getpid(), signal.SIGUSR1)
            assert inner is outer and outer.number == signal.SIGUSR1 and not came, "one request, whichever loop asks"
            os.kill(os.getpid(), signal.SIGTERM)
            assert not came, "the inner one has not put the earlier handlers back"
            raise Interrupted(outer.number)
        for number in SIGNALS:
            os.kill(os.getpid(), number)
        assert came == list(SIGNALS)
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)


def test_outside_the_main_thread_nothing_is_changed() -> None:
    before, found = [signal.getsignal(number) for number in SIGNALS], []

    def listen() -> None:
        with listening() as asked:
            found.append((asked.number > 0, [signal.getsignal(number) for number in SIGNALS]))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(False, before)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_signals_during_a_save_let_it_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Before every one of its steps, and more than one of a kind: a scheduler repeats itself."""
    checkpoint.save(tmp_path, {"key": "k", "number": 1})
    original = getattr(os, call)

    def disturbed(*arguments: object) -> object:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        return original(*arguments)

    with listening() as asked, monkeypatch.context() as patched:
        patched.setattr(os, call, disturbed)
        checkpoint.save(tmp_path, {"key": "k", "number": 2})
    assert asked.number == signal.SIGTERM
    assert checkpoint.load(tmp_path, key="k", device=torch.device("cpu"))["number"] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_an_interruption_names_its_signal_also_across_processes() -> None:
    told = pickle.loads(pickle.dumps(Interrupted(signal.SIGUSR1)))
    assert told.args == (signal.SIGUSR1,)
    assert str(told) == "stopped by SIGUSR1; what is done is saved, and the next start goes on from there"
