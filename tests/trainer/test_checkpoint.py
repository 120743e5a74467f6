"""A checkpoint gives back what was saved; a damaged one is never read, a malicious one never executed, and a full
disk costs none."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sarlib.config import TrainingError
from sarlib.run import Run
from sarlib.runner.store import Store
from sarlib.trainer import checkpoint

CPU = torch.device("cpu")


def save(folder: Path, number: int, key: str = "k") -> None:
    checkpoint.save(folder, {"key": key, "number": number, "weights": torch.full((1000,), float(number))})


def load(folder: Path) -> int | None:
    """The number of the checkpoint that is found."""
    state = checkpoint.load(folder, key="k", device=CPU)
    if state is None:
        return None
    assert (state["weights"] == state["number"]).all()
    return state["number"]


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def with_checksum(payload: bytes) -> bytes:
    return payload + hashlib.sha256(payload).digest() + b"sarckpt1"


def test_a_training_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    """What a trainer has: optimizer state under number keys, half precision, not-a-number, tied weights, a random state."""
    tied = torch.tensor([1.0, float("nan"), -0.0])
    tensors = {"weights": torch.randn(2, 3), "half": torch.randn(5).bfloat16(), "tied": tied, "again": tied}
    tensors["random"] = torch.get_rng_state()
    plain = {
        "progress": {"epoch": 3, "seconds": 0.1 + 0.2, "name": "é", "none": None, "flag": True, "pairs": [(1, 2.0)]},
        "optimizer": {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]},
    }
    assert checkpoint.load(tmp_path, key="k", device=CPU) is None
    checkpoint.save(tmp_path, {"key": "k", "tensors": OrderedDict(tensors), **plain})
    loaded = checkpoint.load(tmp_path, key="k", device=CPU)
    restored = loaded.pop("tensors")
    assert loaded == {"key": "k", **plain}
    assert list(restored) == list(tensors)
    for name, tensor in tensors.items():
        assert restored[name].dtype == tensor.dtype and torch.equal(
            restored[name].view(torch.uint8), tensor.view(torch.uint8)
        ), name
    assert restored["tied"].data_ptr() == restored["again"].data_ptr()


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for number in range(1, 5):
        save(tmp_path, number)
        assert load(tmp_path) == number
    assert files(tmp_path) == ["checkpoint.previous.pt", "checkpoint.pt"]
    (tmp_path / checkpoint.FILE).unlink()
    assert load(tmp_path) == 3, "as after a kill between the two renames of a save"
    checkpoint.discard(tmp_path)
    assert files(tmp_path) == [] and load(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"no checkpoint at all",
        lambda content: content[:-40],
        lambda content: bytes(len(content)),
        lambda content: content + b"\0",
    ],
)
def test_a_broken_newest_falls_back_to_the_one_before_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, damage: Any
) -> None:
    for number in (1, 2):
        save(tmp_path, number)
    path = tmp_path / checkpoint.FILE
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    assert load(tmp_path) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"checkpoint {path} cannot be used (" in told
    assert told.endswith("moved to checkpoint.corrupt, the run goes on from checkpoint.previous.pt\n")
    assert (tmp_path / "checkpoint.corrupt").read_bytes() == broken, "nothing on disk is lost"
    save(tmp_path, 3)
    assert load(tmp_path) == 3
    assert files(tmp_path) == ["checkpoint.corrupt", "checkpoint.previous.pt", "checkpoint.pt"]
    assert not capsys.readouterr().err


def test_two_broken_ones_start_the_run_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in (1, 2):
        save(tmp_path, number)
    for name in files(tmp_path):
        (tmp_path / name).write_bytes(b"")
    assert load(tmp_path) is None
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.endswith("the run starts again") for line in told)
    assert files(tmp_path) == ["checkpoint.corrupt", "checkpoint.previous.corrupt"]


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Also where neither pickle nor the zip archive would notice: in padding, in names, in a number that stays a number."""
    save(tmp_path, 1)
    path = tmp_path / checkpoint.FILE
    whole = path.read_bytes()
    draw = random.Random(0)
    chosen = [0, len(whole) // 2, len(whole) - 41, len(whole) - 40, len(whole) - 1]  # the checksum is the 40 last bytes but 8
    for position in chosen + [draw.randrange(len(whole)) for _ in range(100)]:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert load(tmp_path) is None, f"byte {position} of {len(whole)}"
    assert "its checksum is wrong" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2, key="other")
    assert load(tmp_path) == 1
    assert "it belongs to run other" in capsys.readouterr().err


class Intruder:
    """What unpickling it would do is to write a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_malicious_checkpoint_is_refused_and_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture, form: str) -> None:
    """It has a right checksum and the right key; loaded by a common unpickler it would act."""
    folder, mark = tmp_path / "run", tmp_path / "mark"
    save(folder, 1)
    save(folder, 2)
    path = folder / checkpoint.FILE
    state = {"key": "k", "intruder": Intruder(mark)}
    torch.save(state, path) if form == "torch" else path.write_bytes(pickle.dumps(state, protocol=2))
    torch.load(path, weights_only=False) if form == "torch" else pickle.loads(path.read_bytes())
    assert mark.exists(), "it is as dangerous as it is meant to be"
    mark.rmdir()
    path.write_bytes(with_checksum(path.read_bytes()))
    assert load(folder) == 1
    assert not mark.exists()
    assert "holds more than tensors and plain data, and was not unpickled" in capsys.readouterr().err


@pytest.mark.parametrize("content", [torch.ones(2), ["key"], {"number": 1}])
def test_a_state_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, content: object) -> None:
    torch.save(content, tmp_path / "plain")
    (tmp_path / checkpoint.FILE).write_bytes(with_checksum((tmp_path / "plain").read_bytes()))
    assert load(tmp_path) is None
    assert "it names no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "named"),
    [(np.float64(0.5), "numpy.float64"), (Path("a"), "pathlib."), (CPU, "torch.device"), ({1, 2}, "builtins.set")],
)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, value: object, named: str) -> None:
    with pytest.raises(TypeError, match=rf"state\['progress'\]\[1\] is a .*{named}"):
        checkpoint.save(tmp_path, {"key": "k", "progress": [1.0, value]})
    assert files(tmp_path) == []


def require_untouched_and_told(folder: Path, error: pytest.ExceptionInfo) -> None:
    assert load(folder) == 2
    assert files(folder) == ["checkpoint.previous.pt", "checkpoint.pt"], "the half-written file is gone"
    message = str(error.value)
    assert "\n" not in message and f"the checkpoint of run k cannot be written to {folder}" in message
    assert message.endswith("its last checkpoint is intact")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_late_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Network file systems tell it only at fsync."""
    for number in (1, 2):
        save(tmp_path, number)

    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    space = r"it needs 0\.\d MiB and [\d.]+ MiB are free: make room"
    with monkeypatch.context() as patched, pytest.raises(TrainingError, match=space) as error:
        patched.setattr(os, call, fail)
        save(tmp_path, 3)
    require_untouched_and_told(tmp_path, error)
    save(tmp_path, 3)
    assert load(tmp_path) == 3, "once there is room it goes on"


def test_a_write_that_the_system_cuts_short_costs_no_checkpoint(tmp_path: Path) -> None:
    """The system itself refuses to make the file longer than half of what it needs."""
    resource = pytest.importorskip("resource", reason="limits are POSIX")
    for number in (1, 2):
        save(tmp_path, number)
    allowed, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(TrainingError, match="File too large.*make room") as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / checkpoint.FILE).stat().st_size // 2, highest))
        try:
            save(tmp_path, 3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, highest))
    require_untouched_and_told(tmp_path, error)


def test_the_first_checkpoint_that_fails_says_that_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"\(Not a directory\).*no checkpoint of it had been saved before"):
        save(tmp_path / "file" / "run", 1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_that_became_read_only_is_told(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path, number)
    tmp_path.chmod(0o500)
    with pytest.raises(TrainingError, match="Permission denied") as error:
        save(tmp_path, 3)
    require_untouched_and_told(tmp_path, error)
    (tmp_path / checkpoint.FILE).chmod(0)
    with pytest.raises(TrainingError, match="nor moved aside"):
        load(tmp_path)
    tmp_path.chmod(0o700)


def test_a_killed_writer_leaves_no_litter_behind_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    save(tmp_path, 1)
    assert files(tmp_path) == ["checkpoint.pt"]


def test_writers_that_hold_the_lock_do_not_meet(store: Store, smallest_run: Run) -> None:
    failures = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                with store.lock(smallest_run):
                    save(store.folder(smallest_run), number)
                    assert load(store.folder(smallest_run)) == number
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert files(store.folder(smallest_run)) == ["checkpoint.previous.pt", "checkpoint.pt"]
