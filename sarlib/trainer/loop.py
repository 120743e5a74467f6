"""The training loop: one run from its declaration to trained weights, exactly resumable, alone or on many processes.

Every random number is drawn from a stream named by (seed, epoch, step), as the batches are (`sarlib.data.loader`), so that no
checkpoint needs a random state, and a run may be resumed on more or fewer processes. What is learned is the task's business
(`sarlib.tasks`): to the loop a batch is tensors with one row an image, of which the task makes losses.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sarlib.config import TrainingError, require
from sarlib.data.images import Images
from sarlib.models.pretrained import origin, start_from
from sarlib.run import Run
from sarlib.tasks.task import Task
from sarlib.trainer.checkpoint import Progress, State, what_remains
from sarlib.trainer.distributed import ALONE, Ranks
from sarlib.trainer.interruption import Interrupted, listening
from sarlib.trainer.schedules import evaluation_epochs, learning_rate, loss_weight
from sarlib.trainer.step import backward, build_optimizer, clip, parallel, set_learning_rate, stream, untrained, update_ema

#: On a GPU the losses are read, and the processes agree on stopping and saving, only so often, in steps: each waits for it.
READ_EVERY = {"cuda": 25, "cpu": 1}
#: What the history calls the mean loss of each regularizer, and its weight.
REGULARIZERS = (("regularizer", "weight"), ("second", "second_weight"))


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the task with its raw weights, and with their moving average if the recipe keeps one; the
    history; the seconds that training and evaluating took, and how many of them it waited for data; `source` says where its
    batches came from."""

    task: Task
    ema: Task | None
    history: list[dict[str, Any]]
    seconds: float
    waited: float
    source: str


def train(
    run: Run,
    *,
    images: tuple[Images, Images],
    device: torch.device,
    folder: Path,
    ranks: Ranks = ALONE,
    micro_batches: int = 1,
    data_workers: int = 0,
    compiled: bool = False,
    on_step: Callable[[int], None] = lambda images: None,
    checkpoint_seconds: float = 10.0,
    pretrained: dict[str, Tensor] | None = None,
) -> Trained:
    """Train `run` on `images` (train, test), resuming from the checkpoint in `folder` if there is one.

    Each of the `ranks` takes its share of every batch, in `micro_batches` one after the other where memory is short; the
    gradient is that of the whole batch either way. `data_workers` processes decode images that are files. `compiled`: by
    torch.compile. `on_step` is called in the first process after every step with the number of images that the step covered in
    all processes (and once at a resume, with those already done). A checkpoint is written at the first step after every
    `checkpoint_seconds`, and when a signal asks the process to stop: `Interrupted` is raised then, in every process at the same
    step. `pretrained` are the weights of the network that the run starts from, if it starts from one.

    `TrainingError` if a loss is not finite, or the task finds no use in going on; `ConfigError` if processes and micro_batches
    do not divide the batch, or the pretrained weights are missing or of another architecture.
    """
    training, test = images
    recipe = run.recipe
    # A training starts and resumes in this order:
    # 1. The task from the seed: its network, then its regularizers.
    task = untrained(run, classes=len(training.classes), device=device)
    # 2. Pretrained weights take the place of the network's, but for its head.
    starts = "untrained" if run.pretrained is None else "from another network, whose weights are needed"
    require((pretrained is None) == (run.pretrained is None), f"run {run.key} starts {starts}")
    if pretrained is not None:
        start_from(task.model, pretrained, **origin(run.pretrained))
    # 3. Optimizer and moving average are made of these.
    optimizer = build_optimizer(task, recipe)
    ema = copy.deepcopy(task).requires_grad_(False) if recipe.ema else None
    # 4. A checkpoint takes the place of all three, and says where the training is.
    state = State(run, folder, {"task": task, "optimizer": optimizer} | ({"ema": ema} if recipe.ema else {}))
    progress = state.resume(device, ranks)
    # 5. The batches go on from there: each is a function of seed, epoch and step.
    batches = task.batches(training, run, device=device, data_workers=data_workers, rank=ranks.rank, world_size=ranks.size)
    steps = recipe.epochs * batches.steps_per_epoch
    images_a_step = min(recipe.batch_size, len(training))
    share = images_a_step // ranks.size
    why = f"a process's share of {share} images a step cannot be cut into {micro_batches} equal micro_batches"
    require(share % micro_batches == 0, why)
    require(task.divisible or micro_batches == 1, f"{run.task.name} takes a batch whole: say micro_batches 1")
    on_step((progress.epoch * batches.steps_per_epoch + progress.step) * images_a_step)
    # 6. Processes and compiler wrap the task last, which shares its parameters with what they make of it.
    called = parallel(task, device=device, ranks=ranks, compiled=compiled)

    clock = saved = time.monotonic()
    unread: list[Tensor] = []
    with listening() as request:
        while progress.epoch < recipe.epochs:
            task.train()
            weights = [loss_weight(part, epoch=progress.epoch, epochs=recipe.epochs) for part in run.regularizers]
            for batch in _waited_for(batches.epoch(progress.epoch, start=progress.step), progress):
                step = progress.epoch * batches.steps_per_epoch + progress.step
                own = [ranks.rank] if ranks.rank else []
                torch.manual_seed(stream(run.seed, "model", progress.epoch, progress.step, *own))
                set_learning_rate(optimizer, learning_rate(recipe, step=step, steps_per_epoch=batches.steps_per_epoch))
                optimizer.zero_grad(set_to_none=True)
                note = partial(progress.record, "train") if progress.step == 0 else None
                losses = backward(called, batch, weights=weights, micro_batches=micro_batches, ranks=ranks, note=note)
                unread.append(torch.cat([losses, clip(task, recipe.clip)]))
                task.before_step(optimizer.param_groups, step / steps)
                optimizer.step()
                task.after_step((step + 1) / steps)
                if ema is not None:
                    update_ema(ema, task, decay=recipe.ema)
                progress.step += 1
                on_step(images_a_step)

                if (step + 1) % READ_EVERY[device.type] == 0:
                    _read(unread, progress, task=task, state=state, ranks=ranks)
                    stop, due = ranks.max(request.number, ranks.first and time.monotonic() - saved > checkpoint_seconds)
                    if stop or due:
                        progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
                        if ranks.first:
                            state.save(progress)
                        saved = time.monotonic()
                    if stop:
                        raise Interrupted(stop)
            _read(unread, progress, task=task, state=state, ranks=ranks)
            loss = _end_epoch(progress, weights)
            if reason := task.failure(loss, progress.epoch, progress.epoch * batches.steps_per_epoch):
                raise TrainingError(f"run {run.key} is given up at epoch {progress.epoch}: {reason}; {what_remains(folder)}")
            if progress.epoch in evaluation_epochs(recipe):
                measured = evaluate(task, test, run=run, device=device, ranks=ranks, data_workers=data_workers)
                progress.record("test", measured)
    progress.seconds += time.monotonic() - clock
    return Trained(task, ema, progress.history, progress.seconds, progress.waited, batches.source)


def evaluate(
    task: Task, images: Images, *, run: Run, device: torch.device, ranks: Ranks = ALONE, data_workers: int = 0
) -> dict[str, float]:
    """`task.evaluate` on the test set of `run`, shared by the `ranks`: each image counts once, and all get the same numbers."""
    share = ranks.share(len(images))
    own = images if ranks.size == 1 else images.subset(share or range(1))  # with fewer images than ranks some have none
    shown = {"batch_size": run.recipe.evaluation_batch_size, "image_size": run.data.image_size}
    measured = task.measure(own, **shown, device=device, data_workers=data_workers)
    parts = ranks.gather({name: rows[: len(share)] for name, rows in measured.items()})
    return task.summarize({name: torch.cat([part[name] for part in parts]) for name in measured})


def _waited_for(batches: Iterable[Any], progress: Progress) -> Iterator[Any]:
    """`batches`; the seconds until each is there are added to `progress.waited`."""
    since = time.monotonic()
    for batch in batches:
        progress.waited += time.monotonic() - since
        yield batch
        since = time.monotonic()


def _read(unread: list[Tensor], progress: Progress, *, task: Task, state: State, ranks: Ranks) -> None:
    """Moves the losses of the last steps from the device to `progress`, as means over processes.

    `unread` holds the losses and the norm of the gradient of each step; `TrainingError` at the first that is not finite.
    """
    if not unread:
        return
    values = ranks.mean(torch.stack(unread).cpu())
    for step, found in enumerate(values, start=progress.step - len(unread)):
        if not found.isfinite().all():
            names = (*task.loss_names, "gradient norm")
            each = ", ".join(f"{name} {value}" for name, value in zip(names, found.tolist(), strict=True))
            raise TrainingError(
                f"run {state.run.key}: the loss is not finite at epoch {progress.epoch}, step {step} ({each}; "
                f"the batch is that of seed {state.run.seed}); {what_remains(state.folder)}"
            )
    progress.losses += values[:, :-1].tolist()
    unread.clear()


def _end_epoch(progress: Progress, weights: list[float]) -> float:
    """Records the means of the epoch's losses, and the `weights` that the regularizers had in it (0 without one). Returns the
    task's own."""
    own, *others = torch.tensor(progress.losses, dtype=torch.float64).mean(0).tolist()
    progress.record("train", {"loss": own})
    for names, mean, weight in zip(REGULARIZERS, others or [0.0], weights or [0.0]):
        progress.record("train", dict(zip(names, (mean, weight), strict=True)))
    progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
    return own
