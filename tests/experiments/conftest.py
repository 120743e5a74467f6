"""What several tests of the tables need: a folder in which PRESET=paper finds all of its data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from voc_layout import add_image, write_year

from sarlib import data
from sarlib.data import released
from sarlib.experiments.presets import PRESETS


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """A root in ImageNet's layout: IN-100's classes, one file each, which a declaration never opens."""
    classes = Path(data.__file__).with_name("imagenet100.txt").read_text().split()
    return _tree(tmp_path, "imagenet", classes)


@pytest.fixture
def paper_sets(imagenet: Path) -> Path:
    """The same, the sets of Tables 2 and 7, the released test sets of Table 8, VOC 2012 and VOC 2007, and UCF101's lists."""
    write_year(imagenet / "VOCdevkit" / "VOC2012")
    write_year(imagenet / "VOCdevkit" / "VOC2007", colour=(10, 10, 200))
    paper = PRESETS["paper"]
    for name in (*(training.data.name for training in paper.small_sets), *paper.fine_tuning.sets):
        _tree(imagenet, name, ["a", "b"])
    for place in (place for each in (released.IMAGENET_A, released.IMAGENET_C) for place in released.places(each)):
        folder = imagenet / place / "n01498041"
        folder.mkdir(parents=True)
        (folder / "0.JPEG").touch()
    for split in ("train", "test"):
        path = imagenet / "ucfTrainTestlist" / f"{split}list01.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("Archery/v_1.avi 1\nBiking/v_1.avi 2\n")
    for kind in ("Archery", "Biking"):
        (imagenet / "UCF-101" / kind).mkdir(parents=True)
        (imagenet / "UCF-101" / kind / "v_1.avi").touch()
    return imagenet


@pytest.fixture
def photographs(image_folder: Path) -> Path:
    """DATA with the tree `imagenette`, and two folders of sets with objects: `old` has VOC 2007 and 2012, `new` the latter
    and `people`, which shows nothing else."""
    (image_folder / "pets").rename(image_folder / "imagenette")
    write_year(image_folder / "old" / "VOCdevkit" / "VOC2007", colour=(10, 10, 200))
    alone = write_year(image_folder / "people" / "VOCdevkit" / "VOC2012") / "Annotations" / "a.xml"
    alone.write_text(alone.read_text().replace("dog", "person"))
    for place in ("old", "new"):
        year = write_year(image_folder / place / "VOCdevkit" / "VOC2012")
        add_image(year, "2007_a", (1, 200, 3), "trainval")  # a test image of VOC2007, by its name
    return image_folder


def _tree(root: Path, name: str, classes: list[str]) -> Path:
    for split in ("train", "val"):
        for each in classes:
            folder = root / name / split / each
            folder.mkdir(parents=True)
            (folder / "0.JPEG").touch()
    return root
