"""What DINO and MoCo-v3 share: a teacher that only follows, resumable to the bit, and a collapse that is named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from self_supervised import DINO, MOCO, with_views
from torch import Tensor

from sarlib import data, last_block
from sarlib.config import Augmentation, ConfigError, Published, Recipe, SelfSupervision, Task, TrainingError
from sarlib.data.views import ViewBatches
from sarlib.models.pretrained import origin, start_from
from sarlib.run import Run
from sarlib.tasks import self_supervision
from sarlib.trainer.loop import Trained, evaluate, train
from sarlib.trainer.step import untrained
from sarlib.trainer.throughput import flops_per_image

CPU = torch.device("cpu")
EACH = pytest.mark.parametrize("run", [DINO, MOCO], ids=["dino", "moco"])


class Killed(BaseException):
    """Stands for a kill."""


def fit(run: Run, folder: Path, *, kill_after: int | None = None, micro_batches: int = 1) -> Trained:
    steps = itertools.count()  # the first call comes before any step

    def on_step(images: int) -> None:
        if next(steps) == kill_after:
            raise Killed

    images = data.load(run.data, seed=run.seed, root=None)
    settings = {"checkpoint_seconds": 0.0, "on_step": on_step, "micro_batches": micro_batches}
    return train(run, images=images, device=CPU, folder=folder, **settings)


def parts(task: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The student's parameters, and the teacher's."""
    return [*task.model.parameters(), *task.head.parameters()], list(task.teacher.parameters())


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@EACH
def test_resumed_equals_uninterrupted(tmp_path: Path, run: Run) -> None:
    """Centre, temperature, teacher and all: killed within the first epoch and at an epoch's end."""
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=2, evaluations=1, ema=0.9))
    if run.task.name == "dino":
        run = with_views(run, teacher_temperatures=(0.04, 0.07), sharpening=0.5, frozen_epochs=1, final_weight_decay=0.4)
    whole = fit(run, tmp_path / "whole")
    for kill_after in (2, 3):
        with pytest.raises(Killed):
            fit(run, tmp_path / f"{kill_after}", kill_after=kill_after)
        resumed = fit(run, tmp_path / f"{kill_after}")
        for one, other in ((whole.task, resumed.task), (whole.ema, resumed.ema)):
            assert one.state_dict().keys() == other.state_dict().keys()
            assert equal([*one.state_dict().values()], [*other.state_dict().values()])
        assert whole.history == resumed.history


@EACH
@pytest.mark.parametrize("momentum", [1.0, 0.0])
def test_the_teacher_stands_still_or_is_the_student(tmp_path: Path, run: Run, momentum: float) -> None:
    """Killed after four of nine steps: at the end of a training the momentum is 1 in any case."""
    run = with_views(run, momentum=momentum)
    with pytest.raises(Killed):
        fit(run, tmp_path, kill_after=4)
    task, start = untrained(run, classes=10, device=CPU), untrained(run, classes=10, device=CPU)
    task.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["task"])
    (student, teacher), (before, _) = parts(task), parts(start)
    assert equal(*parts(start)) and not equal(student, before)
    if momentum == 1:
        assert equal(teacher, before)
    for _ in range(2 * (momentum == 0)):  # once the momentum is that of the start
        task.observe(*[torch.zeros(3, n) for n in ([16, 12] if run.task.name == "dino" else [16])])
        task.after_step(0.0)
        assert equal(*parts(task))


@EACH
def test_the_teacher_has_no_gradient_and_no_stochastic_depth(run: Run) -> None:
    task = untrained(run, classes=10, device=CPU).train()
    batch = task.example_batch(4, 32)
    task(*batch).sum().backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    trained = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
    without = [name for name in trained if task.get_parameter(name).grad is None]
    assert without == [] and not any(name.startswith("teacher") for name in trained)
    assert run.model.drop_path > 0 and equal([*task.teach(batch[0])], [*task.teach(batch[0])])
    assert torch.is_grad_enabled() and not task.teach(batch[0])[1].requires_grad


@EACH
def test_the_regularizer_sees_the_students_global_views_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = untrained(run, classes=10, device=CPU).eval()
    seen: list[Tensor] = []
    monkeypatch.setattr(
        task.regularizers[0], "forward", lambda output: seen.append(output.similarity) or output.similarity.sum()
    )
    views, *small = task.example_batch(3, 32)
    task(views, *small)
    (found,) = seen
    assert found.requires_grad
    torch.testing.assert_close(found, last_block.forward(task.model, views.flatten(0, 1)).similarity)


@EACH
def test_a_host_learns_and_keeps_a_network_without_classifier(tmp_path: Path, run: Run) -> None:
    moco = run.task.name == "moco"
    trained = fit(dataclasses.replace(run, recipe=Recipe(epochs=10 if moco else 2, batch_size=8, lr=3e-3)), tmp_path)
    losses = [row["value"] for row in trained.history if (row["split"], row["metric"]) == ("train", "loss")]
    assert not moco or losses[-1] < losses[0] - 0.1, "DINO's loss has another target every step"
    measured = {row["metric"] for row in trained.history if row["split"] == "test"}
    assert measured == {"entropy", "components", "jaccard"}
    kept, student = trained.task.kept(), trained.task.model.state_dict()
    own = trained.task.teacher[0].state_dict() if run.task.name == "dino" else student
    assert equal([*kept.values()], [*own.values()]) and "head.weight" not in kept
    assert not equal([*trained.task.teacher[0].state_dict().values()], [*student.values()])
    classifier = dataclasses.replace(run, task=Task(), recipe=run.recipe)
    network = untrained(classifier, classes=10, device=CPU).model
    assert start_from(network, kept, **origin(run)) == ("head.weight", "head.bias"), "and a classifier can start from it"


@EACH
def test_a_collapse_is_named(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without differences between images, and one that does not learn; neither before it had time to: enough steps,
    and more than twice the epochs of the warm-up."""
    monkeypatch.setattr(self_supervision, "PATIENCE", 6)  # of twelve steps
    plain = dataclasses.replace(run, regularizers=(), recipe=dataclasses.replace(run.recipe, epochs=4, evaluations=1))
    assert plain.recipe.warmup_epochs == 1
    task = untrained(plain, classes=10, device=CPU)
    task.spread.zero_()
    assert [bool(task.failure(0.0, *age)) for age in ((3, 5), (2, 6), (3, 6))] == [False, False, True]
    with monkeypatch.context() as patched:
        patched.setattr(ViewBatches, "_made", lambda self, pixels, *_: (torch.zeros(len(pixels), 2, 3, 32, 32),))
        blind = with_views(plain, local_crops=0)
        with pytest.raises(
            TrainingError, match=f"{blind.key} is given up at epoch 3: it has collapsed, all features are the same"
        ):
            fit(blind, tmp_path / "blind")
    monkeypatch.setattr(type(task), "chance", lambda self: 0.0)
    with pytest.raises(
        TrainingError, match="epoch 3: it has collapsed, the c.* is .*, and 0 that of a guess.*checkpoint is intact"
    ):
        fit(plain, tmp_path / "guessing")


def test_batches_are_the_tasks_and_the_operations_are_counted() -> None:
    for run in (DINO, MOCO):
        task = untrained(run, classes=10, device=CPU)
        images, test = data.load(run.data, seed=0)
        batch = next(task.batches(images, run, device=CPU).epoch(0))
        assert [part.shape for part in batch] == [part.shape for part in task.example_batch(8, 32)]
        assert flops_per_image(run, classes=10) > 0
        assert evaluate(task, test, run=run, device=CPU).keys() == {"entropy", "components", "jaccard"}


def test_what_cannot_be_learned_from_views_is_refused() -> None:
    views = DINO.task.self_supervision
    for message, change in {
        "leave the run's augmentation": lambda: dataclasses.replace(DINO, augmentation=Augmentation(flip=0.5)),
        "5 tokens a side is no part of 4": lambda: with_views(DINO, local_tokens=5),
        "momentum is between": lambda: dataclasses.replace(views, momentum=1.5),
        "temperatures must be positive, got .*0.0": lambda: dataclasses.replace(views, temperature=0.0),
        "range of shares": lambda: dataclasses.replace(views, local_scale=(0.5, 0.2)),
        "must be positive, got .0,": lambda: dataclasses.replace(views, out_dim=0),
        "other tasks have none: see classification": lambda: Task(self_supervision=views),
        "have a self_supervision.*see dino": lambda: Task(name="dino"),
        "there for vit": lambda: dataclasses.replace(
            DINO, model=dataclasses.replace(DINO.model, name="t2t", patch_size=8, mlp_ratio=2.0)
        ),
    }.items():
        with pytest.raises(ConfigError, match=message):
            change()


@EACH
def test_a_start_from_another_network_is_refused(run: Run) -> None:
    """The teacher would keep the random weights, and MoCo's fixed positions and projection would be overwritten."""
    checksum = "0123456789abcdef" * 4
    for parent in (dataclasses.replace(run, task=Task()), run, Published(name="timm/vit", sha256=checksum)):
        with pytest.raises(ConfigError, match=f"^{run.task.name} starts from random weights, its teacher too: leave"):
            dataclasses.replace(run, pretrained=parent)


def test_declarations_come_back_from_json_and_old_keys_stay() -> None:
    import json

    assert Run.from_dict(json.loads(json.dumps(DINO.to_dict()))) == DINO
    assert len({DINO.key, MOCO.key, with_views(DINO, momentum=0.8).key}) == 3
    assert Task() == Task(name="classification", self_supervision=None)
    plain = dataclasses.replace(DINO, task=Task())
    assert "task" not in plain.to_dict()
    with pytest.raises(TypeError):
        SelfSupervision(out_dim=3, hidden=3, temperature=0.1)
