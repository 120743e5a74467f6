"""One run, from its declaration to its record and measurements: answered from the store, resumed, or trained.

torch, timm and torchvision are imported in the functions that train: a table that the store answers does without those seconds.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from sarlib.config import require
from sarlib.run import Measurement, Run
from sarlib.runner import published
from sarlib.runner.machine import Machine
from sarlib.runner.provenance import provenance
from sarlib.runner.store import Record, Store

if TYPE_CHECKING:
    import torch

    from sarlib.trainer.distributed import Ranks

#: Is given the number of images that were looked at.
OnStep = Callable[[int], object]
#: The record of a run, and what was measured of it by the measurements' keys.
Answer = tuple[Record, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Work:
    """What one process does in one go: train a run, unless the store has it with its weights, and take measurements of it."""

    run: Run
    measurements: tuple[Measurement, ...] = ()

    def answer(self, store: Store) -> Answer | None:
        """What the store has of it; None if something is missing other than the weights."""
        record = store.read(self.run)
        measured = {each.key: store.read_measured(self.run, each) for each in self.measurements}
        return None if record is None or None in measured.values() else (record, measured)

    def images(self, store: Store, root: Path | None) -> int:
        """How many images are to be looked at for it; 10,000 for a test set of unknown size."""
        measured = sum(each.images or each.data.test_size or 10_000 for each in self.measurements)
        return measured + (0 if store.has_weights(self.run) else images_seen(self.run, root))


@dataclass(frozen=True)
class Job:
    """Works, as far as the store lacks them; `root` is the folder of real data sets."""

    store: Store
    root: Path | None
    machine: Machine
    works: tuple[Work, ...] = ()
    title: str = ""


def execute(
    work: Work, job: Job, *, ranks: Ranks | None = None, on_step: OnStep = lambda images: None, wait: bool = True
) -> Record | None:
    """The record of a run whose weights and measurements the store has from now on: what is missing is trained, or taken.

    While another process is at the same run this one waits, or returns None at once with `wait=False`. `ranks` (by default this
    process alone) and `on_step` as in `train`. All ranks get the record.
    """
    from sarlib.trainer.distributed import ALONE, device_of

    run, store, ranks, device = work.run, job.store, ranks or ALONE, device_of(job.machine.device)
    try:
        lock = store.lock(run).acquire(blocking=wait) if ranks.first else nullcontext()
    except Timeout:
        return None
    with lock:
        if not ranks.broadcast(ranks.first and store.has_weights(run)):
            _train(run, job, device=device, ranks=ranks, on_step=on_step)
        for measurement in work.measurements if ranks.first else ():
            if store.read_measured(run, measurement) is None:
                from sarlib import measures
                from sarlib.measures.finished import Finished

                found = measures.take(Finished(run, store.weights(run), job.root, device), measurement)
                store.write_measured(run, measurement, found)
        on_step(work.images(store, job.root))
        return ranks.broadcast(store.read(run) if ranks.first else None)


def _train(run: Run, job: Job, *, device: torch.device, ranks: Ranks, on_step: OnStep) -> None:
    import torch

    from sarlib import data
    from sarlib.tasks.masks import jaccard_references
    from sarlib.trainer.loop import evaluate, train
    from sarlib.trainer.throughput import cost

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start, folder = run.pretrained, job.store.folder(run)
    weights = job.store.weights(start) if isinstance(start, Run) else start and published.weights(start, root=job.root)
    compiled, data_workers = _compiled_and_data_workers(device)
    setup = {"micro_batches": job.machine.micro_batches, "compiled": compiled}
    where = {"device": device, "ranks": ranks, "data_workers": data_workers}
    images = data.load(run.data, seed=run.seed, root=job.root)
    trained = train(run, images=images, folder=folder, pretrained=weights, on_step=on_step, **setup, **where)
    last = [row for row in trained.history if row["split"] == "test" and row["epoch"] == run.recipe.epochs]
    metrics = {row["metric"]: row["value"] for row in last}
    if trained.ema is not None:
        ema = evaluate(trained.ema, images[1], run=run, **where)
        metrics |= {f"{name}_ema": value for name, value in ema.items()}
    if not ranks.first:
        return
    if "jaccard" in metrics:
        metrics |= jaccard_references(images[1], (run.grid, run.grid), heads=run.model.heads)
    rate = _images_of_epochs(run, len(images[0])) / trained.seconds
    metrics |= {"seconds": trained.seconds, "images_per_second": rate}
    spent = cost(run, classes=len(images[0].classes), images_per_second=rate, device=device, processes=ranks.size)
    spent |= {"data_wait": trained.waited / trained.seconds, **_memory(device)}
    took = {"processes": ranks.size, "input": trained.source, "images": [*map(len, images)]}
    origin = provenance(device) | setup | took | spent
    record = Record(run=run, metrics=metrics, provenance=origin)
    job.store.write(run, record=record, history=trained.history, weights=trained.task.kept())


def _compiled_and_data_workers(device: torch.device) -> tuple[bool, int]:
    """Whether a step goes through torch.compile, as it does on a GPU unless SAR_COMPILE=0 or 1 says otherwise, and how many
    processes decode images that stay files: beside a GPU this process's share of the cores; on a CPU those train."""
    forced, on_gpu = os.environ.get("SAR_COMPILE", ""), device.type == "cuda"
    require(forced in ("", "0", "1"), f"SAR_COMPILE={forced!r}: set it to 0 or 1, or unset it")
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return forced == "1" if forced else on_gpu, max(1, share) if on_gpu else 0


def _memory(device: torch.device) -> dict[str, float]:
    """Peak memory of the run in MiB: on the GPU where there is one, else of the process since it started."""
    if device.type == "cuda":
        import torch

        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def images_seen(run: Run, root: Path | None) -> int:
    """Training images that a run is going to see: its epochs of whole batches. A published network sees none."""
    if not run.recipe.epochs:
        return 0
    return _images_of_epochs(run, run.data.train_size or _in_all(run.data.name, root))


def _images_of_epochs(run: Run, size: int) -> int:
    return run.recipe.epochs * (size - size % min(size, run.recipe.batch_size))


@functools.cache
def _in_all(name: str, root: Path | None) -> int:
    """Training images of the whole set; 50,000 where none is named of an embedded one."""
    from sarlib import data

    return 50_000 if data.is_embedded(name) else data.inspect(name, root=root).train
