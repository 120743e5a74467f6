"""VOC2012's images with masks hold those of VOC2007 under other names: its test images are found and are not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from voc_layout import add_image, write_year

from sarlib import data
from sarlib.config import ConfigError, Data
from sarlib.data import voc
from sarlib.data.images import Images

NAME = "voc12-07-masks"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC2007 has the test images a, b, 000001, 000002 and the training image 000003. VOC2012 has the first of the three under
    its name there in other bytes, the second under a name of its own, the third as a training image of both."""
    old = write_year(tmp_path / "VOCdevkit" / "VOC2007", colour=(10, 10, 200))
    new = write_year(tmp_path / "VOCdevkit" / "VOC2012")
    for number, colour in enumerate([(1, 2, 3), (90, 20, 30), (7, 80, 9)], start=1):
        add_image(old, f"00000{number}", colour, "trainval" if number == 3 else "test")
    add_image(new, "2007_000001", (1, 200, 3), "trainval")
    add_image(new, "2010_000009", (90, 20, 30), "trainval")
    add_image(new, "2007_000003", (7, 80, 9), "trainval")
    return tmp_path


def names(images: Images) -> list[str]:
    return [file.stem for file in images.files]


def test_test_images_are_found_by_name_and_by_content_and_left_out(root: Path) -> None:
    named, same = voc.repeated(*voc.read(root, NAME + voc.LITERAL))
    literal, test = data.load(Data(name=NAME + voc.LITERAL, image_size=8), seed=0, root=root)
    assert [names(literal)[index] for index in named] == ["2007_000001"]
    assert [names(literal)[index] for index in same] == ["2010_000009"]
    train, same_test = data.load(Data(name=NAME, image_size=8), seed=0, root=root)
    assert names(train) == ["a", "b", "2007_000003"], "a training image of VOC2007 may be one of VOC2012"
    assert names(test) == names(same_test) == ["a", "b", "000001", "000002"]
    assert names(literal) == ["a", "b", "2007_000001", "2010_000009", "2007_000003"]
    assert train.annotations == tuple(literal.annotations[index] for index in (0, 1, 4))


def test_the_two_protocols_are_two_sets(root: Path) -> None:
    one, other = (data.inspect(name, root=root).fingerprint for name in (NAME, NAME + voc.LITERAL))
    assert one != other
    assert NAME in voc.discover(root) and NAME + voc.LITERAL not in voc.discover(root)
    assert voc.known(NAME + voc.LITERAL) and not voc.known("voc2007-masks" + voc.LITERAL)


def test_nothing_left_to_train_on_is_refused(root: Path) -> None:
    year = root / "VOCdevkit" / "VOC2012"
    (year / "ImageSets" / "Segmentation" / "trainval.txt").write_text("2007_000001\n")
    with pytest.raises(ConfigError, match="^every training image is a test image$"):
        data.load(Data(name=NAME, image_size=8), seed=0, root=root)
