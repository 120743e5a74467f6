"""Lives that end by SIGKILL: a warm process forks a child for each task and kills it at a chosen moment.

Started as a program it imports and loads all that a task needs, once; then it reads orders, one JSON object a line, and
answers each by what became of the child. So a life costs a fork, not the seconds of importing PyTorch.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

#: What a writer asks of the file system. `fdopen` stands for the writes to the file that it opens: see `_Halves`.
CALLS = ("fdopen", "fsync", "chmod", "replace", "unlink")


@dataclass(frozen=True)
class Life:
    """`calls`: how many boundaries between calls to the file system it passed. `saving`: it died while a checkpoint
    was being saved."""

    killed: bool
    result: str
    calls: int
    saving: bool
    seconds: float


@contextmanager
def warm_process() -> Iterator[Callable[..., Life]]:
    """Yields `live(task, folder, at_call=None, after_seconds=None)`: the life of a child with one of the tasks below,
    in `folder`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def live(task: str, folder: Path, **moment: float) -> Life:
            print(json.dumps({"task": task, "folder": str(folder), **moment}), file=process.stdin, flush=True)
            return Life(**json.loads(process.stdout.readline()))

        yield live
        process.stdin.close()


class _Shared:
    """Two counters that outlive the child."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 16)).cast("q")

    calls = property(lambda self: self._numbers[0], lambda self, value: self._numbers.__setitem__(0, value))
    saving = property(lambda self: self._numbers[1], lambda self, value: self._numbers.__setitem__(1, value))


def _watch(shared: _Shared, *, at_call: int | None) -> None:
    """Count the calls to the file system; before the one numbered `at_call` die."""

    def boundary() -> None:
        shared.calls += 1
        if shared.calls == at_call:
            os.kill(os.getpid(), signal.SIGKILL)

    class _Halves(io.FileIO):
        """A file to which everything is written in two halves."""

        def write(self, content: bytes) -> int:
            whole = memoryview(content).cast("B")
            for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                boundary()
                super().write(half)
            return len(whole)

    def counted(call: Callable) -> Callable:
        def before_the_call(*arguments: object, **rest: object) -> object:
            boundary()
            return call(*arguments, **rest)

        return before_the_call

    for name in CALLS:
        setattr(os, name, counted(_Halves if name == "fdopen" else getattr(os, name)))


def _live(task: Callable[[Path], str], *, folder: Path, at_call: int | None = None, after_seconds: float | None = None) -> Life:
    """Fork, let the child do its task, kill it if it is told to die after some seconds. The pipe brings its result,
    or its end."""
    shared = _Shared()
    began = time.monotonic()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _watch(shared, at_call=at_call)
            os.write(theirs, task(folder, shared).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(theirs)
    ended = select.select([ours], [], [], after_seconds)[0]
    if not ended:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(ours) as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a task failed with status {status}")
    # One that has handed over its result was not cut short, even where the signal came before its end.
    return Life(
        killed=not result, result=result, calls=shared.calls, saving=bool(shared.saving), seconds=time.monotonic() - began
    )


def _serve() -> None:
    from dataclasses import replace

    import torch
    from smallest import SMALLEST

    from sarlib import data, experiments, report
    from sarlib.runner.store import Record, Store
    from sarlib.tasks.metrics import MACHINE_METRICS
    from sarlib.trainer import checkpoint, loop
    from sarlib.trainer.loop import train

    run = replace(SMALLEST, recipe=replace(SMALLEST.recipe, ema=0.9))
    images = data.load(run.data, seed=run.seed, root=None)

    def training(folder: Path, shared: _Shared) -> str:
        """The smallest run with a checkpoint after every step: a digest of its weights, their average and its history."""
        save = checkpoint.save

        def noted(*arguments: object) -> None:
            shared.saving = True
            save(*arguments)
            shared.saving = False

        checkpoint.save = noted
        trained = train(run, images=images, device=torch.device("cpu"), folder=folder, checkpoint_seconds=0.0)
        digest = hashlib.sha256(json.dumps(trained.history).encode())
        for task in (trained.task, trained.ema):
            for name, tensor in task.state_dict().items():
                digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def saving(folder: Path, shared: _Shared) -> str:
        """A third checkpoint after two."""
        checkpoint.save(folder, {"key": "k", "number": 3, "weights": torch.full((1000,), 3.0)})
        return "saved"

    def recording(folder: Path, shared: _Shared) -> str:
        """A finished run's record."""
        record = Record(run=run, metrics={"top1": 50.0}, provenance={"commit": "abc"})
        history = [{"epoch": 1, "split": "test", "metric": "top1", "value": 50.0}]
        Store(folder).write(run, record=record, history=history, weights={"w": torch.ones(1000)})
        return run.key

    def tables(folder: Path, shared: _Shared) -> str:
        """Tables 7 and 8 at the smallest size, with a checkpoint after every step: all that they say, but for how long it took.
        Parents, children and measurements."""
        os.environ["SAR_RUNS"] = str(folder)
        loop.train = partial(train, checkpoint_seconds=0.0)
        said = []
        for name, dataset in (("table7", "shapes-clipart, 24 images"), ("table8", "shapes-object, 96 images")):
            experiment = experiments.declare(name, preset="tiny", seeds=1, datasets=dataset)
            said.append(report.text(experiments.run(experiment, workers=1, device="cpu"), experiment))
            lines = experiments.csv_path(experiment).read_text().splitlines()
            said += [line for line in lines if not any(f",{metric}," in line for metric in MACHINE_METRICS)]
        return "\n".join(said)

    tasks = {task.__name__: task for task in (training, saving, recording, tables)}
    for line in sys.stdin:
        order = json.loads(line)
        task, folder = tasks[order.pop("task")], Path(order.pop("folder"))
        print(json.dumps(asdict(_live(task, folder=folder, **order))), flush=True)


if __name__ == "__main__":
    _serve()
