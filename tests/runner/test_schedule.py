"""Runs are trained once: whatever asks for them, however many processes, whenever they are killed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.run import Run
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine, check
from sarlib.runner.schedule import execute_all
from sarlib.runner.store import Record, Store

ONE = Machine(device="cpu", workers=1, threads=1)
TWO = Machine(device="cpu", workers=2, threads=1)


def seeds(run: Run, n: int) -> list[Run]:
    return [dataclasses.replace(run, seed=seed) for seed in range(n)]


def figures(records: dict[str, Record]) -> dict[str, dict[str, float]]:
    """What has to be reproducible of the records: all but the times."""
    return {
        key: {name: value for name, value in record.metrics.items() if name not in ("seconds", "images_per_second")}
        for key, record in records.items()
    }


def test_a_run_is_trained_once(store: Store, smallest_run: Run, trained: list[str]) -> None:
    first = execute_all([smallest_run, smallest_run], store=store, root=None, machine=ONE)
    assert trained == [smallest_run.key]
    assert execute_all([smallest_run], store=store, root=None, machine=ONE) == first
    assert trained == [smallest_run.key]


def test_a_changed_field_is_another_run(store: Store, smallest_run: Run, trained: list[str]) -> None:
    other = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, variant="A"))
    execute_all([smallest_run, other], store=store, root=None, machine=ONE)
    assert trained == [smallest_run.key, other.key]


def test_a_table_that_is_answered_is_the_one_that_was_trained(runs_folder: Path) -> None:
    """Record by record, and the bytes of its CSV: the order of lines included."""
    experiment = experiments.declare("table2", preset="tiny", seeds=1, datasets="shapes-object, 48 images")
    tables = []
    for _ in range(2):
        experiments.run(experiment, workers=1, device="cpu")
        tables.append(experiments.csv_path(experiment).read_bytes())
    assert tables[0] == tables[1]
    again = Store(runs_folder / "again")
    trained, answered = (execute_all(experiment.runs(), store=again, root=None, machine=ONE).values() for _ in range(2))
    for one, other in zip(trained, answered, strict=True):
        assert list(one.metrics.items()) == list(other.metrics.items())
        assert list(one.provenance.items()) == list(other.provenance.items())


def test_side_by_side_gives_the_same_numbers(tmp_path: Path, smallest_run: Run) -> None:
    declared = seeds(smallest_run, 3)
    serial = execute_all(declared, store=Store(tmp_path / "serial"), root=None, machine=ONE)
    parallel = execute_all(declared, store=Store(tmp_path / "parallel"), root=None, machine=TWO)
    assert figures(serial) == figures(parallel)


def test_the_record_says_where_it_comes_from(store: Store, smallest_run: Run) -> None:
    record = execute(Work(smallest_run), Job(store, None, ONE))
    assert {"commit", "dirty", "versions", "device", "threads", "peak_memory_mib"} <= record.provenance.keys()
    assert record.provenance["images"] == [24, 20], "of training and of testing"
    assert record.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {
        "top1",
        "loss",
        "entropy",
        "components",
        "jaccard",
        "jaccard_centre",
        "seconds",
        "images_per_second",
    } <= record.metrics.keys()
    assert not (store.folder(smallest_run) / "checkpoint.pt").exists()


def test_two_processes_share_the_work(tmp_path: Path, smallest_run: Run) -> None:
    """Each process logs what it trains: together every run exactly once, and both see all records."""
    script = textwrap.dedent(
        f"""
        import dataclasses, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from smallest import SMALLEST
        from sarlib.runner import schedule as runs
        from sarlib.trainer import loop as training
        from sarlib.runner.machine import Machine
        from sarlib.runner.store import Store
        original = training.train
        def train(run, **rest):
            with open({str(tmp_path / "log")!r}, "a") as log:
                log.write(run.key + "\\n")
            return original(run, **rest)
        training.train = train
        declared = [dataclasses.replace(SMALLEST, seed=seed) for seed in range(4)]
        records = runs.execute_all(declared, store=Store(Path({str(tmp_path / "store")!r})), root=None,
                                   machine=Machine(device="cpu", workers=1, threads=1))
        assert len(records) == 4
        """
    )
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(run.key for run in seeds(smallest_run, 4))


def test_a_failing_run_is_told_after_the_others_are_finished(store: Store, smallest_run: Run) -> None:
    broken = dataclasses.replace(smallest_run, data=dataclasses.replace(smallest_run.data, name="no-such-set"))
    declared = [broken, *seeds(smallest_run, 2)]
    with pytest.raises(ConfigError, match="no-such-set"):
        execute_all(declared, store=store, root=None, machine=TWO)
    assert all(store.read(run) for run in declared[1:])


def test_a_corrupt_record_is_trained_again(store: Store, smallest_run: Run, trained: list[str]) -> None:
    first = execute_all([smallest_run], store=store, root=None, machine=ONE)
    (store.folder(smallest_run) / "result.json").write_text("{")
    again = execute_all([smallest_run], store=store, root=None, machine=ONE)
    assert len(trained) == 2 and figures(first) == figures(again)


@pytest.mark.parametrize(
    ("device", "workers", "message"),
    [
        ("tpu", None, "unknown device 'tpu'"),
        ("cuda:x", None, "device 'cuda:x'"),
        ("cpu", 0, "workers must be 1 or more, got 0"),
        pytest.param(
            "cuda", None, "finds no usable GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
        ),
    ],
)
def test_bad_machines_are_refused(device: str, workers: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(device=device, workers=workers)


def test_workers_share_the_cores_and_take_no_more_threads_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for allowed, threads in ((None, (8, 4, 1)), ("2", (2, 2, 1)), ("1", (1, 1, 1)), ("16", (8, 4, 1))):
        if allowed:
            monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        else:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert tuple(check(device="cpu", workers=workers).threads for workers in (1, 2, 9)) == threads


def test_the_device_is_looked_for_when_something_is_trained() -> None:
    """Checking what a user says imports no torch unless a GPU is named; "auto" is then what torch finds."""
    script = "import sys; from sarlib.runner.machine import check; check(workers=2); check(device='cpu'); "
    script += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    found = check(workers=3)
    assert (found.device, found.resolved().device) == ("auto", "cuda" if torch.cuda.is_available() else "cpu")
    assert found.resolved().workers == 3 and found.resolved().threads >= 1


@pytest.mark.parametrize("given", ["0", "-1", "two", ""])
def test_bad_micro_batches_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SAR_MICRO_BATCHES", given)
    with pytest.raises(ConfigError, match=f"SAR_MICRO_BATCHES='{given}'"):
        check(device="cpu")
    monkeypatch.setenv("SAR_MICRO_BATCHES", "4")
    assert check(device="cpu").micro_batches == 4


def test_by_default_a_worker_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = check(device="cpu", workers=1).threads
    default = check(device="cpu")
    assert (default.workers, default.threads) == (cores, 1)
    assert check(device="cpu", workers=2 * cores).threads == 1
