"""Fifty small images, in memory and as files."""

import pytest
from small_batches import SIZE

from sarlib.data import shapes
from sarlib.data.images import Images


@pytest.fixture(scope="module")
def images():
    return shapes.generate("object", 50, image_size=SIZE)


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """The same images as lossless files."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = tuple(folder / f"{i}.png" for i in range(len(images)))
    for i, path in enumerate(paths):
        images.picture(i).save(path)
    return Images(labels=images.labels, classes=images.classes, files=paths)
