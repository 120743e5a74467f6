"""What several test files need: one thread, a runs folder of their own, and the smallest run that is still a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sarlib.config import Augmentation, Data, Model, Recipe, Regularizer
from sarlib.run import Run
from sarlib.runner.store import Store

torch.set_num_threads(1)

SMALLEST = Run(
    data=Data(name="shapes-object", image_size=32, train_size=24, test_size=20),
    model=Model(patch_size=8, dim=16, depth=2, heads=2, variant="C", drop_path=0.2),
    recipe=Recipe(epochs=3, batch_size=8, lr=1e-3, warmup_epochs=1, clip=1.0, evaluations=3),
    augmentation=Augmentation(crop="pad", crop_padding=2, flip=0.5, mixup=0.2, cutmix=0.5, label_smoothing=0.1),
    regularizers=(Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=1),),
)

#: Where tests marked `gpu` run. A rehearsal runs them on the CPU, to see that the tests themselves work.
GPU = torch.device("cpu" if os.environ.get("SAR_REHEARSE") else "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none."""
    if GPU.type == "cuda" and not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU that torch can use"))


@pytest.fixture
def gpu() -> torch.device:
    return GPU


@pytest.fixture
def smallest_run() -> Run:
    return SMALLEST


@pytest.fixture
def with_recipe() -> Callable[..., Run]:
    """The smallest run with some fields of its recipe changed."""
    return lambda **changes: dataclasses.replace(SMALLEST, recipe=dataclasses.replace(SMALLEST.recipe, **changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder that is this test's alone, also for the processes that it starts."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("SAR_RUNS", str(folder))
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A root with one small ImageFolder set, `pets`: two classes, six training and four test images of 20 x 24 px each."""
    root = tmp_path / "data"
    generator = torch.Generator().manual_seed(0)
    for split, n in (("train", 6), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = torch.randint(0, 128, (20, 24, 3), generator=generator, dtype=torch.uint8) + 127 * label
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return root
