"""What is on disk is whole, is found again, and is never taken for something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from sarlib.config import ConfigError, TrainingError
from sarlib.durable import write_durably
from sarlib.run import Run
from sarlib.runner.store import Record, Store
from sarlib.trainer import checkpoint


def keep(store: Store, run: Run) -> None:
    record = Record(run=run, metrics={"top1": 50.0, "loss": 0.1 + 0.2}, provenance={"commit": "abc"})
    store.write(
        run,
        record=record,
        history=[{"epoch": 1, "split": "test", "metric": "top1", "value": 50.0}],
        weights={"w": torch.ones(2)},
    )


def test_a_record_reads_back_bit_by_bit(store: Store, smallest_run: Run) -> None:
    assert store.read(smallest_run) is None
    keep(store, smallest_run)
    record = store.read(smallest_run)
    assert record is not None and record.metrics == {"top1": 50.0, "loss": 0.1 + 0.2} and record.provenance == {"commit": "abc"}
    assert store.history(smallest_run).value.tolist() == [50.0]
    assert sorted(file.name for file in store.folder(smallest_run).iterdir()) == [
        "config.json",
        "metrics.csv",
        "result.json",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("file", ["result.json", "config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": {"top1": "high"}, "provenance": {}}'])
def test_a_corrupt_record_is_moved_aside_and_told(
    store: Store, smallest_run: Run, capsys: pytest.CaptureFixture, file: str, content: str
) -> None:
    keep(store, smallest_run)
    (store.folder(smallest_run) / file).write_text(content)
    assert store.read(smallest_run) is None
    assert "cannot be read" in capsys.readouterr().err
    (aside,) = store.root.glob(f"{smallest_run.key}.corrupt-*")
    assert (aside / file).read_text() == content, "nothing on disk is lost"
    keep(store, smallest_run)
    assert store.read(smallest_run) is not None


def test_a_record_of_another_declaration_is_not_an_answer(
    store: Store, smallest_run: Run, capsys: pytest.CaptureFixture
) -> None:
    keep(store, smallest_run)
    path = store.folder(smallest_run) / "config.json"
    config = json.loads(path.read_text())
    config["recipe"]["lr"] = 5.0
    path.write_text(json.dumps(config))
    assert store.read(smallest_run) is None
    assert "declares another run" in capsys.readouterr().err


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_rights_that_the_user_gives_new_files(tmp_path: Path, umask: int, mode: int) -> None:
    """A folder that a group shares stays shared, a private one private."""
    before = os.umask(umask)
    try:
        write_durably(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(file: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_durably(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_runs_folder_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write to the runs folder"):
        Store(tmp_path / "file" / "store").require_writable()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_read_only_runs_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write to the runs folder"):
        Store(tmp_path / "store").require_writable()


@pytest.mark.parametrize("call", range(8))
def test_a_full_disk_keeps_a_finished_training_resumable(
    store: Store, smallest_run: Run, disk_full_at: Callable[[int], AbstractContextManager[None]], call: int
) -> None:
    """At each fsync of the writing of a record: that of every file, and that of the folder after it."""
    checkpoint.save(store.folder(smallest_run), {"key": smallest_run.key})
    with pytest.raises(TrainingError) as error, disk_full_at(call):
        keep(store, smallest_run)
    message = (
        f"the record of run {smallest_run.key} cannot be written to {store.folder(smallest_run)} (No space left on device)"
    )
    assert str(error.value).startswith(message) and str(error.value).endswith("its last checkpoint is intact")
    assert "\n" not in str(error.value) and not list(store.folder(smallest_run).glob(".*.tmp"))
    assert checkpoint.load(store.folder(smallest_run), key=smallest_run.key, device=torch.device("cpu"))
    keep(store, smallest_run)
    assert store.read(smallest_run) is not None


def test_writing_over_a_record_never_mixes_two(store: Store, smallest_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, smallest_run)
    monkeypatch.setattr(os, "fsync", lambda descriptor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(store, smallest_run)
    assert store.read(smallest_run) is None
