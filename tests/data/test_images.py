"""Labelled images: their parts, square views, balanced subsets, scikit-learn's digits."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as V

from sarlib.config import ConfigError, Data
from sarlib.data import load
from sarlib.data.images import Images, balanced, central_view


def spec(name="digits", **settings):
    return Data(**{"name": name, "image_size": 8} | settings)


def test_images_check_their_parts():
    labels, classes = torch.tensor([0, 1]), ("a", "b")
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    good = Images(labels=labels, classes=classes, pixels=pixels)
    assert len(good) == 2 and good.image_size == (4, 4) and good.subset([1]).labels.tolist() == [1]
    masks = {
        "masks": torch.zeros(2, 1, 4, 4, dtype=torch.bool),
        "mask_labels": torch.full((2, 1), -1),
        "boxes": torch.zeros(2, 1, 4, dtype=torch.int64),
    }
    bad = {
        "not both or neither": {"pixels": None},
        "do not index": {"classes": ("a",)},
        "vector of int64": {"labels": labels.float()},
        "must be uint8": {"pixels": pixels.float()},
        "come together": {"masks": masks["masks"]},
        "like the pixels": masks | {"masks": masks["masks"][:, :, :2]},
        "mask_labels must": masks | {"mask_labels": masks["mask_labels"].int()},
        "boxes must": masks | {"boxes": masks["boxes"][:, :, :2]},
        "files for": {"pixels": None, "files": ()},
        "at least one": {"labels": labels[:0], "pixels": pixels[:0]},
    }
    for message, parts in bad.items():
        with pytest.raises(ConfigError, match=message):
            Images(**{"labels": labels, "classes": classes, "pixels": pixels} | parts)


def test_shares_are_equal_as_far_as_classes_go():
    labels = torch.tensor([0] * 2 + [1] * 20 + [2] * 20)
    draw = balanced(labels, size=22, seed=3)
    assert labels[draw].bincount().tolist() == [2, 10, 10] and len(set(draw.tolist())) == 22
    assert set(balanced(labels, size=9, seed=3).tolist()) < set(draw.tolist())
    assert draw.tolist() != balanced(labels, size=22, seed=4).tolist()
    drawn = torch.stack([torch.zeros(42).index_fill(0, balanced(labels, size=6, seed=seed), 1) for seed in range(300)]).mean(0)
    assert (drawn[2:] - 0.1).abs().max() < 0.08  # every image of a class is as likely as any other


@pytest.mark.parametrize(("crop", "side"), [(1.0, 12), (0.875, 13), (0.5, 24)])
@pytest.mark.parametrize("size", [(30, 20), (20, 30), (7, 9), (12, 12)])
def test_the_central_view_is_torchvisions_resize_and_centre_crop(size, crop, side):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    expected = V.center_crop(V.resize(picture, side, interpolation=V.InterpolationMode.BICUBIC), [12, 12])
    assert np.array_equal(np.asarray(central_view(picture, 12, crop=crop)), np.asarray(expected))


def test_digits_are_scikit_learns():
    train, test = load(spec("digits"), seed=0)
    assert len(train) == 1000 and len(test) == 797 and train.image_size == (8, 8)
    theirs = load_digits()
    ours = torch.cat([train.pixels, test.pixels])[:, 0].flatten(1)
    expected = torch.from_numpy(theirs.data * 255 / 16).round().to(torch.uint8)
    order = lambda rows: sorted(map(tuple, rows.tolist()))  # noqa: E731
    assert order(ours) == order(expected)
    share = test.labels.bincount() / 797
    assert (share - 0.1).abs().max() < 0.002
    small, again = (load(spec("digits", image_size=32, train_size=60), seed=seed) for seed in (0, 1))
    assert small[0].labels.bincount().tolist() == [6] * 10 and small[0].image_size == (32, 32)
    assert torch.equal(small[1].pixels, again[1].pixels) and not torch.equal(small[0].pixels, again[0].pixels)
