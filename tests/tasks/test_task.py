"""A task with all that detection or self-supervision will need goes through the loop as it is: a head and a teacher beside the
network, batches and parameter groups of its own, a schedule that survives a kill, and a metric that is no mean over images."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sarlib import data, tasks
from sarlib.config import Regularizer
from sarlib.data.images import Images
from sarlib.run import Run
from sarlib.tasks.task import Task
from sarlib.trainer.checkpoint import load
from sarlib.trainer.distributed import Ranks
from sarlib.trainer.loop import Trained, evaluate, train
from sarlib.trainer.step import build_optimizer, set_learning_rate, untrained
from sarlib.trainer.throughput import flops_per_image

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for a kill."""


class Views:
    """Batches of two views of each image, and no labels."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.source, self.steps_per_epoch = batches, "views", batches.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, _ in self.batches.epoch(epoch, start):
            yield images, images.flip(-1)


class Distillation(Task):
    """The student's view is to agree with what a slowly moving teacher makes of the mirrored one."""

    own_loss = "agreement"

    def __init__(self, model: nn.Module, regularizers: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(model, regularizers)
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.projector = nn.Linear(model.num_classes, 3)
        self.register_buffer("momentum", torch.tensor(0.5))
        self.seen: list[float] = []

    def batches(self, images: Images, run: Run, **placement: Any) -> Views:
        return Views(super().batches(images, run, **placement))

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, Tensor]:
        return torch.rand(2, images, 3, image_size, image_size).unbind()

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        *network, _ = super().param_groups(weight_decay)
        return [*network, {"params": list(self.projector.parameters()), "weight_decay": 0.0, "lr_scale": 0.1}]

    def forward(self, images: Tensor, mirrored: Tensor) -> Tensor:
        output = self.output(images)
        with torch.no_grad():
            target = self.projector(self.teacher(mirrored))
        return self.with_regularizers(F.mse_loss(self.projector(output.logits), target + self.momentum), output)

    def after_step(self, progress: float) -> None:
        self.seen.append(progress)
        self.momentum.fill_(1 - 0.5 * (1 - progress))
        with torch.no_grad():
            for mine, student in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(student, 1 - self.momentum.item())

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        return {"features": self.teacher(pixels), "labels": images.labels[indices]}

    def summarize(self, measured: dict[str, Tensor]) -> dict[str, float]:
        """Share of images, in %, whose nearest other image has the same label."""
        distances = torch.cdist(measured["features"], measured["features"]).fill_diagonal_(torch.inf)
        nearest = measured["labels"][distances.argmin(1)]
        return {"top1": 100.0 * (nearest == measured["labels"]).double().mean().item(), "images": float(len(nearest))}

    def kept(self) -> dict[str, Tensor]:
        return self.teacher.state_dict()


@pytest.fixture(autouse=True)
def distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "create", Distillation.of)


@pytest.fixture
def run(with_recipe: Callable[..., Run]) -> Run:
    return with_recipe(ema=0.9, clip=None)


def fit(run: Run, folder: Path, *, kill_after: int | None = None) -> Trained:
    steps = itertools.count()  # the first call comes before any step

    def on_step(images: int) -> None:
        if next(steps) == kill_after:
            raise Killed

    images = data.load(run.data, seed=run.seed, root=None)
    return train(run, images=images, device=CPU, folder=folder, on_step=on_step, checkpoint_seconds=0.0)


def test_it_is_trained_measured_and_kept(tmp_path: Path, run: Run) -> None:
    trained = fit(run, tmp_path)
    start = untrained(run, classes=10, device=CPU)
    assert trained.source == "views"
    assert trained.task.seen == pytest.approx([step / 9 for step in range(1, 10)]), "the share of the training that is done"
    for before, student, teacher in zip(
        start.model.parameters(), trained.task.model.parameters(), trained.task.kept().values()
    ):
        assert not torch.equal(student, teacher) and not torch.equal(before, teacher), "it follows, and lags behind"
    measured = {row["metric"]: row["value"] for row in trained.history if row["split"] == "test" and row["epoch"] == 3}
    assert measured.keys() == {"top1", "images"} and measured["images"] == 20
    assert {row["metric"] for row in trained.history if row["split"] == "train"} >= {"loss", "regularizer", "weight"}
    assert trained.ema is not None and evaluate(trained.ema, data.load(run.data, seed=0, root=None)[1], run=run, device=CPU)


@pytest.mark.parametrize("kill_after", [1, 5])
def test_what_moves_after_a_step_survives_a_kill(tmp_path: Path, run: Run, kill_after: int) -> None:
    whole = fit(run, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(run, tmp_path / "killed", kill_after=kill_after)
    resumed = fit(run, tmp_path / "killed")
    for one, other in ((whole.task, resumed.task), (whole.ema, resumed.ema)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert whole.history == resumed.history


def test_a_group_keeps_its_share_of_the_learning_rate(tmp_path: Path, run: Run) -> None:
    task = untrained(run, classes=10, device=CPU)
    optimizer = build_optimizer(task, run.recipe)
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25, 0.025], "of the schedule's rate, not the last one"
    with pytest.raises(Killed):
        fit(run, tmp_path, kill_after=5)
    network, _, projector = load(tmp_path, key=run.key, device=CPU)["optimizer"]["param_groups"]
    assert projector["lr"] == pytest.approx(0.1 * network["lr"]) and projector["lr"] > 0


def test_parameters_outside_the_network_are_decayed_but_not_the_frozen_ones(run: Run) -> None:
    """Of the groups that a task has by default, the last."""
    drloc = dataclasses.replace(run, regularizers=(Regularizer(name="drloc", weight=0.5, hidden=8),))
    task = Distillation.of(drloc, 10)
    undecayed, decayed, others = Task.param_groups(task, 0.05)
    assert {id(each) for each in others["params"]} == {
        id(each) for part in (task.projector, task.regularizers) for each in part.parameters()
    }
    assert (undecayed["weight_decay"], decayed["weight_decay"], others["weight_decay"]) == (0.0, 0.05, 0.05)


@pytest.mark.parametrize("n", [19, 1])
def test_processes_share_what_is_no_mean(run: Run, n: int) -> None:
    """Two processes played one after the other: what each measures, joined in the order of ranks, is summarised once. Of a
    single image one of them has nothing to measure."""
    task, (_, test) = untrained(run, classes=10, device=CPU), data.load(run.data, seed=0, root=None)
    measured: list[dict[str, Tensor]] = []

    class Played(Ranks):
        def gather(self, value: Any) -> list[Any]:
            measured.append(value)
            if self.first:
                raise Killed
            return measured

    with pytest.raises(Killed):
        evaluate(task, test.subset(range(n)), run=run, device=CPU, ranks=Played(rank=0, size=2))
    shared = evaluate(task, test.subset(range(n)), run=run, device=CPU, ranks=Played(rank=1, size=2))
    assert shared == evaluate(task, test.subset(range(n)), run=run, device=CPU) and shared["images"] == n


def test_operations_are_those_of_the_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the student's network the teacher's forward pass and a projector of 10 x 3; counting draws no random numbers."""
    torch.manual_seed(3)
    distilled, drawn = flops_per_image(run, classes=10), torch.rand(1)
    with FlopCounterMode(display=False) as teacher:
        untrained(run, classes=10, device=CPU).teacher(torch.zeros(1, 3, 32, 32))
    monkeypatch.undo()
    projections = 2 * 10 * 3 * (1 + 2 + 1)  # the student's forward and backward, the teacher's forward
    assert distilled == flops_per_image(run, classes=10) + teacher.get_total_flops() + projections
    torch.manual_seed(3)
    assert drawn == torch.rand(1)
