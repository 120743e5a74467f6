"""Runs that start from runs: parents first and once, whoever trains, and whatever was killed or lost."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sarlib.config import ConfigError
from sarlib.run import Run
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine, check
from sarlib.runner.schedule import execute_all, missing
from sarlib.runner.store import Record, Store
from sarlib.trainer import checkpoint
from sarlib.trainer import loop as training

pytestmark = pytest.mark.xdist_group("several-processes")

ONE = Machine("cpu", workers=1, threads=1)
TWO = Machine("cpu", workers=2, threads=1)
JOINED = Machine("cpu", workers=1, threads=1, processes=2)


@pytest.fixture
def parent(smallest_run: Run) -> Run:
    """Without stochastic depth, whose masks are drawn by each process for its own images."""
    return dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, drop_path=0.0))


def child_of(parent: Run, *, name: str = "shapes-painting", **changes: object) -> Run:
    data = dataclasses.replace(parent.data, name=name)
    return dataclasses.replace(parent, data=data, pretrained=parent, **changes)


@pytest.fixture
def first_parameters() -> list[torch.Tensor]:
    """The parameters of whatever is trained in the meantime, as they are before the first step."""
    found: list[torch.Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not found:
            found.extend(each.detach().clone() for group in optimizer.param_groups for each in group["params"])

    hook = register_optimizer_step_pre_hook(look)
    yield found
    hook.remove()


def differences(one: Store, other: Store, runs: list[Run]) -> float:
    pairs = [(one.weights(run), other.weights(run)) for run in runs]
    return max((mine[name] - theirs[name]).abs().max().item() for mine, theirs in pairs for name in mine.keys() | theirs.keys())


def figures(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if name not in ("seconds", "images_per_second")}


def kill_half_way(run: Run, store: Store) -> None:
    """In a forked process, which saves after every step and dies at the fifth of nine."""
    pid = os.fork()
    if pid == 0:
        done: list[int] = []

        def on_step(images: int) -> None:
            done.append(images)
            if len(done) == 6:  # the first call is for what was done before
                os.kill(os.getpid(), signal.SIGKILL)

        training.train = functools.partial(training.train, checkpoint_seconds=0.0)
        execute(Work(run), Job(store, None, ONE), on_step=on_step)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL are POSIX")
def test_a_killed_parent_is_resumed_first(
    tmp_path: Path, parent: Run, trained: list[str], first_parameters: list[torch.Tensor]
) -> None:
    child, store, whole = child_of(parent), Store(tmp_path / "killed"), Store(tmp_path / "whole")
    kill_half_way(parent, store)
    assert checkpoint.load(store.folder(parent), key=parent.key, device=torch.device("cpu"))["progress"]["epoch"] == 1
    first = execute_all([parent], store=store, root=None, machine=ONE)[parent.key]
    first_parameters.clear()
    records = execute_all([child], store=store, root=None, machine=ONE)
    assert trained == [parent.key, child.key] and records.keys() == {child.key} and child.seed == parent.seed
    taken = {name: tensor for name, tensor in store.weights(parent).items() if not name.startswith("head.")}
    for name, tensor in taken.items():
        assert any(torch.equal(tensor, each) for each in first_parameters), f"{name} is not where the child starts"
    execute_all([child], store=whole, root=None, machine=ONE)
    assert differences(store, whole, [parent, child]) == 0
    assert figures(first) == figures(whole.read(parent))


def test_a_parent_is_trained_once_for_two_tables(store: Store, parent: Run, trained: list[str]) -> None:
    first, second = child_of(parent), child_of(parent, name="digits")
    execute_all([first], store=store, root=None, machine=ONE)
    execute_all([second, second], store=store, root=None, machine=ONE)
    assert trained == [parent.key, first.key, second.key]


def test_a_parent_without_weights_is_trained_again_when_a_child_needs_them(
    store: Store, parent: Run, trained: list[str]
) -> None:
    first, second = child_of(parent), child_of(parent, name="digits")
    execute_all([first], store=store, root=None, machine=ONE)
    before = store.weights(parent)
    (store.folder(parent) / "weights.safetensors").unlink()
    execute_all([first, parent], store=store, root=None, machine=ONE)
    assert len(trained) == 2, "nothing needs them"
    execute_all([second], store=store, root=None, machine=ONE)
    assert trained[2:] == [parent.key, second.key]
    assert all(torch.equal(before[name], tensor) for name, tensor in store.weights(parent).items())


def test_generations(store: Store, parent: Run) -> None:
    """Grandchild, its brother and a stranger: what depends on nothing missing comes first, and nothing twice."""
    child = child_of(parent)
    grandchild, brother = child_of(child, name="digits"), child_of(parent, name="digits")
    job = Job(store, None, ONE, tuple(map(Work, (grandchild, brother, child, dataclasses.replace(parent, seed=1)))))
    keys = [{each.run.key for each in generation} for generation in missing(job, {each.run.key: None for each in job.works})]
    assert keys == [{parent.key, job.works[3].run.key}, {child.key, brother.key}, {grandchild.key}]


def test_workers_and_one_process_agree(tmp_path: Path, parent: Run) -> None:
    """Two seeds of a parent and a child: with two workers the children start when both parents are there."""
    declared = [child_of(parent).with_seed(seed) for seed in (0, 1)]
    serial, parallel = Store(tmp_path / "serial"), Store(tmp_path / "parallel")
    expected = execute_all(declared, store=serial, root=None, machine=ONE)
    found = execute_all(declared, store=parallel, root=None, machine=TWO)
    assert {key: figures(record) for key, record in found.items()} == {key: figures(each) for key, each in expected.items()}
    assert differences(serial, parallel, [run for each in declared for run in each.lineage()]) == 0


def test_joined_processes_train_parent_and_child(tmp_path: Path, parent: Run) -> None:
    """Against one process that takes each batch in the same two halves."""
    child, halves, joined = child_of(parent), Store(tmp_path / "halves"), Store(tmp_path / "joined")
    execute_all([child], store=halves, root=None, machine=dataclasses.replace(ONE, micro_batches=2))
    records = execute_all([child], store=joined, root=None, machine=JOINED)
    assert records[child.key].provenance["processes"] == 2
    assert differences(halves, joined, [parent, child]) == 0


def test_a_cluster_trains_the_parent_in_an_earlier_array(tmp_path: Path, parent: Run) -> None:
    file = tmp_path / "cluster.yml"
    file.write_text("{executor: local, timeout_min: 60}")
    child, store = child_of(parent), Store(tmp_path / "store")
    execute_all([child], store=store, root=None, machine=check(device="cpu", cluster=file))
    whole = Store(tmp_path / "whole")
    execute_all([child], store=whole, root=None, machine=ONE)
    assert differences(store, whole, [parent, child]) == 0
    assert len(list((tmp_path / "cluster").glob("*/*_submitted.pkl"))) == 2


def test_what_starts_from_a_failed_run_is_left_out(store: Store, parent: Run) -> None:
    """The others are finished first, in every generation, then the first error is raised."""
    broken = dataclasses.replace(parent, data=dataclasses.replace(parent.data, name="no-such-set"))
    declared = [child_of(broken), child_of(parent)]
    with pytest.raises(ConfigError, match="no-such-set"):
        execute_all(declared, store=store, root=None, machine=TWO)
    assert [store.read(run) is not None for run in (broken, *declared, parent)] == [False, False, True, True]
