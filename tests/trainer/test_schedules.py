"""Learning rate and loss weight at the points that their definitions fix, and against torch's own schedulers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sarlib.config import Recipe, Regularizer
from sarlib.trainer.schedules import learning_rate, loss_weight

RECIPE = Recipe(epochs=10, batch_size=8, lr=1.0, warmup_epochs=2, warmup_lr=0.1, min_lr=0.01)
RELEASED = Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=10)


def test_learning_rate_follows_torch() -> None:
    """Linear warm-up then cosine, as torch.optim.lr_scheduler composes them."""
    steps_per_epoch, warmup, total = 7, 14, 70
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RECIPE.lr)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=warmup)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=RECIPE.min_lr)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warmup])
    for step in range(total):
        assert learning_rate(RECIPE, step=step, steps_per_epoch=steps_per_epoch) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_weight_of_the_released_code() -> None:
    weights = [loss_weight(RELEASED, epoch=epoch, epochs=100) for epoch in range(101)]
    assert weights[0] == 0
    assert weights[5] == pytest.approx(0.01 * 5 / 9)
    assert weights[9] == weights[10] == max(weights) == 0.01
    assert weights[55] == pytest.approx(0.005)
    assert weights[100] == pytest.approx(0, abs=1e-12)
    assert all(earlier > later for earlier, later in zip(weights[10:], weights[11:], strict=False))


def test_weight_that_falls_in_a_straight_line_as_drlocs() -> None:
    """0.5 over 20 epochs, then down to 0 at the 300th. Liu et al. published the log of such a training: 0.025, 0.5,
    0.4321, 0.3571."""
    drloc = Regularizer(name="drloc", weight=0.5, schedule="warmup-linear", warmup_epochs=20)
    by_hand = {0: 0, 1: 0.025, 10: 0.25, 20: 0.5, 58: 0.5 * 242 / 280, 100: 0.5 * 200 / 280, 160: 0.25, 299: 0.5 / 280, 300: 0}
    assert {epoch: loss_weight(drloc, epoch=epoch, epochs=300) for epoch in by_hand} == pytest.approx(by_hand)
    assert [round(by_hand[epoch], 4) for epoch in (1, 20, 58, 100)] == [0.025, 0.5, 0.4321, 0.3571]


@pytest.mark.parametrize("schedule", ["warmup-cosine", "warmup-linear"])
def test_weight_without_warmup_starts_at_its_peak_and_never_turns_negative(schedule: str) -> None:
    regularizer = Regularizer(name="drloc", weight=0.5, schedule=schedule)
    assert [loss_weight(regularizer, epoch=epoch, epochs=4) for epoch in (0, 2, 4, 5)] == pytest.approx([0.5, 0.25, 0, 0])


def test_constant_weight_is_the_papers_text() -> None:
    constant = Regularizer(name="spatial_entropy", weight=0.01)
    assert {loss_weight(constant, epoch=epoch, epochs=100) for epoch in range(100)} == {0.01}


def test_the_released_weight_is_numpys_line_and_half_cosine() -> None:
    """The authors' schedule, by numpy: evenly spaced values up to the weight itself, then half a cosine down to 0."""
    cosine = 0.005 * (1 + np.cos(np.pi * np.arange(90) / 90))
    released = np.concatenate([np.linspace(0, 0.01, 10), cosine])
    found = [loss_weight(RELEASED, epoch=epoch, epochs=100) for epoch in range(100)]
    np.testing.assert_allclose(found, released, rtol=1e-12, atol=1e-18)


def test_a_warmup_of_parts_of_epochs_never_exceeds_the_weight() -> None:
    for warmup in (0.5, 1.0, 1.2, 2.5):
        part = Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=warmup)
        assert max(loss_weight(part, epoch=epoch, epochs=10) for epoch in range(11)) <= 0.01
