"""Detection: torchvision's own frame finds the same boxes, the truth scores a hundred, eight images are learned by heart."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from sarlib import data, tasks
from sarlib.config import Augmentation, ConfigError, Data, Model, Recipe, Task
from sarlib.data import shapes
from sarlib.run import Run
from sarlib.tasks import average_precision
from sarlib.tasks.detection import Detection
from sarlib.trainer.loop import train
from sarlib.trainer.step import backward, build_optimizer, clip, gradient_norms, set_learning_rate

CPU = torch.device("cpu")
RUN = Run(
    data=Data(name="shapes-painting", image_size=32, train_size=16, test_size=8),
    model=Model(patch_size=8, dim=24, depth=2, heads=2),
    recipe=Recipe(epochs=2, batch_size=8, lr=1e-3, clip=1.0),
    augmentation=Augmentation(flip=0.5),
    task=Task(
        name="detection",
        channels=16,
        anchors=(4, 8, 16, 24),
        proposals=40,
        regions=16,
        region_size=3,
        convolutions=1,
        hidden=(24, 16),
    ),
)


def detection(run: Run = RUN, classes: int = 10) -> Detection:
    torch.manual_seed(0)
    return tasks.create(run, classes)


def batch(run: Run = RUN, images: int = 8) -> tuple[Tensor, ...]:
    task, chosen = detection(run), shapes.generate("painting", images, image_size=run.data.image_size)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, batch_size=images))
    return next(task.batches(chosen, run, device=CPU).epoch(0))


class Features(nn.Module):
    """The backbone as torchvision's frame wants it: the levels that proposals are made of."""

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.model, self.out_channels = model, channels

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {name: level for name, level in self.model(pixels).items() if name != "p6"}


@torch.no_grad()
def test_torchvisions_frame_finds_the_same_boxes() -> None:
    """With a transform that neither normalises nor resizes, which is what calling the two stages alone amounts to."""
    task = detection().eval()
    task.roi_heads.score_thresh = 0.0
    frame = FasterRCNN(
        Features(task.model, 16),
        num_classes=11,
        min_size=32,
        max_size=32,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        size_divisible=1,
    )
    frame.rpn, frame.roi_heads = task.rpn, task.roi_heads
    pixels = torch.randn(3, 3, 32, 32)
    found, _ = task._stages(task.levels(pixels), pixels)
    expected = frame.eval()(list(pixels))
    assert all(len(one["boxes"]) > 0 for one in found)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("boxes", "scores", "labels"))


def test_the_loss_is_the_sum_of_torchvisions_four() -> None:
    task, (pixels, boxes, labels) = detection(), batch()
    torch.manual_seed(1)
    _ = [torch.empty(1).uniform_() for _ in pixels]  # the frame draws each image's size, of which there is one
    (loss,) = task(pixels, boxes, labels)
    targets = [{"boxes": b[k >= 0], "labels": k[k >= 0] + 1} for b, k in zip(boxes, labels)]
    frame = FasterRCNN(
        Features(task.model, 16),
        num_classes=11,
        min_size=32,
        max_size=32,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        size_divisible=1,
    )
    frame.rpn, frame.roi_heads = task.rpn, task.roi_heads
    torch.manual_seed(1)
    losses = frame.train()(list(pixels), targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert torch.allclose(loss, sum(losses.values()))


def test_images_without_objects_give_a_loss_and_a_gradient_everywhere() -> None:
    task, (pixels, boxes, labels) = detection(), batch(images=4)
    losses = backward(task, (pixels, boxes, torch.full_like(labels, -1)), weights=(), micro_batches=2)
    assert losses.shape == (1,) and losses.isfinite().all()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []
    assert set(gradient_norms(task, task(pixels, boxes, labels))) == {"gradient_task"}


@pytest.mark.parametrize("perfect", [True, False])
def test_the_truth_scores_a_hundred(perfect: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the task's own tensors: labels start at 1 in torchvision and at 0 in the metric."""
    task, images = detection(), shapes.generate("painting", 12, image_size=32)
    truth = [images.objects(index) for index in range(12)]
    said = [
        {"boxes": one.boxes, "scores": torch.ones(len(one.boxes)), "labels": one.labels + (1 if perfect else 2)}
        for one in truth
    ]
    monkeypatch.setattr(task, "_stages", lambda levels, pixels: ([said.pop(0) for _ in pixels], {}))
    measured = task.measure(images, batch_size=5, image_size=32, device=CPU)
    assert measured["detections"].shape == measured["objects"].shape == (12, 100, 6)
    found = task.summarize(measured)
    assert found["map07"] == found["map50"] == (100 if perfect else 0)
    assert set(found) == {"map07", "map50"} | ({"map"} if average_precision.has_coco() else set())


def test_eight_images_are_learned_by_heart() -> None:
    heads = {"channels": 32, "layer_decay": 1.0, "anchors": (8, 16, 24, 36), "regions": 64, "region_size": 4, "convolutions": 0}
    run = dataclasses.replace(
        RUN,
        data=dataclasses.replace(RUN.data, image_size=48),
        task=dataclasses.replace(RUN.task, **heads, hidden=(64,)),
        augmentation=Augmentation(),
    )
    task, images = detection(run), shapes.generate("object", 8, image_size=48)
    optimizer, (example,) = build_optimizer(task, run.recipe), list(task.batches(images, run, device=CPU).epoch(0))
    for step in range(110):
        set_learning_rate(optimizer, 4e-3 * min(1, (step + 1) / 20))
        optimizer.zero_grad()
        torch.manual_seed(step)
        backward(task, example, weights=())
        clip(task, 1.0)
        optimizer.step()
    assert task.evaluate(images, batch_size=8, image_size=48, device=CPU)["map50"] > 90


def test_a_training_that_was_stopped_ends_where_it_would_have(tmp_path: Path) -> None:
    class Killed(BaseException): ...

    def fit(folder: Path, kill_after: int | None = None) -> dict[str, Tensor]:
        done = []

        def on_step(images: int) -> None:
            done.append(images)
            if len(done) - 1 == kill_after:
                raise Killed

        images = data.load(RUN.data, seed=0)
        settings = {"checkpoint_seconds": 0.0, "on_step": on_step, "micro_batches": 2}
        return train(RUN, images=images, device=CPU, folder=folder, **settings).task.kept()

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", kill_after=3)
    resumed = fit(tmp_path / "killed")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert {name.split(".")[0] for name in whole} == {"model", "rpn", "roi_heads"}


def test_without_the_extra_the_training_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(average_precision, "find_spec", lambda name: None)
    batch()
    assert "pip install 'sarlib[detection]'" in capsys.readouterr().err


def test_a_classification_run_imports_nothing_of_detection() -> None:
    code = (
        "import sys; from sarlib import tasks; from sarlib.run import Run; from sarlib.config import *;"
        "run = Run(data=Data(name='digits', image_size=32), model=Model(patch_size=8, dim=16, depth=2, heads=2),"
        "recipe=Recipe(epochs=1, batch_size=4, lr=1e-3)); tasks.create(run, 10);"
        "import sarlib.trainer.loop, sarlib.measures.dense, sarlib.measures.maps;"
        "parts = ('sarlib.tasks.detection', 'sarlib.tasks.average_precision', 'sarlib.models.vitdet');"
        "print([name for name in (*parts, 'torchmetrics', 'faster_coco_eval') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_declaration_survives_json_and_its_sizes_are_in_its_key() -> None:
    assert Run.from_dict(json.loads(json.dumps(RUN.to_dict()))) == RUN
    other = dataclasses.replace(RUN, task=dataclasses.replace(RUN.task, anchors=(4, 8, 16, 32)))
    assert other.key != RUN.key


@pytest.mark.parametrize(
    ("task", "augmentation", "message"),
    [
        ({}, {"mixup": 0.2}, "the targets of detection cannot follow mixup, got 0.2: leave it out"),
        ({}, {"rand_augment": "rand-m9"}, "the targets of detection cannot follow rand_augment"),
        ({}, {"label_smoothing": 0.1}, "the targets of detection cannot follow label_smoothing"),
        ({"anchors": ()}, {}, "anchors are a size for each of 1 to 5 levels"),
        ({"anchors": (1,) * 6}, {}, "anchors are a size for each of 1 to 5 levels"),
        ({"hidden": ()}, {}, "hidden layers one or more"),
        ({"regions": 0}, {}, "regions must be 1 or more, got 0"),
    ],
)
def test_declarations_are_checked(task: dict, augmentation: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(
            RUN,
            task=dataclasses.replace(RUN.task, **task),
            augmentation=dataclasses.replace(RUN.augmentation, **augmentation),
        )
