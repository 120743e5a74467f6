"""What several tests of the tables need: a folder in which PRESET=paper finds all of its data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarlib import data
from sarlib.experiments.presets import PRESETS


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """A root in ImageNet's layout: IN-100's classes, one file each, which a declaration never opens."""
    classes = Path(data.__file__).with_name("imagenet100.txt").read_text().split()
    return _tree(tmp_path, "imagenet", classes)


@pytest.fixture
def paper_sets(imagenet: Path) -> Path:
    """The same, the small sets of Table 2, and UCF101's lists."""
    for training in PRESETS["paper"].small_sets:
        _tree(imagenet, training.data.name, ["a", "b"])
    for split in ("train", "test"):
        path = imagenet / "ucfTrainTestlist" / f"{split}list01.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("Archery/v_1.avi 1\nBiking/v_1.avi 2\n")
    for kind in ("Archery", "Biking"):
        (imagenet / "UCF-101" / kind).mkdir(parents=True)
        (imagenet / "UCF-101" / kind / "v_1.avi").touch()
    return imagenet


def _tree(root: Path, name: str, classes: list[str]) -> Path:
    for split in ("train", "val"):
        for each in classes:
            folder = root / name / split / each
            folder.mkdir(parents=True)
            (folder / "0.JPEG").touch()
    return root
