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
    """Weight lambda of the regulariser during epoch `epoch` (from 0) of `epochs`.

    `constant` is the paper's text (section 4.1). `warmup-cosine` is its released code, stepped once an epoch: linear from 0 over
    `warmup_epochs`, then half a cosine that ends at 0.
    """
    if regularizer.schedule == "constant":
        return regularizer.weight
    if epoch < regularizer.warmup_epochs:
        return regularizer.weight * epoch / regularizer.warmup_epochs
    remaining = max(1.0, epochs - regularizer.warmup_epochs)
    return regularizer.weight * _half_cosine((epoch - regularizer.warmup_epochs) / remaining)


def _half_cosine(fraction: float) -> float:
    """1 at `fraction` 0, 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
