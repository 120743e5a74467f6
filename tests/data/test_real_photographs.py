"""IN-1K and IN-100 as folders of real photographs, one of each class: loader, class lists, training batches, evaluation.

SAR_TEST_DATA names a folder with `imagenet-sample/val/<wnid>/*.JPEG` and `imagenet-sample/classes.json`; without it
everything here is skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from timm.data import create_transform
from torchvision.datasets import ImageFolder

from sarlib import experiments, models
from sarlib.config import Data, Model
from sarlib.data import load
from sarlib.data.images import Images
from sarlib.data.loader import TrainBatches, evaluation_batches
from sarlib.tasks.classification import Classification
from sarlib.trainer.recipes import DEIT_AUGMENTATION

SAMPLE = Path(os.environ.get("SAR_TEST_DATA", "")) / "imagenet-sample"
pytestmark = pytest.mark.skipif(
    not ("SAR_TEST_DATA" in os.environ and SAMPLE.is_dir()), reason="SAR_TEST_DATA does not name a folder with imagenet-sample"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """ImageNet's layout, the sample standing for both halves."""
    (tmp_path / "imagenet").mkdir()
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).symlink_to(SAMPLE.resolve() / "val")
    return tmp_path


def read(name: str, root: Path) -> tuple[Images, Images]:
    return load(Data(name=name, image_size=224, test_crop=224 / 256), seed=0, root=root)


def test_classes_and_labels_are_those_of_torchvision_and_of_the_sample(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_INPUT", "files")
    names = json.loads((SAMPLE / "classes.json").read_text())
    folder = ImageFolder(SAMPLE / "val")
    for images in read("imagenet", root):
        assert list(images.classes) == folder.classes == sorted(names) and len(images) == 1000
        assert [path.name for path in images.files] == [Path(path).name for path, _ in folder.samples]
        assert images.labels.tolist() == folder.targets
    hundred, _ = read("imagenet100", root)
    assert len(hundred) == 100 and set(hundred.classes) < set(names)
    assert {"bonnet", "robin", "Chihuahua"} <= {names[wnid] for wnid in hundred.classes}, "three of Tian et al.'s list"
    for path, label in zip(hundred.files, hundred.labels.tolist(), strict=True):
        assert path.parent.name == hundred.classes[label]


@pytest.mark.parametrize("source", ["files", "memory"])
def test_what_is_evaluated_is_timms_evaluation_view(root: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("SAR_INPUT", source)
    chosen = range(0, 1000, 90)
    view = create_transform(224, is_training=False, interpolation="bicubic", crop_pct=224 / 256)
    folder = ImageFolder(SAMPLE / "val")
    expected = torch.stack([view(folder[index][0]) for index in chosen])
    _, test = read("imagenet", root)
    found = torch.cat([x for x, _ in evaluation_batches(test.subset(chosen), batch_size=5, image_size=224, device="cpu")])
    assert (found - expected).abs().max() < 1e-4


def test_a_training_epoch_shows_every_photograph_augmented(root: Path) -> None:
    train, _ = read("imagenet100", root)
    setting = {"augmentation": DEIT_AUGMENTATION, "batch_size": 20, "image_size": 224, "seed": 0, "device": "cpu"}
    batches = list(TrainBatches(train, **setting).epoch(0))
    assert [tuple(x.shape) for x, _ in batches] == [(20, 3, 224, 224)] * 5
    assert all(x.isfinite().all() and x.std() > 0.5 for x, _ in batches)
    weights = torch.cat([target for _, target in batches])
    assert torch.allclose(weights.sum(1), torch.ones(100)) and (weights.sum(0) > 0.5).all(), "each of the 100 classes is shown"


def test_evaluation_counts_each_photograph_once(root: Path) -> None:
    """Of 1000 images a share of right ones is a multiple of 0.1 %; an untrained network is right on few, at the loss
    of guessing."""
    _, test = read("imagenet", root)
    torch.manual_seed(0)
    model = models.create(Model(patch_size=32, dim=48, depth=1, heads=3), classes=1000, image_size=224)
    metrics = Classification(model).evaluate(test, batch_size=100, image_size=224, device=torch.device("cpu"))
    assert 0 <= metrics["top1"] <= metrics["top5"] < 5 and round(10 * metrics["top1"], 6).is_integer()
    assert metrics["loss"] == pytest.approx(6.9, abs=0.5) and metrics["components"] >= 1


def test_the_papers_tables_are_declared_on_these_folders(root: Path) -> None:
    for name in ("table1", "table3", "table4", "table9", "table10", "figure3"):
        cells = experiments.declare(name, preset="paper", data=root).cells
        assert {cell.run.data.image_size for cell in cells} == {224} and all(cell.run.data.fingerprint for cell in cells)
