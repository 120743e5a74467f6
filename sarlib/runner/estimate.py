"""How long trainings will take, said before the first begins: from similar runs in the store, else from a few steps."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from sarlib.run import Run
from sarlib.runner.execute import Job, Work, images_seen
from sarlib.runner.store import Store

STEPS, IMAGES, SECONDS = 4, 50, 2.0  # timed where no similar run is known: at most so many steps, of so many images, so long
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


def estimate(job: Job, works: Sequence[Work]) -> str:
    """One line, such as "about 14 minutes on 2 cores: 18 runs, 1,200 images a second each (as in 24 earlier runs)".

    On a cluster, where each run is a job of its own, it is about a job. Empty where nothing is to be trained, or on a GPU or
    cluster before the first run of its kind.
    """
    runs = [work.run for work in works if work.run.recipe.epochs and not job.store.has_weights(work.run)]
    earlier = _earlier(job.store, job.machine.device) if runs else {}
    machine = job.machine
    here = machine.cluster is None and machine.processes == 1 and machine.device.startswith("cpu")
    rates: dict[str, list[float]] = {}
    for run in {_kind(run): run for run in runs}.values():
        rates[_kind(run)] = earlier.get(_kind(run)) or ([_timed(run, job)] if here else [])
    if not runs or not all(rates.values()):
        return ""
    # Nearly the fastest: the slower records are of hours in which the machine had other work.
    usual = {kind: sorted(own)[int(0.9 * (len(own) - 1))] for kind, own in rates.items()}
    seconds = [images_seen(run, job.root) / usual[_kind(run)] for run in runs]
    rate = sum(images_seen(run, job.root) for run in runs) / sum(seconds)
    known = sum(len(own) for kind, own in rates.items() if kind in earlier)
    how = f"as in {known} earlier runs" if known else "by a few steps"
    many, each = (f"{len(runs)} runs, ", " each") if len(runs) > 1 else ("", "")
    if machine.cluster is not None:  # whose business is how many jobs run at once
        took = f"at most about {_duration(max(seconds))} a job"
    else:
        at_once = max(1, min(machine.workers or 1, len(runs)))
        where = "a GPU" if machine.device.startswith("cuda") else f"{at_once} cores" if at_once > 1 else "one core"
        took = f"about {_duration(max(sum(seconds) / at_once, *seconds))} on {where}"
    return f"{took}: {many}{rate:,.0f} images a second{each} ({how})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds" if seconds >= 1.5 else "a second"
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"


def _kind(run: Run) -> str:
    """What runs of one speed have in common."""
    model = dataclasses.replace(run.model, variant="A", drop_path=0.0)
    trained = run.recipe.epochs > 0  # else a published network, at no speed
    return repr((run.task.name, model, run.data.image_size, [each.name for each in run.regularizers], trained))


def _earlier(store: Store, device: str) -> dict[str, list[float]]:
    """Images a second of the finished runs on such a device, evaluations included, by their kind."""
    found: dict[str, list[float]] = {}
    for folder in store.root.glob("*/"):
        try:
            result: dict[str, Any] = json.loads((folder / "result.json").read_text())
            on_gpu = not result["provenance"]["device"].startswith("CPU")
            if on_gpu == device.startswith("cuda"):
                kind = _kind(Run.from_dict(json.loads((folder / "config.json").read_text())))
                found.setdefault(kind, []).append(result["metrics"]["images_per_second"])
        except _UNREADABLE:
            continue  # unfinished, or another process is at it
    return found


def _timed(run: Run, job: Job) -> float:
    """Images a second of the run by a few steps on noise, with what its evaluations will take at a third of a step an image."""
    import torch

    from sarlib.tasks import create
    from sarlib.trainer.step import backward, build_optimizer

    threads = torch.get_num_threads()
    torch.set_num_threads(job.machine.threads or 1)
    with torch.random.fork_rng(devices=[]):
        task = create(run, classes=10)
        optimizer = build_optimizer(task, run.recipe)
        images, took = min(IMAGES, run.recipe.batch_size), []
        batch = task.example_batch(images, run.data.image_size)
        while len(took) < STEPS and sum(took) < SECONDS:
            began = time.monotonic()
            backward(task, batch, weights=[part.weight for part in run.regularizers])
            optimizer.step()
            took.append(time.monotonic() - began)
    torch.set_num_threads(threads)
    step = min(took) / images  # the first one warms up
    trained, tested = images_seen(run, job.root), run.recipe.evaluations * (run.data.test_size or 10_000)
    return trained / (step * (trained + tested / 3))
