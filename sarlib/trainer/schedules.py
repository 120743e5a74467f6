"""Learning rate and loss weight as pure functions of time, so that a resumed run cannot tell that it was interrupted."""

from __future__ import annotations

import math

from sarlib.config import Recipe, Regularizer


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """Learning rate of optimizer step `step` (from 0): linear from `warmup_lr` to `lr`, then half a cosine to `min_lr`."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    if step < warmup:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warmup
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * _half_cosine((step - warmup) / max(1.0, total - warmup))


def loss_weight(regularizer: Regularizer, *, epoch: int, epochs: int) -> float:
    """Weight lambda of the regularizer during epoch `epoch` (from 0) of `epochs`.

    The schedules are those of `config.Regularizer`, stepped once an epoch. `warmup-linear`, DRLoc's in the released code of Liu
    et al. 2021, reaches the weight an epoch later than `warmup-cosine`, as their published log shows (and is laid out there for
    300 epochs even where they stop after 100).
    """
    if regularizer.schedule == "constant":
        return regularizer.weight
    if epoch < regularizer.warmup_epochs:
        last = regularizer.warmup_epochs - (1 if regularizer.schedule == "warmup-cosine" else 0)
        return regularizer.weight * (min(1.0, epoch / last) if last > 0 else 0.0)
    done = min(1.0, (epoch - regularizer.warmup_epochs) / max(1.0, epochs - regularizer.warmup_epochs))
    return regularizer.weight * (1.0 - done if regularizer.schedule == "warmup-linear" else _half_cosine(done))


def _half_cosine(fraction: float) -> float:
    """1 at `fraction` 0, 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))


def evaluation_epochs(recipe: Recipe) -> set[int]:
    """After how many epochs the test set is evaluated: `recipe.evaluations` times, evenly spaced, the last time at the end."""
    return {round(recipe.epochs * i / recipe.evaluations) for i in range(1, recipe.evaluations + 1)}
