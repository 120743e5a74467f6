"""DINO's loss and centre against lightly's and against a transcription; what its optimizer does when."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from self_supervised import DINO, with_views
from torch import Tensor

from sarlib.tasks import dino
from sarlib.trainer.step import backward, build_optimizer, clip, untrained

CPU = torch.device("cpu")


def transcribed(student: Tensor, teacher: Tensor, centre: Tensor, cold: float, warm: float) -> float:
    """Equation 1 and 3 of Caron et al., pair by pair: student (V, B, K), teacher (2, B, K)."""
    student, teacher, centre = (each.double().numpy() for each in (student, teacher, centre))

    def softmax(x: np.ndarray) -> np.ndarray:
        shares = np.exp(x - x.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    terms = []
    for i, taught in enumerate(teacher):
        for j, seen in enumerate(student):
            if i != j:
                terms.append(-(softmax((taught - centre) / cold) * np.log(softmax(seen / warm))).sum(-1).mean())
    return float(np.mean(terms))


def logits(seed: int, views: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, 6, 12, generator=generator), torch.randn(2, 6, 12, generator=generator)


def test_the_loss_is_the_papers() -> None:
    student, teacher = logits(0)
    centre = torch.linspace(-1, 1, 12)
    sharp = ((teacher - centre) / 0.04).transpose(0, 1)
    found = dino.cross_entropy(student.transpose(0, 1) / 0.1, sharp)
    assert found.item() == pytest.approx(transcribed(student, teacher, centre, 0.04, 0.1), rel=1e-5)
    flat = dino.cross_entropy(torch.zeros(6, 5, 12), torch.zeros(6, 2, 12))
    assert flat.item() == pytest.approx(math.log(12), rel=1e-6)


def test_loss_and_centre_are_lightlys_for_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's own forward pass, with the logits of student and teacher put in place of its networks' outputs."""
    loss = pytest.importorskip("lightly.loss")
    task = untrained(dataclasses.replace(DINO, regularizers=()), classes=10, device=CPU)
    theirs = loss.DINOLoss(output_dim=12, warmup_teacher_temp_epochs=0, student_temp=0.1, teacher_temp=0.04)
    views, small = task.example_batch(6, 32)
    small = small[:, :1].expand(-1, 3, -1, -1, -1)
    for step in range(3):
        student, teacher = logits(step)
        heads = iter([student[:2].transpose(0, 1).flatten(0, 1), student[2:].transpose(0, 1).flatten(0, 1)])
        monkeypatch.setattr(task.head, "forward", lambda features, heads=heads: next(heads))
        monkeypatch.setattr(task, "teach", lambda views, t=teacher: (torch.rand(12, 16), t.transpose(0, 1).flatten(0, 1)))
        ours = task(views, small)
        wanted = theirs([*teacher], [*student])
        assert ours.shape == (1,) and ours.item() == pytest.approx(wanted.item(), rel=1e-5)
        task.after_step((step + 1) / 9)
    torch.testing.assert_close(task.centre, theirs.center.flatten(), rtol=1e-5, atol=1e-6)


def test_the_centre_follows_the_teachers_mean_and_micro_batches_do_not_change_it() -> None:
    whole = untrained(DINO, classes=10, device=CPU).train()
    halves = copy.deepcopy(whole)
    means = []
    for step in range(3):
        torch.manual_seed(step)
        batch = whole.example_batch(4, 32)
        means.append(whole.teach(batch[0])[1].double().mean(0))
        for task, count in ((whole, 1), (halves, 2)):
            backward(task, batch, weights=[0.0], micro_batches=count)
            task.zero_grad()
            task.after_step(step / 9)
    expected = torch.zeros(12, dtype=torch.float64)
    for mean in means:
        expected = 0.9 * expected + 0.1 * mean
    assert expected.abs().max() > 0
    torch.testing.assert_close(whole.centre.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(halves.centre, whole.centre, rtol=1e-5, atol=1e-6)
    assert 0 < whole.spread < 1 and halves.spread.item() == pytest.approx(whole.spread.item(), rel=1e-4)


def test_teacher_temperature_rises_in_its_share_of_the_training() -> None:
    task = untrained(with_views(DINO, teacher_temperatures=(0.04, 0.07), sharpening=0.5), classes=10, device=CPU)
    found = [task.temperature.item()]
    for progress in (0.25, 0.5, 1.0):
        task.settle(torch.zeros(28), progress)
        found.append(task.temperature.item())
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_weight_decay_rises_and_the_last_layer_waits_an_epoch() -> None:
    """On everything but norms and biases; of three epochs the first is frozen."""
    run = with_views(DINO, final_weight_decay=0.4, frozen_epochs=1)
    task = untrained(run, classes=10, device=CPU).train()
    optimizer = build_optimizer(task, run.recipe)
    decayed, others = optimizer.param_groups
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert task.model.pos_embed in set(decayed["params"]) and task.head.last.parametrizations.weight.original1 in set(
        decayed["params"]
    )
    assert not any(parameter in set(decayed["params"]) for parameter in task.teacher.parameters())
    last, decays = task.head.last.parametrizations.weight.original1, []
    for progress, moves in ((0.0, False), (1 / 3 - 1e-9, False), (1 / 3, True), (0.5, True)):
        before, first = last.detach().clone(), task.head.perceptron[0].weight.detach().clone()
        optimizer.zero_grad(set_to_none=True)
        task(*task.example_batch(4, 32)).sum().backward()
        task.before_step(optimizer.param_groups, progress)
        optimizer.step()
        decays.append((decayed["weight_decay"], others["weight_decay"]))
        assert torch.equal(last, before) != moves and not torch.equal(task.head.perceptron[0].weight, first)
    assert [decays[0], decays[3]] == [(pytest.approx(0.05), 0.0), (pytest.approx(0.225), 0.0)]
    torch.testing.assert_close(task.head.last.weight.norm(dim=1), torch.ones(12))


def test_each_gradient_is_clipped_by_itself() -> None:
    task = untrained(DINO, classes=10, device=CPU)
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    for scale, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.1 * scale)
    before = [parameter.grad.norm() for parameter in parameters]
    total = clip(task, 3.0)
    assert total.item() == pytest.approx(torch.stack(before).norm().item(), rel=1e-5)
    for norm, parameter in zip(before, parameters, strict=True):
        assert parameter.grad.norm().item() == pytest.approx(min(3.0, norm.item()), rel=1e-4)


def test_a_head_is_copied_and_its_prototypes_are_unit_vectors() -> None:
    head = dino.Head(16, 8, 4, 12)
    x = torch.randn(3, 16)
    again = copy.deepcopy(head)
    assert torch.equal(head(x), again(x)) and head(x).abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.last.parametrizations.weight.original1.mul_(7)
    torch.testing.assert_close(head(x), again(x))
