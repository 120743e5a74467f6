"""Several labels an image: presence by hand, the metric against scikit-learn and torchmetrics, unknown labels, mixing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from sarlib import data
from sarlib.config import Augmentation, ConfigError, Task
from sarlib.data import shapes
from sarlib.data.images import Images
from sarlib.data.voc import CLASSES, Annotation
from sarlib.run import Run
from sarlib.tasks.multilabel import MultiLabel, PresenceBatches, binary_cross_entropy, mean_average_precision, presence
from sarlib.trainer.loop import evaluate, train
from sarlib.trainer.step import backward, untrained

CPU = torch.device("cpu")
FLIP_AND_MIX = Augmentation(flip=0.5, mixup=0.8)


@pytest.fixture
def run(smallest_run: Run) -> Run:
    return dataclasses.replace(smallest_run, task=Task(name="multilabel"), augmentation=FLIP_AND_MIX)


def annotated(*annotations: Annotation) -> Images:
    n = len(annotations)
    pixels = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    return Images(labels=torch.zeros(n).long(), classes=CLASSES, pixels=pixels, annotations=annotations, crop=None)


def test_an_image_has_every_class_of_its_objects() -> None:
    images = shapes.generate("object", 60, image_size=32)
    found = presence(images, torch.arange(10, 60))
    for row, kinds, label in zip(found, images.mask_labels[10:], images.labels[10:], strict=True):
        assert row.nonzero()[:, 0].tolist() == sorted({kind for kind in kinds.tolist() if kind >= 0})
        assert row[label] == 1
    assert (found.sum(1) > 1).any() and found.dtype == torch.float32


def test_a_class_with_difficult_objects_alone_is_unknown() -> None:
    cat, dog, person = (CLASSES.index(name) for name in ("cat", "dog", "person"))
    images = annotated(
        Annotation(size=(8, 8), labels=(cat, dog, cat), boxes=((0, 0, 1, 1),) * 3, difficult=(True, True, False)),
        Annotation(size=(8, 8)),
        Annotation(size=(8, 8), labels=(person,), boxes=((0, 0, 1, 1),), difficult=(False,)),
    )
    found = presence(images, torch.tensor([2, 0, 1]))
    assert found[0].nonzero()[:, 0].tolist() == [person]
    assert found[1][cat] == 1 and found[1][dog].isnan() and found[1].nansum() == 1
    assert found[2].tolist() == [0.0] * 20


def test_images_with_one_label_each_are_refused(run: Run) -> None:
    digits = dataclasses.replace(run, data=dataclasses.replace(run.data, name="digits"))
    images = data.load(digits.data, seed=0)
    with pytest.raises(ConfigError, match="one label each: choose a set with objects"):
        train(digits, images=images, device=CPU, folder=Path("nowhere"))


def scored(n: int = 200, classes: int = 7, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, classes, generator=g).round(decimals=1)  # with ties
    return scores, (torch.rand(n, classes, generator=g) < torch.linspace(0.05, 0.6, classes)).float()


def test_mean_average_precision_is_scikit_learns_macro() -> None:
    scores, targets = scored()
    expected = 100 * average_precision_score(targets.numpy(), scores.numpy(), average="macro")
    assert mean_average_precision(scores, targets) == pytest.approx(expected, abs=1e-9)


def test_mean_average_precision_is_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    scores, targets = scored()
    theirs = classification.MultilabelAveragePrecision(num_labels=7, average="macro")(scores, targets.long())
    assert mean_average_precision(scores, targets) == pytest.approx(100 * theirs.item(), abs=1e-3)


def test_mean_average_precision_by_hand() -> None:
    """Ranks 1 and 3 are right: (1/1 + 2/3) / 2. A class that no image shows counts for nothing, nor do unknown labels."""
    scores = torch.tensor([[0.9, 0.5], [0.8, 0.1], [0.7, 0.2], [0.1, 0.3]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert mean_average_precision(scores, targets) == pytest.approx(100 * (1 + 2 / 3) / 2)
    targets[1, 0] = torch.nan
    assert mean_average_precision(scores, targets) == pytest.approx(100)
    assert np.isnan(mean_average_precision(scores, torch.zeros(4, 2)))


def test_perfect_scores_are_100_and_unrelated_ones_the_prevalence() -> None:
    scores, targets = scored(4000)
    assert mean_average_precision(targets, targets) == pytest.approx(100)
    assert mean_average_precision(scores, targets) == pytest.approx(100 * targets.mean().item(), abs=2)


def test_unknown_labels_add_nothing_to_the_loss_and_its_gradient() -> None:
    logits, (_, targets) = torch.randn(4, 7, requires_grad=True), scored(4)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert torch.equal(binary_cross_entropy(logits, targets), expected)
    targets[0, :3] = torch.nan
    loss = binary_cross_entropy(logits, targets)
    assert torch.equal(loss[0, :3], torch.zeros(3)) and torch.equal(loss[1:], expected[1:])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all() and torch.equal(gradient[0, :3], torch.zeros(3))


@pytest.mark.parametrize("world", [1, 3])
def test_labels_are_mixed_as_the_images_are(run: Run, world: int) -> None:
    """The images' red is the label of the first class: whatever is mixed, red says what the target has to be."""
    images = shapes.generate("object", 12, image_size=32)
    shown = presence(images, torch.arange(12))
    pixels = (255 * shown[:, :1, None, None]).expand(12, 3, 32, 32).to(torch.uint8)
    images = dataclasses.replace(images, pixels=pixels)
    settings = {"augmentation": FLIP_AND_MIX, "batch_size": 12, "image_size": 32, "seed": 0, "device": "cpu"}
    ranks = [next(PresenceBatches(images, **settings, rank=r, world_size=world).epoch(0)) for r in range(world)]
    x, targets = (torch.cat(parts) for parts in zip(*ranks, strict=True))
    black, white = x[:, 0].amin(), x[:, 0].amax()
    assert ((targets > 0) & (targets < 1)).any(), "some were mixed"
    assert torch.allclose((x[:, 0].mean((1, 2)) - black) / (white - black), targets[:, 0] / targets[:, 0].max(), atol=1e-5)
    assert torch.allclose(targets.sum(0), shown.sum(0), atol=1e-5), "partners exchange what each of them loses"


def test_micro_batches_have_the_gradient_of_the_whole(run: Run) -> None:
    task = untrained(run, classes=10, device=CPU).eval()
    targets = (torch.rand(8, 10) < 0.3).float()
    targets[:3, 4:] = torch.nan
    pixels, gradients = torch.randn(8, 3, 32, 32), []
    for parts in (1, 4):
        task.zero_grad()
        losses = backward(task, (pixels, targets), weights=[0.1], micro_batches=parts)
        gradients.append(torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None]))
        assert losses.shape == (2,)
    assert torch.allclose(*gradients, atol=1e-6)


def test_it_is_trained_and_measured_through_the_loop(tmp_path: Path, run: Run) -> None:
    images = data.load(run.data, seed=0)
    trained = train(run, images=images, device=CPU, folder=tmp_path)
    last = {row["metric"]: row["value"] for row in trained.history if row["split"] == "test" and row["epoch"] == 3}
    assert last.keys() == {"mlmap", "loss", "entropy", "components", "jaccard"}
    assert last == evaluate(trained.task, images[1], run=run, device=CPU)
    with torch.no_grad():
        logits = trained.task.eval().model(torch.cat([x for x, _ in _shown(images[1])]))
    targets = presence(images[1], torch.arange(len(images[1])))
    assert last["mlmap"] == pytest.approx(mean_average_precision(logits, targets), abs=1e-4)
    expected = F.binary_cross_entropy_with_logits(logits, targets).item()
    assert last["loss"] == pytest.approx(expected, abs=1e-5)
    assert isinstance(trained.task, MultiLabel) and set(trained.task.kept()) == set(trained.task.model.state_dict())


def _shown(images: Images) -> object:
    return data.loader.evaluation_batches(images, batch_size=7, image_size=32, device="cpu")


@pytest.mark.parametrize("what", [{"cutmix": 1.0}, {"label_smoothing": 0.1}])
def test_what_the_labels_cannot_follow_is_refused(run: Run, what: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"^the targets of multilabel cannot follow {next(iter(what))}, got .*: leave it out"):
        dataclasses.replace(run, augmentation=Augmentation(**what))
