"""How long trainings will take, as it is said before the first begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sarlib.run import Run
from sarlib.runner import estimate as estimates
from sarlib.runner.estimate import estimate
from sarlib.runner.execute import Job, Work, images_seen
from sarlib.runner.machine import Machine
from sarlib.runner.store import Record, Store

ONE, TWO = (Machine(device="cpu", workers=workers, threads=1) for workers in (1, 2))


@pytest.fixture
def long_run(smallest_run: Run) -> Run:
    """Sees 100,000 images."""
    data = dataclasses.replace(smallest_run.data, train_size=500)
    recipe = dataclasses.replace(smallest_run.recipe, epochs=200, batch_size=50)
    run = dataclasses.replace(smallest_run, data=data, recipe=recipe)
    assert images_seen(run, None) == 100_000
    return run


def keep(store: Store, run: Run, *, rate: float, device: str = "CPU of a test", weights: bool = True) -> None:
    metrics = {"images_per_second": rate}
    record = Record(run=run, metrics=metrics, provenance={"device": device})
    store.write(run, record=record, history=[], weights={"head.weight": torch.zeros(1)})
    if not weights:
        (store.folder(run) / "weights.safetensors").unlink()


def said(store: Store, runs: list[Run], machine: Machine = ONE) -> str:
    return estimate(Job(store, None, machine), [Work(run) for run in runs])


def test_it_is_that_of_similar_runs_in_the_store(store: Store, smallest_run: Run, long_run: Run) -> None:
    """Another seed, another length, another last block are of one speed; another architecture or device is not. Of a busy hour
    are the slower half."""
    keep(store, smallest_run, rate=1000.0)
    keep(store, dataclasses.replace(smallest_run, seed=8), rate=40.0)
    keep(store, dataclasses.replace(smallest_run, seed=9), rate=400.0)
    keep(store, dataclasses.replace(smallest_run, seed=10), rate=1000.0)
    keep(store, dataclasses.replace(smallest_run, seed=11), rate=9e9, device="a GPU")
    keep(store, dataclasses.replace(smallest_run, seed=12, model=dataclasses.replace(smallest_run.model, depth=1)), rate=9e9)
    (store.root / "unfinished").mkdir()
    runs = [long_run.with_seed(seed) for seed in range(18)]
    assert said(store, runs) == "about 30 minutes on one core: 18 runs, 1,000 images a second each (as in 4 earlier runs)"
    assert said(store, runs, TWO).startswith("about 15 minutes on 2 cores")
    other = dataclasses.replace(long_run, model=dataclasses.replace(long_run.model, variant="A"))
    assert said(store, [other], TWO) == "about 2 minutes on one core: 1,000 images a second (as in 4 earlier runs)"


def test_a_whole_set_below_data_has_as_many_images_as_are_there(image_folder: Path, long_run: Run) -> None:
    """Where no number is declared: one set of 128 photographs was announced as 50,000, and as 99 hours."""
    data = dataclasses.replace(long_run.data, name="pets", train_size=None)
    run = dataclasses.replace(long_run, data=data, recipe=dataclasses.replace(long_run.recipe, epochs=3, batch_size=4))
    assert images_seen(run, image_folder) == 3 * 12  # of all 12


def test_only_what_is_missing_counts(store: Store, long_run: Run) -> None:
    keep(store, long_run, rate=1000.0)
    assert said(store, [long_run]) == ""
    keep(store, long_run, rate=1000.0, weights=False)
    assert said(store, [long_run]).startswith("about 2 minutes")


def test_without_similar_runs_a_few_steps_tell_and_draw_nothing(store: Store, long_run: Run) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert said(store, [long_run]).endswith("images a second (by a few steps)")
    assert torch.rand(3).equal(expected) and torch.get_num_threads() >= 1


def test_nothing_is_said_of_a_gpu_before_its_first_run(store: Store, long_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_timed", lambda *_: pytest.fail("it would time the CPU"))
    assert said(store, [long_run], Machine(device="cuda", workers=1)) == ""


def test_on_a_cluster_each_run_is_a_job_of_its_own(
    store: Store, smallest_run: Run, long_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many cores the machine has that submits them."""
    monkeypatch.setattr(estimates, "_timed", lambda *_: pytest.fail("it would time the machine that submits"))
    machine = dataclasses.replace(TWO, cluster={"executor": "slurm"})
    assert said(store, [long_run], machine) == ""
    keep(store, smallest_run, rate=1000.0)
    runs = [long_run.with_seed(seed) for seed in range(18)]
    expected = "at most about 2 minutes a job: 18 runs, 1,000 images a second each (as in 1 earlier runs)"
    assert said(store, runs, machine) == expected
