"""Classes of pixels: the metric against scikit-learn, torchmetrics and by hand; targets that follow their images; void."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score
from torch import Tensor

from sarlib import data
from sarlib.config import Augmentation, ConfigError, Data, Task
from sarlib.data import shapes
from sarlib.data.images import Images
from sarlib.data.voc import VOID, Annotation
from sarlib.measures import take
from sarlib.measures.finished import Finished
from sarlib.run import Measurement, Run
from sarlib.tasks.segmentation import LabelMapBatches, Segmentation, SemanticFPN, confusion, label_map, scores
from sarlib.trainer.loop import evaluate, train
from sarlib.trainer.step import backward, untrained

CPU = torch.device("cpu")
CLASSES = 5


@pytest.fixture
def run(smallest_run: Run) -> Run:
    return dataclasses.replace(
        smallest_run,
        task=Task(name="segmentation", channels=8, layer_decay=1.0),
        augmentation=Augmentation(flip=0.5),
        regularizers=(),
    )


def predicted(*, seed: int = 0, void: float = 0.1, absent: int | None = None) -> tuple[Tensor, Tensor]:
    """Truth and prediction of three images, of `CLASSES` classes but the `absent` one."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.tensor([label for label in range(CLASSES) if label != absent])
    truth, found = classes[torch.randint(len(classes), (2, 3, 8, 8), generator=g)].to(torch.uint8)
    return truth.masked_fill(torch.rand(3, 8, 8, generator=g) < void, VOID), found


def measured(truth: Tensor, found: Tensor) -> dict[str, float]:
    return scores(torch.stack([confusion(*pair, classes=CLASSES) for pair in zip(truth, found, strict=True)]).sum(0))


@pytest.mark.parametrize("absent", [None, 3])
def test_counts_and_scores_are_scikit_learns(absent: int | None) -> None:
    truth, found = predicted(absent=absent)
    known = truth != VOID
    pair = truth[known].numpy(), found[known].numpy()
    counts = confusion(truth, found, classes=CLASSES)
    assert (counts.numpy() == confusion_matrix(*pair, labels=range(CLASSES))).all() and counts.sum() == known.sum()
    there = [label for label in range(CLASSES) if label != absent]
    found = measured(truth, found)
    assert found["miou"] == pytest.approx(100 * jaccard_score(*pair, labels=there, average="macro"), abs=1e-9)
    assert found["pixel"] == pytest.approx(100 * (pair[0] == pair[1]).mean(), abs=1e-9)


@pytest.mark.parametrize("absent", [None, 0, 3])
def test_scores_are_torchmetrics(absent: int | None) -> None:
    classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    truth, found = predicted(absent=absent)
    theirs = classification.MulticlassJaccardIndex(CLASSES, ignore_index=VOID)(found.long(), truth.long())
    assert measured(truth, found)["miou"] == pytest.approx(100 * theirs.item(), abs=1e-4)


def test_counts_are_summed_before_they_are_divided() -> None:
    """One image of one pixel of class 1 that is missed, one of 63 that are found: 63 / 64, not the mean of 0 and 1."""
    truth = torch.zeros(2, 8, 8, dtype=torch.uint8)
    truth[0, 0, 0], truth[1].view(-1)[:63] = 1, 1
    found = truth.clone()
    found[0] = 0
    background = 64 / 65  # one more is taken for it
    assert measured(truth, found)["miou"] == pytest.approx(100 * (63 / 64 + background) / 2)


def test_a_class_shifted_by_a_pixel_by_hand() -> None:
    """A square of 4 x 4 on 8 x 8, found one column further right: 12 of 20 pixels; of the background 44 of 52."""
    truth = torch.zeros(1, 8, 8, dtype=torch.uint8)
    truth[0, 2:6, 2:6] = 1
    found = measured(truth, truth.roll(1, dims=2))
    assert found["miou"] == pytest.approx(100 * (12 / 20 + 44 / 52) / 2) and found["pixel"] == pytest.approx(100 * 56 / 64)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.9))
def test_what_void_pixels_are_taken_for_changes_nothing(seed: int, void: float) -> None:
    truth, found = predicted(seed=seed, void=void)
    other = torch.where(truth == VOID, torch.randint(CLASSES, found.shape), found)
    assert measured(truth, found) == measured(truth, other)


def test_the_truth_scores_100_and_guesses_what_their_shares_give(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the task's own evaluation, at the size of the images."""
    _, test = data.load(run.data, seed=0)
    truth = torch.stack([label_map(test, index) for index in range(len(test))]).long()
    task = untrained(run, classes=10, device=CPU)
    answers = iter(F.one_hot(truth, 11).movedim(3, 1).float().split(7))
    monkeypatch.setattr(Segmentation, "logits", lambda self, pixels: next(answers))
    shown = {"batch_size": 7, "image_size": 32, "device": CPU}
    assert task.evaluate(test, **shown) == {"miou": 100.0, "pixel": 100.0}
    background = torch.eye(11)[0].view(1, 11, 1, 1)
    monkeypatch.setattr(Segmentation, "logits", lambda self, pixels: background.expand(len(pixels), 11, 32, 32))
    share = (truth == 0).float().mean().item()
    assert task.evaluate(test, **shown) == pytest.approx({"miou": 100 * share / len(truth.unique()), "pixel": 100 * share})


def test_the_label_of_a_pixel_is_the_class_of_the_object_that_is_seen_there() -> None:
    images = shapes.generate("object", 20, image_size=32)
    for index in range(20):
        labels = label_map(images, index)
        assert labels.dtype == torch.uint8 and torch.equal(labels > 0, images.masks[index].any(0))
        for mask, kind in zip(images.masks[index], images.mask_labels[index].tolist(), strict=True):
            assert (labels[mask] == 1 + kind).all()


def annotated(folder: Path, classes: np.ndarray, *, trimap: bool = False) -> Images:
    """One photograph (random colours) with the class mask `classes`."""
    picture, mask = folder / "a.png", folder / "mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*classes.shape, 3), dtype=np.uint8)).save(picture)
    Image.fromarray(classes.astype(np.uint8)).save(mask)
    one = Annotation(size=classes.shape[::-1], class_mask=mask, trimap_of=4 if trimap else None)
    return Images(labels=torch.zeros(1).long(), classes=tuple("abcde"), files=(picture,), annotations=(one,), crop=None)


def test_files_are_seen_as_squares_and_scored_at_their_own_size(tmp_path: Path, run: Run) -> None:
    """Every pixel that is not void counts once, void ones not at all; classes stay classes where a mask is resized."""
    classes = np.kron(np.arange(6).reshape(2, 3), np.ones((20, 10), int))
    classes[:, 14] = VOID
    images = annotated(tmp_path, classes)
    assert torch.equal(label_map(images, 0), torch.from_numpy(classes).to(torch.uint8))
    assert set(label_map(images, 0, 32).unique().tolist()) <= {*range(6), VOID} and label_map(images, 0, 32).shape == (32, 32)
    task = untrained(run, classes=5, device=CPU)
    counts = task.measure(images, batch_size=4, image_size=32, device=CPU)["confusion"]
    assert counts.sum() == 40 * 30 - 40 and counts[0].sum(1).tolist() == [200.0, 180, 200, 200, 180, 200]


def test_the_truth_at_its_own_size_scores_100(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 16), int))
    images = annotated(tmp_path, classes)
    square = F.one_hot(label_map(images, 0, 32)[None].long(), 6).movedim(3, 1).float()
    monkeypatch.setattr(Segmentation, "logits", lambda self, pixels: square)
    found = untrained(run, classes=5, device=CPU).evaluate(images, batch_size=4, image_size=32, device=CPU)
    assert found == {"miou": 100.0, "pixel": 100.0}


def test_all_breeds_of_pets_are_one_class(tmp_path: Path) -> None:
    images = annotated(tmp_path, np.array([[1, 2], [3, 1]]), trimap=True)
    assert label_map(images, 0).tolist() == [[1, 0], [VOID, 1]]


def test_masks_that_cannot_be_learned_from_are_one_line_with_their_name(tmp_path: Path, run: Run) -> None:
    images = annotated(tmp_path, np.full((4, 4), 77))
    with pytest.raises(ConfigError, match=r"the mask .*mask\.png holds 77, which is no class"):
        train(run, images=(images, images), device=CPU, folder=tmp_path)
    (tmp_path / "mask.png").unlink()
    with pytest.raises(ConfigError, match=r"cannot decode the mask .*mask\.png"):
        label_map(images, 0)
    with pytest.raises(ConfigError, match="^these images have no masks: choose a set with objects$"):
        label_map(data.load(Data(name="digits", image_size=8), seed=0)[0], 0)


def painted(n: int = 12, *, size: int = 32) -> Images:
    """Images whose red says the class of each pixel: 20 times it."""
    images = shapes.generate("object", n, image_size=size)
    labels = torch.stack([label_map(images, index) for index in range(n)])
    return dataclasses.replace(images, pixels=(20 * labels)[:, None].expand(n, 3, size, size).contiguous())


def batch(images: Images, augmentation: Augmentation, **ranks: int) -> tuple[Tensor, Tensor]:
    """Red of the images in 0..255, and the labels, of the first batch."""
    settings = {"batch_size": len(images), "image_size": 32, "seed": 0, "device": "cpu"} | ranks
    x, labels = next(LabelMapBatches(images, augmentation=augmentation, **settings).epoch(0))
    assert labels.dtype == torch.uint8 and labels.shape == (len(x), 32, 32)
    return 255 * (0.229 * x[:, 0] + 0.485), labels


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=0.5), Augmentation(crop="pad", flip=0.5)])
def test_labels_follow_their_pixels(augmentation: Augmentation) -> None:
    red, labels = batch(painted(), augmentation)
    assert torch.equal((red / 20).round().to(torch.uint8), labels) and len(labels.unique()) > 5


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
def test_images_that_are_not_on_the_device_give_the_same_batches(crop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one by one as well, where random resized crops are otherwise cut from the whole picture."""
    augmentation = Augmentation(crop=crop, crop_scale=(0.3, 1.0), flip=0.5)
    whole = batch(painted(), augmentation)
    for source in ("memory", "files"):
        monkeypatch.setenv("SAR_INPUT", source)
        assert all(torch.equal(*each) for each in zip(batch(painted(), augmentation), whole, strict=True))


def test_files_that_are_too_many_for_the_memory_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = annotated(tmp_path, np.kron(np.arange(6).reshape(2, 3), np.ones((20, 10), int)))
    augmentation = Augmentation(crop="resized", flip=0.5)
    whole = batch(images, augmentation)
    monkeypatch.setattr("sarlib.data.cache.MEMORY_LIMIT", 0)
    monkeypatch.delattr("sarlib.data.loader.in_memory")
    assert all(torch.equal(*each) for each in zip(batch(images, augmentation), whole, strict=True))


def test_labels_follow_a_resized_crop_by_nearest_neighbours() -> None:
    """They stay classes, and agree with the image but for edges, which interpolation blurs; a pixel to any side they do not."""
    images = painted()
    red, labels = batch(images, Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5))
    assert set(labels.unique().tolist()) <= set((images.pixels // 20).unique().tolist())
    same, *shifted = (
        ((red / 20).round() == labels.roll(by, (1, 2))).float().mean().item()
        for by in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    )
    assert same > 0.9 and same > max(shifted) + 0.01


def test_ranks_slices_make_the_global_batch() -> None:
    augmentation = Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5, color_jitter=0.4)
    whole = batch(painted(), augmentation)
    parts = [batch(painted(), augmentation, rank=rank, world_size=3) for rank in range(3)]
    assert all(torch.equal(torch.cat(each), one) for each, one in zip(zip(*parts), whole, strict=True))


def test_micro_batches_have_the_gradient_of_the_whole(run: Run) -> None:
    """Also where void is not spread evenly, and where a part of the batch is void alone."""
    task = untrained(run, classes=10, device=CPU).eval()
    pixels, labels = torch.randn(8, 3, 32, 32), torch.randint(11, (8, 32, 32), dtype=torch.uint8)
    labels[:2], labels[5, 4:] = VOID, VOID
    gradients = []
    for parts in (1, 4):
        task.zero_grad()
        losses = backward(task, (pixels, labels), weights=[], micro_batches=parts)
        gradients.append(torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None]))
    assert losses.shape == (1,) and torch.allclose(*gradients, atol=1e-6)
    known = labels != VOID
    expected = F.cross_entropy(task.logits(pixels).movedim(1, 3)[known], labels[known].long()) * known.float().mean()
    assert losses.item() == pytest.approx(expected.item(), abs=1e-5)


def test_every_parameter_learns(run: Run) -> None:
    """DistributedDataParallel waits for the gradients of all."""
    task = untrained(run, classes=10, device=CPU)
    backward(task, task.example_batch(2, 32), weights=[])
    assert [name for name, p in task.named_parameters() if p.grad is None] == []


def test_parameters_of_the_published_head() -> None:
    """256 channels to 128, seven 3 x 3 convolutions of which four change the number of channels; group norms; 21 classes."""
    head = SemanticFPN(256, 21)
    convolutions = 4 * 256 * 128 * 9 + 3 * 128 * 128 * 9
    assert sum(p.numel() for p in head.parameters()) == convolutions + 7 * 2 * 128 + 128 * 21 + 21
    levels = {name: torch.randn(2, 256, 32 // 2**i, 32 // 2**i) for i, name in enumerate(("p2", "p3", "p4", "p5"))}
    with torch.no_grad():
        assert head(levels).shape == (2, 21, 32, 32)
        assert torch.allclose(head(levels | {"p6": torch.randn(2, 256, 2, 2)}), head(levels)), "p6 is not its business"


def test_it_learns_a_few_images_by_heart(tmp_path: Path, run: Run) -> None:
    learned = dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, train_size=4, test_size=4),
        model=dataclasses.replace(run.model, drop_path=0.0, dim=32),
        recipe=dataclasses.replace(run.recipe, epochs=150, lr=5e-3, evaluations=1, weight_decay=0.0),
        task=dataclasses.replace(run.task, channels=32),
    )
    few, _ = data.load(learned.data, seed=0)
    trained = train(learned, images=(few, few), device=CPU, folder=tmp_path)
    assert evaluate(trained.task, few, run=learned, device=CPU)["miou"] > 75


def test_it_is_trained_kept_and_drawn(tmp_path: Path, run: Run) -> None:
    images = data.load(run.data, seed=0)
    trained = train(run, images=images, device=CPU, folder=tmp_path)
    last = {row["metric"]: row["value"] for row in trained.history if row["split"] == "test" and row["epoch"] == 3}
    assert last.keys() == {"miou", "pixel"} and 0 < last["miou"] < last["pixel"] < 100
    drawn = Measurement(name="segments", data=run.data, images=3)
    taken = take(Finished(run, trained.task.kept()), drawn)
    found = torch.tensor(taken["arrays"]["classes"])
    first = images[1].subset(range(3))
    counts = confusion(torch.stack([label_map(first, index) for index in range(3)]), found, classes=11)
    assert torch.equal(counts, trained.task.measure(first, batch_size=3, image_size=32, device=CPU)["confusion"].sum(0).long())


@pytest.mark.parametrize("what", [{"mixup": 0.2}, {"erasing": 0.25}, {"rand_augment": "rand-m9"}])
def test_what_masks_cannot_follow_is_refused(run: Run, what: dict) -> None:
    with pytest.raises(ConfigError, match="segmentation"):
        dataclasses.replace(run, augmentation=Augmentation(**what))


def test_a_classification_run_imports_nothing_of_it() -> None:
    script = (
        "import sys, sarlib.trainer.loop, sarlib.measures.dense, sarlib.measures.maps, sarlib.runner.execute\n"
        "from sarlib import data, tasks\n"
        "from sarlib.experiments import declare\n"
        "run = declare('table2', preset='tiny', seeds=1).cells[0].run\n"
        "tasks.create(run, 10)\n"
        "ours = [name for name in sys.modules if name.startswith('sarlib') or name == 'torchmetrics']\n"
        "print([name for name in ours if name.endswith(('segmentation', 'vitdet', 'multilabel', 'torchmetrics'))])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"
