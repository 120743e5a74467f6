"""Measurements: taken once under the run's lock, answered without torch, part of what is committed, and never of
other weights."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from measured import measure_all
from untrained import keep

from sarlib import measures
from sarlib.config import TrainingError
from sarlib.measures.finished import Finished
from sarlib.run import Measurement, Run
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store

ONE = Machine("cpu", workers=1, threads=1)
TWO = Machine("cpu", workers=2, threads=1)


@pytest.fixture
def collapse(smallest_run: Run) -> Measurement:
    return Measurement(name="collapse", data=smallest_run.data, images=12)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Keys of the runs that are really measured in this process, and of the measurements."""
    keys: list[tuple[str, str]] = []
    original = measures.take

    def noted(finished: Finished, measurement: Measurement) -> dict:
        keys.append((finished.run.key, measurement.key))
        return original(finished, measurement)

    monkeypatch.setattr(measures, "take", noted)
    return keys


WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from sarlib.config import Data
from sarlib.run import Measurement, Run
from sarlib.runner import machine
from sarlib.runner.schedule import execute_all, train_and_measure
from sarlib.runner.store import Store
root, key, measured = sys.argv[1:]
store = Store(Path(root))
run = Run.from_dict(json.loads((store.root / key / "config.json").read_text()))
asked = json.loads(measured)
measurement = Measurement(**{**asked, "data": Data(**asked["data"])})
chosen = machine.check(device="auto")
execute_all([run], store=store, root=None, machine=chosen)
_, found = train_and_measure((), [(run, measurement)], store=store, root=None, machine=chosen)
heavy = [name for name in ("torch", "timm", "torchvision", "safetensors.torch") if name in sys.modules]
print(json.dumps({"heavy": heavy, "found": found[run.key, measurement.key]}))
"""


def test_the_second_time_it_is_answered_without_torch(
    store: Store, smallest_run: Run, collapse: Measurement, taken: list[tuple[str, str]]
) -> None:
    keep(smallest_run, store=store)
    pair = (smallest_run.key, collapse.key)
    found = measure_all([(smallest_run, collapse)] * 2, store=store, root=None, machine=ONE)
    assert found.keys() == {pair} and found[pair]["metrics"]["peak"] > 1 / 16 and found[pair]["arrays"] == {}
    command = [sys.executable, "-c", WITHOUT_TORCH, str(store.root), smallest_run.key, json.dumps(dataclasses.asdict(collapse))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"heavy": [], "found": found[pair]}
    assert measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE) == found and taken == [pair]


def test_another_declaration_is_another_measurement(
    store: Store, smallest_run: Run, collapse: Measurement, taken: list[tuple[str, str]]
) -> None:
    keep(smallest_run, store=store)
    fewer = dataclasses.replace(collapse, images=5)
    maps = Measurement(name="maps", data=smallest_run.data, images=2)
    for measurement in (collapse, fewer, maps):
        measure_all([(smallest_run, measurement)], store=store, root=None, machine=ONE)
    assert taken == [(smallest_run.key, each.key) for each in (collapse, fewer, maps)]
    whole = measure_all([(smallest_run, each) for each in (maps, collapse, fewer)], store=store, root=None, machine=ONE)
    assert len(whole) == len(taken) == 3
    assert whole[smallest_run.key, collapse.key] != whole[smallest_run.key, fewer.key]
    names = [str(file) for file in store.text_files(smallest_run)]
    measured = sorted(f"measured/{each.key}.json" for each in (collapse, fewer, maps))
    assert names == ["config.json", "metrics.csv", "result.json", *measured]
    declared = json.loads((store.folder(smallest_run) / measured[0]).read_text())["measurement"]
    assert declared in [json.loads(json.dumps(dataclasses.asdict(each))) for each in (collapse, fewer, maps)]


def test_runs_are_trained_before_they_are_measured(
    store: Store, smallest_run: Run, collapse: Measurement, taken: list[tuple[str, str]]
) -> None:
    """Also one whose record is there without its weights; what was measured of the lost weights is not taken for the
    new ones'."""
    first = measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE)
    (store.folder(smallest_run) / "weights.safetensors").unlink()
    assert measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE) == first and len(taken) == 1
    other = dataclasses.replace(collapse, images=3)
    measure_all([(smallest_run, other)], store=store, root=None, machine=ONE)
    assert store.has_weights(smallest_run) and store.read_measured(smallest_run, collapse) is None
    assert measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE) == first


def test_workers_share_the_measuring(tmp_path: Path, smallest_run: Run, collapse: Measurement) -> None:
    runs = [smallest_run.with_seed(seed) for seed in range(3)]
    pairs = [(run, collapse) for run in runs]
    found = []
    for name, machine in (("one", ONE), ("two", TWO)):
        store = Store(tmp_path / name)
        for run in runs:
            keep(run, store=store)
        found.append(measure_all(pairs, store=store, root=None, machine=machine))
    assert found[0] == found[1] and len({each["metrics"]["spread"] for each in found[0].values()}) == 3


@pytest.mark.skipif(os.name != "posix", reason="flock is POSIX")
def test_it_is_taken_under_the_runs_lock(
    store: Store, smallest_run: Run, collapse: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(smallest_run, store=store)
    take = measures.take

    def locked(finished: Finished, measurement: Measurement) -> dict:
        with open(store.lock(finished.run).lock_file) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return take(finished, measurement)

    monkeypatch.setattr(measures, "take", locked)
    assert measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": 3, "arrays": {}}'])
def test_one_that_cannot_be_read_is_moved_aside_and_taken_again(
    store: Store, smallest_run: Run, collapse: Measurement, content: str, capsys: pytest.CaptureFixture
) -> None:
    keep(smallest_run, store=store)
    first = measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE)
    file = store.folder(smallest_run) / "measured" / f"{collapse.key}.json"
    file.write_text(content)
    capsys.readouterr()
    assert store.read_measured(smallest_run, collapse) is None
    told = capsys.readouterr().err
    assert "cannot be read" in told and "it is taken again" in told and told.count("\n") == 1
    (aside,) = file.parent.glob("*.corrupt-*")
    assert aside.read_text() == content and aside.name not in map(str, store.text_files(smallest_run))
    assert measure_all([(smallest_run, collapse)], store=store, root=None, machine=ONE) == first


@pytest.mark.parametrize("call", range(2))
def test_a_full_disk_leaves_the_one_before_or_none(
    store: Store,
    smallest_run: Run,
    collapse: Measurement,
    disk_full_at: Callable[[int], AbstractContextManager[None]],
    call: int,
) -> None:
    keep(smallest_run, store=store)
    with pytest.raises(TrainingError) as error, disk_full_at(call):
        store.write_measured(smallest_run, collapse, {"metrics": {"peak": 1.0}, "arrays": {}})
    assert str(error.value).startswith(f"the measurement collapse of run {smallest_run.key} cannot be written")
    assert not list(store.folder(smallest_run).rglob("*.tmp")) and "\n" not in str(error.value)
    store.write_measured(smallest_run, collapse, {"metrics": {"peak": 0.5}, "arrays": {}})
    assert store.read_measured(smallest_run, collapse) == {"metrics": {"peak": 0.5}, "arrays": {}}
