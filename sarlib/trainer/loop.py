"""The training loop: one run from its declaration to trained weights, exactly resumable, alone or on many processes.

Order of things: 1 images, 2 model, regularisers and optimizer from the seed, 3 what a checkpoint holds replaces them, 4 epochs of steps, 5 evaluation.
Every random number is drawn from a stream named by (seed, epoch, step), never from a state that lives between steps: a run that was
interrupted continues with the very numbers it would have had, and needs no random state in its checkpoint. The global batches are
the same for any number of processes, so a run may also be resumed on more or fewer of them.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sarlib import models
from sarlib import regularizers as losses
from sarlib.config import ConfigError, Recipe, Regularizer, TrainingError
from sarlib.data import Images
from sarlib.data.loader import TrainBatches
from sarlib.last_block import query_key_gradient
from sarlib.run import Run
from sarlib.trainer import checkpoint
from sarlib.trainer.distributed import ALONE, Ranks
from sarlib.trainer.evaluate import evaluate
from sarlib.trainer.interruption import Interrupted, listening
from sarlib.trainer.objective import Objective
from sarlib.trainer.progress import Progress, State
from sarlib.trainer.schedules import evaluation_epochs, learning_rate, loss_weight

#: On a GPU the losses are read, and the processes agree on stopping and saving, only so often (in steps): each time waits for the GPU.
READ_EVERY = {"cuda": 25, "cpu": 1}


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the raw weights, their moving ema if the recipe keeps one, the history, the seconds that training and
    evaluating took, and how many of them it waited for data. `source` says where its batches came from."""

    model: nn.Module
    ema: nn.Module | None
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
) -> Trained:
    """Train `run` on `images` (train, test), resuming from the checkpoint in `folder` if there is one.

    Each of the `ranks` takes its share of every batch, in `micro_batches` one after the other where memory is short; the gradient is that of the
    whole batch either way. `data_workers` processes decode images that are files. `compiled`: by torch.compile. `on_step` is called in the first process after every step with the number of
    images that the step covered in all processes (and once at a resume, with those already done). A checkpoint is written at the first step
    after every `checkpoint_seconds`, and when a signal asks the process to stop: `Interrupted` is raised then, in every process at
    the same step. `TrainingError` if a loss is not finite, `ConfigError` if processes and micro_batches do not divide the batch.
    """
    training, test = images
    recipe = run.recipe
    objective, optimizer = _build(run, classes=len(training.classes), device=device)
    model = objective.model
    ema = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
    batches = TrainBatches(
        training,
        augmentation=run.augmentation,
        batch_size=recipe.batch_size,
        image_size=run.data.image_size,
        seed=run.seed,
        device=device,
        data_workers=data_workers,
        rank=ranks.rank,
        world_size=ranks.size,
    )
    state = State(run, folder=folder, objective=objective, optimizer=optimizer, ema=ema)
    progress = state.resume(device, ranks)
    images_a_step = min(recipe.batch_size, len(training))
    _require_micro_batches(images_a_step // ranks.size, micro_batches)
    on_step((progress.epoch * batches.steps_per_epoch + progress.step) * images_a_step)
    step_losses = _parallel(objective, device=device, ranks=ranks, compiled=compiled)

    read_every = READ_EVERY[device.type]
    clock = saved = time.monotonic()
    unread: list[Tensor] = []
    with listening() as asked:
        while progress.epoch < recipe.epochs:
            objective.train()
            weights = [loss_weight(part, epoch=progress.epoch, epochs=recipe.epochs) for part in _regularizers(run)]
            waiting = time.monotonic()
            for pixels, targets in batches.epoch(progress.epoch, start=progress.step):
                progress.waited += time.monotonic() - waiting
                torch.manual_seed(
                    stream(run.seed, "model", progress.epoch, progress.step, *([ranks.rank] if ranks.rank else []))
                )
                step = progress.epoch * batches.steps_per_epoch + progress.step
                _set_learning_rate(optimizer, learning_rate(recipe, step=step, steps_per_epoch=batches.steps_per_epoch))
                optimizer.zero_grad(set_to_none=True)
                note = progress if progress.step == 0 else None
                found = backward(
                    step_losses, pixels, targets, weights=weights, micro_batches=micro_batches, ranks=ranks, note=note
                )
                unread.append(torch.cat([found, clip(objective, recipe.clip)]))
                optimizer.step()
                if ema is not None:
                    _update_ema(ema, model, decay=recipe.ema)
                progress.step += 1
                on_step(images_a_step)

                if (step + 1) % read_every == 0:
                    _read(run, progress, unread, ranks=ranks, folder=folder)
                    stop, due = ranks.max(asked.number, ranks.first and time.monotonic() - saved > checkpoint_seconds)
                    if stop or due:
                        progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
                        if ranks.first:
                            state.save(progress)
                        saved = time.monotonic()
                    if stop:
                        raise Interrupted.by(stop)
                waiting = time.monotonic()
            _read(run, progress, unread, ranks=ranks, folder=folder)
            _book(progress, weights)
            progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
            if progress.epoch in evaluation_epochs(recipe):
                progress.record(
                    "test", evaluate(model, test, **evaluation(run), device=device, ranks=ranks, data_workers=data_workers)
                )
    progress.seconds += time.monotonic() - clock
    return Trained(
        model=model,
        ema=ema,
        history=progress.history,
        seconds=progress.seconds,
        waited=progress.waited,
        source=batches.source,
    )


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the random numbers called `names` of the run with `seed`; different names give unrelated streams."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _regularizers(run: Run) -> list[Regularizer]:
    return list(run.regularizers)


def build_objective(run: Run, *, classes: int) -> Objective:
    """Model and regularisers of a run from torch's global random state."""
    model, side = run.model, run.data.image_size // run.model.patch_size
    network = models.create(model, classes=classes, image_size=run.data.image_size)
    regularizers = [losses.create(part, dim=model.dim, heads=model.heads, grid=(side, side)) for part in _regularizers(run)]
    return Objective(network, regularizers)


def _build(run: Run, *, classes: int, device: torch.device) -> tuple[Objective, torch.optim.Optimizer]:
    """Objective and optimizer from the seed. Rows that share a seed share the initial weights of all parameters that they share."""
    torch.manual_seed(stream(run.seed, "initialisation"))
    objective = build_objective(run, classes=classes).to(device)
    return objective, build_optimizer(objective.model, run.recipe, beside=objective.regularizers.parameters())


def build_optimizer(model: nn.Module, recipe: Recipe, *, beside: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """AdamW without weight decay on norms, biases and what the model names; `beside` are parameters that are not the model's."""
    groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=model.no_weight_decay())
    if own := list(beside):
        groups.append({"params": own, "weight_decay": recipe.weight_decay})
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


def _require_micro_batches(images: int, micro_batches: int) -> None:
    if images % micro_batches:
        raise ConfigError(f"a process's share of {images} images a step cannot be cut into {micro_batches} equal micro_batches")


def _parallel(objective: Objective, *, device: torch.device, ranks: Ranks, compiled: bool) -> nn.Module:
    """What is called in a step: `objective` itself, with gradients averaged over processes where there are several, and compiled if asked."""
    if ranks.size > 1:
        own = [device] if device.type == "cuda" else None
        objective = DistributedDataParallel(objective, device_ids=own, gradient_as_bucket_view=True)
    if compiled:
        # The first step of an epoch looks at gradients before its backward pass, which therefore may not reuse their buffers.
        torch._functorch.config.donated_buffer = False
        objective = torch.compile(objective)
    return objective


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def backward(
    step_losses: nn.Module,
    pixels: Tensor,
    targets: Tensor,
    *,
    weights: list[float],
    micro_batches: int,
    ranks: Ranks,
    note: Progress | None,
) -> Tensor:
    """Leaves the gradient of the weighted losses of a batch in the parameters; returns the losses, as `Objective` does.

    Piece by micro_batch, each weighted so that their sum is the mean over the batch; the processes exchange gradients with the last one. `note` is
    told the norms of the first micro_batch's gradients.
    """
    total = torch.zeros(1 + len(weights), device=pixels.device)
    for i, micro_batch in enumerate(zip(pixels.chunk(micro_batches), targets.chunk(micro_batches), strict=True)):
        with step_losses.no_sync() if ranks.size > 1 and i < micro_batches - 1 else nullcontext():
            found = step_losses(*micro_batch)
            if note is not None and i == 0:
                note.record("train", _gradient_norms(step_losses, found))
            weighted = found[0]
            for loss, weight in zip(found[1:], weights, strict=True):
                weighted = weighted + weight * loss
            (weighted / micro_batches).backward()
        total += found.detach() / micro_batches
    return total


def clip(objective: nn.Module, limit: float | None) -> Tensor:
    """Scales the gradient down to a norm of at most `limit`; returns its norm before that, (1,)."""
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if limit is not None:
        nn.utils.clip_grads_with_norm_(objective.parameters(), limit, norm)
    return norm[None].float()


def _gradient_norms(step_losses: nn.Module, found: Tensor) -> dict[str, float]:
    """Norms of the losses' gradients on the last block's query and key rows: where they meet. The regularisers' are unweighted."""
    objective = getattr(step_losses, "_orig_mod", step_losses)
    model = getattr(objective, "module", objective).model
    norms = {}
    for name, loss in zip(("gradient_task", "gradient_regularizer", "gradient_second"), found):
        norms[name] = query_key_gradient(model, loss).norm().item()
    return norms


def _read(run: Run, progress: Progress, unread: list[Tensor], *, ranks: Ranks, folder: Path) -> None:
    """Moves the losses of the last steps from the device to `progress`, as means over processes.

    `unread` holds the losses and the norm of the gradient of each step; `TrainingError` at the first that is not finite.
    """
    if not unread:
        return
    values = ranks.mean(torch.stack(unread).cpu())
    for step, found in enumerate(values, start=progress.step - len(unread)):
        if not found.isfinite().all():
            names = ("cross entropy", *(part.name for part in _regularizers(run)), "gradient norm")
            told = ", ".join(f"{name} {value}" for name, value in zip(names, found.tolist(), strict=True))
            raise TrainingError(
                f"run {run.key}: the loss is not finite at epoch {progress.epoch}, step {step} ({told}; "
                f"the batch is that of seed {run.seed}); {checkpoint.what_is_kept(folder)}"
            )
    progress.losses += values[:, :-1].tolist()
    unread.clear()


def _update_ema(ema: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Moves the averaged parameters by 1 - decay towards the model's; buffers (running statistics) are taken as they are."""
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1.0 - decay)
        for mine, theirs in zip(ema.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


def _book(progress: Progress, weights: list[float]) -> None:
    """Records the means of the epoch's losses, and the weights that the regularisers had in it (0 without one)."""
    task, *regularizers = torch.tensor(progress.losses, dtype=torch.float64).mean(0).tolist()
    measured = {"loss": task}
    for names, mean, weight in zip(
        (("regularizer", "weight"), ("second", "second_weight")), regularizers or [0.0], weights or [0.0]
    ):
        measured |= dict(zip(names, (mean, weight), strict=True))
    progress.record("train", measured)


def evaluation(run: Run) -> dict[str, int]:
    """How the test set of a run is put before a model."""
    return {"batch_size": run.recipe.batch_size * 4, "image_size": run.data.image_size}
