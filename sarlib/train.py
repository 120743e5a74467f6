"""The training loop: one run from its declaration to trained weights, exactly resumable.

Order of things: 1 images, 2 model and optimizer from the seed, 3 what a checkpoint holds replaces both, 4 epochs of steps, 5 evaluation.
Every random number is drawn from a stream named by (seed, epoch, step), never from a state that lives between steps: a run that was
interrupted continues with the very numbers it would have had, and needs no random state in its checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from sarlib import checkpoint, last_block, models
from sarlib.config import Recipe, Run, TrainingError
from sarlib.data import Images
from sarlib.data.batches import TrainBatches
from sarlib.entropy import spatial_entropy
from sarlib.evaluate import evaluate
from sarlib.schedules import learning_rate, loss_weight


@dataclass
class Progress:
    """Where a training is: everything a checkpoint holds beside the tensors. `history` has one row a measurement:
    epoch, split (train or test), metric, value."""

    epoch: int = 0
    step: int = 0  # steps done within `epoch`
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)  # (task, regulariser) of the steps done within `epoch`
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self, split: str, measured: dict[str, float]) -> None:
        self.history += [{"epoch": self.epoch, "split": split, "metric": name, "value": value} for name, value in measured.items()]


@dataclass(frozen=True)
class Trained:
    """What a training leaves: the raw weights, their moving average if the recipe keeps one, the history, and the seconds that training and
    evaluating took."""

    model: nn.Module
    average: nn.Module | None
    history: list[dict[str, Any]]
    seconds: float


def train(
    run: Run,
    *,
    images: tuple[Images, Images],
    device: torch.device,
    folder: Path,
    on_step: Callable[[int], None] = lambda images: None,
    checkpoint_seconds: float = 10.0,
) -> Trained:
    """Train `run` on `images` (train, test), resuming from the checkpoint in `folder` if there is one.

    `on_step` is called after every step with the number of images that it covered (and once at a resume, with those already done).
    A checkpoint is written at the first step after every `checkpoint_seconds`. `TrainingError` if a loss is not finite.
    """
    training, test = images
    recipe = run.recipe
    model, optimizer = _build(run, classes=len(training.classes), device=device)
    average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
    batches = TrainBatches(
        training,
        augmentation=run.augmentation,
        batch_size=recipe.batch_size,
        image_size=run.data.image_size,
        seed=run.seed,
        device=device,
    )
    progress = _resume(run, folder=folder, device=device, model=model, optimizer=optimizer, average=average)
    on_step((progress.epoch * batches.steps_per_epoch + progress.step) * recipe.batch_size)

    clock = saved = time.monotonic()
    while progress.epoch < recipe.epochs:
        model.train()
        weight = loss_weight(run.regularizer, epoch=progress.epoch, epochs=recipe.epochs)
        for pixels, targets in batches.epoch(progress.epoch, start=progress.step):
            torch.manual_seed(stream(run.seed, "model", progress.epoch, progress.step))
            step = progress.epoch * batches.steps_per_epoch + progress.step
            _set_learning_rate(optimizer, learning_rate(recipe, step=step, steps_per_epoch=batches.steps_per_epoch))
            task, regularizer = _losses(run, model, pixels, targets)
            if progress.step == 0:
                progress.record("train", _gradient_norms(model, task, regularizer))
            optimizer.zero_grad(set_to_none=True)
            (task + weight * regularizer).backward()
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            if average is not None:
                _update_average(average, model, decay=recipe.ema)

            progress.losses.append(_finite(run, progress, task, regularizer))
            progress.step += 1
            on_step(len(pixels))
            if time.monotonic() - saved > checkpoint_seconds:
                progress.seconds, clock = progress.seconds + time.monotonic() - clock, time.monotonic()
                _save(run, folder=folder, model=model, optimizer=optimizer, average=average, progress=progress)
                saved = time.monotonic()
        _close_epoch(run, progress, model=model, test=test, device=device, weight=weight)
    progress.seconds += time.monotonic() - clock
    return Trained(model=model, average=average, history=progress.history, seconds=progress.seconds)


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the random numbers called `names` of the run with `seed`; different names give unrelated streams."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _build(run: Run, *, classes: int, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer from the seed. Rows that share a seed share the initial weights of all parameters that they share."""
    torch.manual_seed(stream(run.seed, "initialisation"))
    model = models.create(run.model, classes=classes, image_size=run.data.image_size).to(device)
    groups = param_groups_weight_decay(model, run.recipe.weight_decay, no_weight_decay_list=model.no_weight_decay())
    return model, torch.optim.AdamW(groups, lr=run.recipe.lr, betas=run.recipe.betas, fused=True)


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _losses(run: Run, model: nn.Module, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy with soft targets, and the unweighted regulariser (0 where the run has none). Two scalars, float32."""
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=pixels.device.type == "cuda"):
        output = last_block.forward(model, pixels)
    task = F.cross_entropy(output.logits.float(), targets)
    return task, spatial_entropy(output.similarity) if run.regularizer.name == "spatial_entropy" else task.new_zeros(())


def _gradient_norms(model: nn.Module, task: Tensor, regularizer: Tensor) -> dict[str, float]:
    """Norms of both losses' gradients on the last block's query and key rows: where the two meet. The regulariser's is unweighted."""
    weight = model.blocks[-1].attn.qkv.weight
    query_and_key = slice(0, 2 * weight.shape[1])
    norms = {}
    for name, loss in (("gradient_task", task), ("gradient_regularizer", regularizer)):
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
            norms[name] = gradient[query_and_key].norm().item()
    return norms


def _finite(run: Run, progress: Progress, task: Tensor, regularizer: Tensor) -> list[float]:
    """Both losses as numbers, or `TrainingError` at the first step that has none."""
    values = torch.stack([task.detach(), regularizer.detach()]).tolist()
    if not all(map(torch.isfinite, torch.tensor(values))):
        raise TrainingError(
            f"run {run.key}: the loss is not finite at epoch {progress.epoch}, step {progress.step} "
            f"(cross entropy {values[0]}, {run.regularizer.name} {values[1]}); the last checkpoint before it is kept"
        )
    return values


def _update_average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)


def _close_epoch(run: Run, progress: Progress, *, model: nn.Module, test: Images, device: torch.device, weight: float) -> None:
    """Book the epoch's means, evaluate where the recipe says so, and step to the next epoch."""
    task, regularizer = torch.tensor(progress.losses, dtype=torch.float64).mean(0).tolist()
    progress.record("train", {"loss": task, "regularizer": regularizer, "weight": weight})
    progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
    if progress.epoch in evaluation_epochs(run.recipe):
        size = run.data.image_size
        progress.record("test", evaluate(model, test, batch_size=run.recipe.batch_size * 4, image_size=size, device=device))


def evaluation_epochs(recipe: Recipe) -> set[int]:
    """After how many epochs the test set is evaluated: `recipe.evaluations` times, evenly spaced, the last time at the end."""
    return {round(recipe.epochs * i / recipe.evaluations) for i in range(1, recipe.evaluations + 1)}


def _save(
    run: Run, *, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None, progress: Progress
) -> None:
    checkpoint.save(
        folder,
        {
            "key": run.key,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "progress": vars(progress),
        },
    )


def _resume(
    run: Run, *, folder: Path, device: torch.device, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> Progress:
    """Put what a checkpoint holds in place of the fresh state; a fresh `Progress` if there is none."""
    state = checkpoint.load(folder, key=run.key, device=device)
    if state is None:
        return Progress()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average is not None:
        average.load_state_dict(state["average"])
    return Progress(**state["progress"])
