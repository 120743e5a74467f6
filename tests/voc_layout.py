"""Two images in the layout of Pascal VOC: `a` with three objects, `b` without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

#: Two people and a dog, 6 x 4 px; the fourth column is void, the dog has no pixel of its own behind it.
CLASS_MASK = [[15, 15, 0, 255, 12, 12], [15, 15, 0, 255, 12, 12], [0, 0, 0, 255, 0, 15], [0, 0, 0, 255, 0, 15]]
OBJECT_MASK = [[1, 1, 0, 255, 2, 2], [1, 1, 0, 255, 2, 2], [0, 0, 0, 255, 0, 3], [0, 0, 0, 255, 0, 3]]
OBJECTS = [("person", 1, 1, 2, 2, 0), ("dog", 5, 1, 6, 2, 1), ("person", 6, 3, 6, 4, 0)]


def xml(objects, *, width: int = 6, height: int = 4) -> str:
    of = "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"  # noqa: E501
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    listed = "".join(of.format(name, difficult, *box) for name, *box, difficult in objects)
    return f"<annotation><filename>a.jpg</filename>{size}{listed}</annotation>"


def palette(path: Path, values) -> None:
    picture = Image.fromarray(np.array(values, dtype=np.uint8), mode="P")
    picture.putpalette([(37 * i) % 256 for i in range(768)])
    picture.save(path)


def write_year(year: Path, colour: tuple[int, int, int] = (200, 10, 10)) -> Path:
    """VOC2012 or VOC2007 at `year`, both images in every list."""
    for folder in (
        "JPEGImages",
        "Annotations",
        "ImageSets/Main",
        "ImageSets/Segmentation",
        "SegmentationClass",
        "SegmentationObject",
    ):
        (year / folder).mkdir(parents=True)
    for name, classes, objects, found in (
        ("a", CLASS_MASK, OBJECT_MASK, OBJECTS),
        ("b", np.zeros((4, 6)), np.zeros((4, 6)), []),
    ):
        Image.new("RGB", (6, 4), colour).save(year / "JPEGImages" / f"{name}.jpg")
        (year / "Annotations" / f"{name}.xml").write_text(xml(found))
        palette(year / "SegmentationClass" / f"{name}.png", classes)
        palette(year / "SegmentationObject" / f"{name}.png", objects)
    for kind in ("Main", "Segmentation"):
        for split in ("train", "val", "trainval", "test"):
            (year / "ImageSets" / kind / f"{split}.txt").write_text("a\nb\n")
    return year


def add_image(year: Path, name: str, colour: tuple[int, int, int], *lists: str) -> None:
    """One more image, by the name of `name`, without objects."""
    Image.new("RGB", (6, 4), colour).save(year / "JPEGImages" / f"{name}.jpg")
    (year / "Annotations" / f"{name}.xml").write_text((year / "Annotations" / "b.xml").read_text())
    for kind in ("SegmentationClass", "SegmentationObject"):
        palette(year / kind / f"{name}.png", [[0] * 6] * 4)
    for each in lists:
        path = year / "ImageSets" / "Segmentation" / f"{each}.txt"
        path.write_text(path.read_text() + f"{name}\n")
