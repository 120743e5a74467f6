"""What several test files need: one thread, a runs folder of their own, and the smallest run that is still a run."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from smallest import SMALLEST

from sarlib.run import Run
from sarlib.runner.store import Store

torch.set_num_threads(1)
# A suite that was started in the background ignores interruptions, and so would the programs that it starts to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
