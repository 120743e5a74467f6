"""Several processes train one run: the same batches, the same weights, every test image once; and no hang when one of
them dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
import started
import torch
import yaml
from rounded import without_key_biases
from self_supervised import DINO, MOCO

from sarlib.config import ConfigError, Recipe, TrainingError
from sarlib.run import Run
from sarlib.runner import launch
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine, check
from sarlib.runner.schedule import execute_all
from sarlib.runner.store import Record, Store
from sarlib.trainer.interruption import Interrupted
from sarlib.trainer.step import untrained

pytestmark = pytest.mark.xdist_group("several-processes")

TWO = Machine(device="cpu", workers=1, threads=1, processes=2)


@pytest.fixture
def run(smallest_run: Run) -> Run:
    """Without stochastic depth, whose masks are drawn by each process for its own images. 20 steps; 21 test images,
    an odd number."""
    return dataclasses.replace(
        smallest_run,
        data=dataclasses.replace(smallest_run.data, train_size=40, test_size=21),
        model=dataclasses.replace(smallest_run.model, drop_path=0.0),
        recipe=dataclasses.replace(smallest_run.recipe, epochs=4, ema=0.9, evaluations=4),
    )


def alone(run: Run, store: Store, *, micro_batches: int = 1, **rest: object) -> Record:
    machine = Machine("cpu", workers=1, threads=1, micro_batches=micro_batches)
    return execute(Work(run), Job(store, None, machine), **rest)


def weights(store: Store, run: Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(store.folder(run) / "weights.safetensors")


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_processes_train_as_one(tmp_path: Path, run: Run) -> None:
    """Against one process that takes each batch in the same two halves: bit-equal, history and all. Against one that
    takes it whole the sums are rounded differently."""
    whole, halves, two = (Store(tmp_path / name) for name in ("whole", "halves", "two"))
    plain = alone(run, whole)
    alone(run, halves, micro_batches=2)
    record = execute_all([run], store=two, root=None, machine=TWO)[run.key]
    assert largest_difference(weights(two, run), weights(halves, run)) == 0
    assert two.history(run).drop(columns="value").equals(halves.history(run).drop(columns="value"))
    assert two.history(run).query("metric == 'loss'").equals(halves.history(run).query("metric == 'loss'"))
    assert largest_difference(*(without_key_biases(weights(store, run)) for store in (two, whole))) <= 2e-5
    assert record.provenance["processes"] == 2
    for name in ("top1", "loss", "entropy", "top1_ema"):
        assert record.metrics[name] == pytest.approx(plain.metrics[name], abs=1e-4)
    assert two.history(run).shape == whole.history(run).shape


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, run: Run) -> None:
    whole, moved = Store(tmp_path / "whole"), Store(tmp_path / "moved")
    alone(run, whole)
    done = 0

    def on_step(images: int) -> None:
        nonlocal done
        done += bool(images)
        if done == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        alone(run, moved, on_step=on_step)
    execute_all([run], store=moved, root=None, machine=TWO)
    assert largest_difference(*(without_key_biases(weights(store, run)) for store in (moved, whole))) <= 2e-5


def test_two_processes_train_self_supervised_hosts_as_one(tmp_path: Path) -> None:
    """They see the keys, the batch statistics and the centre of one.

    But for two biases, whose gradient is rounding alone, of which AdamW makes whole steps: a shift of all keys leaves the
    softmax as it is, and one of all features is taken out by the batch norm behind them.
    """
    recipe = Recipe(epochs=2, batch_size=8, lr=1e-3)
    models = [dataclasses.replace(run.model, drop_path=0.0) for run in (DINO, MOCO)]
    runs = [dataclasses.replace(run, model=model, recipe=recipe) for run, model in zip((DINO, MOCO), models, strict=True)]
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for run in runs:
        alone(run, one)
    execute_all(runs, store=two, root=None, machine=TWO)
    for run in runs:
        ours, theirs = (each.history(run).query("metric == 'loss' or split == 'test'").value.to_numpy() for each in (two, one))
        assert ours == pytest.approx(theirs, rel=1e-3, nan_ok=True)
        start = untrained(run, classes=10, device=torch.device("cpu")).kept()
        start, alone_, together = (
            {name: tensor for name, tensor in each.items() if not name.endswith(("qkv.bias", "norm.bias"))}
            for each in (start, weights(one, run), weights(two, run))
        )
        moved = largest_difference(start, alone_)
        assert moved > 0 and largest_difference(together, alone_) < 0.1 * moved


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("refused", ConfigError, "number 1 is refused"),
        ("killed", TrainingError, "a process died"),
        ("broken", TrainingError, "a process died, for the reason above"),
    ],
)
def test_the_others_finish_when_one_of_several_fails(
    tmp_path: Path, how: str, error: type[Exception], message: str, capfd: pytest.CaptureFixture
) -> None:
    ends = [(tmp_path, number, how if number == 1 else "well") for number in range(3)]
    with pytest.raises(error, match=message):
        launch.side_by_side(started.end, ends)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "2"]
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (how == "broken")


def test_joined_processes_end_when_one_fails(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a process died"):
        launch.side_by_side(started.end, [(tmp_path, 0, "waits"), (tmp_path, 1, "killed")], joined=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted, match=f"stopped by {number.name}"):
        launch.side_by_side(started.wait_for_a_signal, [(tmp_path, 0), (tmp_path, 1)])
    sender.join()


INTERRUPTED = """
import os, signal, sys
if __name__ == "__mp_main__":  # a worker imports this file before all else, and interrupts all, as a terminal does
    os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from smallest import SMALLEST
    from sarlib.runner.machine import Machine
    from sarlib.runner.schedule import execute_all
    from sarlib.runner.store import Store
    try:
        declared = [SMALLEST.with_seed(seed) for seed in range(3)]
        execute_all(declared, store=Store(Path({store!r})), root=None, machine=Machine("cpu", workers=2, threads=1))
    except KeyboardInterrupt as stop:
        print("\\n".join(stop._render_traceback_()), end="", file=sys.stderr)
"""


def test_an_interruption_while_workers_start_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.format(tests=str(Path(__file__).parents[1]), store=str(tmp_path / "store")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, start_new_session=True, timeout=900)
    lines = [line for line in done.stderr.splitlines() if "images/s" not in line and line.strip()]
    *before, last = lines
    assert last == "interrupted: 0 of 3 runs are finished; run it again to go on from there", done.stderr
    assert all(line.startswith("training: ") for line in before)  # the estimate
    assert done.returncode == 0


def test_an_error_in_a_process_is_one_line(tmp_path: Path, run: Run) -> None:
    odd = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, batch_size=5))
    with pytest.raises(TrainingError, match="failed: .*a batch of 5 images cannot be shared by 2 ranks"):
        execute_all([odd], store=Store(tmp_path), root=None, machine=TWO)


KILLING = """
import dataclasses, os, signal, sys, torch.distributed
from pathlib import Path
sys.path.insert(0, {tests!r})
from smallest import SMALLEST
from sarlib.trainer import distributed, loop as training
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store
run = dataclasses.replace(SMALLEST, recipe=dataclasses.replace(SMALLEST.recipe, epochs=200, evaluations=1))
def on_step(images):
    if torch.distributed.get_rank() == 1 and {at} == on_step.done:
        os.kill(os.getpid(), signal.SIGKILL)
    on_step.done += 1
on_step.done = 0
device = distributed.device_of("cpu")
with distributed.joined(device) as ranks:
    job = Job(Store(Path({store!r})), None, Machine("cpu", workers=1, threads=1))
    execute(Work(run), job, ranks=ranks, on_step=on_step)
"""


def test_a_dead_process_ends_the_others_with_one_line(tmp_path: Path) -> None:
    """Two processes without a launcher that would end the survivor: it notices by itself."""
    script = KILLING.format(tests=str(Path(__file__).parents[1]), at=5, store=str(tmp_path))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "SAR_TIMEOUT_MINUTES": "10"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = processes[0].communicate(timeout=900)[1]
    assert processes[1].wait(timeout=900) == -signal.SIGKILL and processes[0].returncode == 1
    assert "process 0 of 2 lost the others" in told.splitlines()[-1]


def test_torchrun_on_the_command_line(tmp_path: Path) -> None:
    """What a user of several machines types, on one: each process runs the table, the first writes it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sarlib", "table2"]
    arguments = ["--preset", "tiny", "--seeds", "1", "--device", "cpu", "--datasets", "digits, 48 images"]
    environment = {**os.environ, "SAR_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table2: Training from scratch") == 1
    assert (tmp_path / "tiny" / "table2.csv").exists()
    assert all('"processes": 2' in path.read_text() for path in (tmp_path / "store").glob("*/result.json"))


def local_cluster(tmp_path: Path, **parameters: object) -> Machine:
    file = tmp_path / "cluster.yml"
    file.write_text(yaml.safe_dump({"executor": "local", "timeout_min": 60, **parameters}))
    return check(device="cpu", cluster=file, gpus=2, workers=1)


def test_a_cluster_makes_each_run_a_job(tmp_path: Path, run: Run) -> None:
    short = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=1, evaluations=1))
    store = Store(tmp_path / "store")
    record = execute_all([short], store=store, root=None, machine=local_cluster(tmp_path))[short.key]
    assert record.provenance["processes"] == 2 and list((tmp_path / "cluster").glob("*/*.pkl"))


def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path: Path, run: Run) -> None:
    """The machine is taken away in the middle: the first start saves, the second finishes, with the numbers of an
    undisturbed run."""
    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "store")
    alone(run, whole, micro_batches=2)
    machine = local_cluster(tmp_path)
    cloudpickle.register_pickle_by_value(started)  # the job's processes cannot import it

    def take_away() -> None:
        """How a pre-emption is announced: SIGUSR2 to every task, here once all of them train and wait for it."""
        while not all((tmp_path / f"training-{rank}").exists() for rank in range(2)):
            time.sleep(0.1)
        (tmp_path / "preempted").touch()
        for task in _tasks_below(os.getpid()):
            os.kill(task, signal.SIGUSR2)

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    jobs = [Job(stopped, None, dataclasses.replace(machine, cluster=None), (Work(run),))]
    where = {"on": machine.cluster, "processes": 2, "gpus": False, "logs": tmp_path / "cluster"}
    assert list(launch.submit(started.train_until_preempted, jobs, **where)) == [0]
    thread.join(timeout=600)
    (log,) = (tmp_path / "cluster").glob("*/*_0_log.out")
    assert "Requeued job" in log.read_text()
    assert largest_difference(weights(stopped, run), weights(whole, run)) == 0


def _tasks_below(pid: int) -> list[int]:
    """Process numbers of the submitit tasks that descend from `pid`."""
    listed = [
        line.split(None, 2) for line in subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True).splitlines()[1:]
    ]
    parents = {int(child): int(parent) for child, parent, _ in listed}

    def descends(child: int) -> bool:
        while child in parents and child != pid:
            child = parents[child]
        return child == pid

    return [int(child) for child, _, args in listed if "submitit.core._submit" in args and descends(int(child))]


def test_bad_cluster_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yml"
    for content, message in (("nodes: 2", "must name its executor"), ("{", "cannot read the cluster file")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            launch.cluster(file)
    file.write_text("executor: slurm\ntimeout_minutes: 3")
    with pytest.raises(ConfigError, match="refuses its parameters"):
        list(launch.submit(print, [1], on=launch.cluster(file), processes=1, gpus=False, logs=tmp_path))
