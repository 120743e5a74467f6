"""One run, from its declaration to its record: answered from the store, resumed, or trained."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sarlib import data
from sarlib.config import ConfigError
from sarlib.run import Run
from sarlib.runner.provenance import provenance
from sarlib.runner.store import Record, Store
from sarlib.trainer import distributed
from sarlib.trainer.distributed import ALONE, Ranks


def execute(
    run: Run,
    *,
    store: Store,
    root: Path | None,
    device: str,
    ranks: Ranks = ALONE,
    micro_batches: int = 1,
    on_step: Any = lambda images: None,
) -> Record:
    """The record of one run: from the store, or by (resumed) training. Waits if another process is at it.

    `root` is the folder of real data sets; `ranks`, `micro_batches` and `on_step` as in `train`. All ranks get the record.
    """
    with store.lock(run) if ranks.first else nullcontext():
        return execute_locked(
            run, store=store, root=root, device=device, ranks=ranks, micro_batches=micro_batches, on_step=on_step
        )


def execute_locked(
    run: Run, *, store: Store, root: Path | None, device: str, ranks: Ranks = ALONE, micro_batches: int = 1, on_step: Any
) -> Record:
    """As `execute`, for a caller that holds the lock of `run` already."""
    record = ranks.broadcast(store.read(run) if ranks.first else None)
    if record is not None:
        return record
    own = distributed.device_of(device)
    return _train_and_keep(run, store=store, root=root, device=own, ranks=ranks, micro_batches=micro_batches, on_step=on_step)


def _train_and_keep(
    run: Run, *, store: Store, root: Path | None, device: torch.device, ranks: Ranks, micro_batches: int, on_step: Any
) -> Record:
    # What trains brings timm and torchvision with it, seconds of imports that a run answered from the store can do without.
    from sarlib.tasks.masks import jaccard_references
    from sarlib.trainer.loop import evaluate, train
    from sarlib.trainer.throughput import cost

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    compiled, data_workers = _compiled(device), _data_workers(device)
    images = data.load(run.data, seed=run.seed, root=root)
    trained = train(
        run,
        images=images,
        device=device,
        folder=store.folder(run),
        ranks=ranks,
        micro_batches=micro_batches,
        data_workers=data_workers,
        compiled=compiled,
        on_step=on_step,
    )
    metrics = {
        row["metric"]: row["value"] for row in trained.history if row["split"] == "test" and row["epoch"] == run.recipe.epochs
    }
    if trained.ema is not None:
        ema = evaluate(trained.ema, images[1], run=run, device=device, ranks=ranks, data_workers=data_workers)
        metrics |= {f"{name}_ema": value for name, value in ema.items()}
    record = None
    if ranks.first:
        metrics |= jaccard_references(images[1], (run.grid, run.grid), heads=run.model.heads)
        rate = images_seen(run, available=len(images[0])) / trained.seconds
        metrics |= {"seconds": trained.seconds, "images_per_second": rate}
        setup = {"processes": ranks.size, "micro_batches": micro_batches, "compiled": compiled, "input": trained.source}
        spent = cost(run, classes=len(images[0].classes), images_per_second=rate, device=device, processes=ranks.size)
        spent |= {"data_wait": trained.waited / trained.seconds, **_memory(device)}
        record = Record(run=run, metrics=metrics, provenance=provenance(device) | setup | spent)
        store.write(run, record=record, history=trained.history, weights=trained.task.kept())
    return ranks.broadcast(record)


def _compiled(device: torch.device) -> bool:
    """Whether the training step goes through torch.compile: on a GPU, unless SAR_COMPILE=0 or 1 says otherwise."""
    forced = os.environ.get("SAR_COMPILE", "")
    if forced not in ("", "0", "1"):
        raise ConfigError(f"SAR_COMPILE={forced!r}: set it to 0 or 1, or unset it")
    return forced == "1" if forced else device.type == "cuda"


def _data_workers(device: torch.device) -> int:
    """Processes that decode images which stay files: beside a GPU this process's share of the cores; on a CPU none, the cores train."""
    if device.type != "cuda":
        return 0
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _memory(device: torch.device) -> dict[str, float]:
    """Peak memory of the run in MiB: on the GPU where there is one, else of the process since it started."""
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def images_seen(run: Run, available: int | None = None) -> int:
    """Training images that a run sees, of a set that holds `available` of them; without it, as far as its declaration tells."""
    size = available or run.data.train_size or 50_000
    return run.recipe.epochs * (size - size % min(size, run.recipe.batch_size))
