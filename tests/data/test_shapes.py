"""Procedural shapes: the same bits whatever the chunking, honest masks, no favoured place, learnable cues."""

import hashlib

import numpy as np
import pytest
import torch
from scipy import ndimage

from sarlib.config import ConfigError, Data
from sarlib.data import SHAPES, load, shapes
from sarlib.data.shape_styles import STYLES

SIZE = 32
PARTS = ("labels", "pixels", "masks", "mask_labels", "boxes")


def same(one, two):
    return all(torch.equal(getattr(one, part), getattr(two, part)) for part in PARTS)


@pytest.fixture(scope="module")
def many():
    return shapes.generate("object", 3000, image_size=SIZE, seed=5)


@pytest.mark.parametrize("style", STYLES)
def test_an_image_is_a_function_of_seed_and_index(style, monkeypatch):
    whole = shapes.generate(style, 40, image_size=SIZE, seed=7)
    for chunk in (1, 7, 64):
        monkeypatch.setattr(shapes, "_CHUNK", chunk)
        assert same(shapes.generate(style, 40, image_size=SIZE, seed=7), whole)
    monkeypatch.undo()
    assert same(shapes.generate(style, 13, image_size=SIZE, seed=7), whole.subset(range(13)))
    assert same(shapes.generate(style, 9, image_size=SIZE, seed=7, start=31), whole.subset(range(31, 40)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert same(shapes.generate(style, 40, image_size=SIZE, seed=7), whole)
    finally:
        torch.set_num_threads(threads)


def test_the_images_are_those_of_the_stored_results():
    """If this fails on purpose, raise `run.NUMERICS_VERSION`: stored results were trained on other images."""
    told = hashlib.sha256()
    for style in STYLES:
        images = shapes.generate(style, 10, image_size=SIZE, seed=1)
        told.update(images.pixels.numpy().tobytes() + images.masks.numpy().tobytes())
    assert told.hexdigest()[:16] == "eca26b1e45d9f729"


def test_styles_seeds_and_streams_share_no_image():
    sets = [
        shapes.generate(style, 30, image_size=SIZE, seed=seed, stream=stream)
        for style in STYLES
        for seed in (0, 1)
        for stream in shapes.STREAMS
    ]
    for what in ("pixels", "masks"):
        seen = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for images in sets for image in getattr(images, what)]
        assert len(set(seen)) == len(seen)


def test_styles_look_different():
    colourful, tones = {}, {}
    for style in STYLES:
        pixels = shapes.generate(style, 40, image_size=SIZE).pixels.float()
        colourful[style] = pixels.std(1).mean().item()
        tones[style] = pixels.mean().item()
    assert colourful["sketch"] == 0 and min(colourful[style] for style in STYLES if style != "sketch") > 5
    assert min(tones["clipart"], tones["sketch"]) > max(tones["object"], tones["painting"]) + 40


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("style", STYLES)
def test_instances_are_connected_disjoint_and_boxed(style, size):
    images = shapes.generate(style, 60, image_size=size)
    assert images.pixels.shape == (60, 3, size, size) and images.masks.shape == (60, 3, size, size)
    assert images.masks.sum(1).max() == 1
    for i, j in np.ndindex(60, 3):
        mask, box = images.masks[i, j].numpy(), images.boxes[i, j].tolist()
        assert (images.mask_labels[i, j] >= 0) == mask.any()
        if not mask.any():
            assert box == [0, 0, 0, 0]
            continue
        assert ndimage.label(mask)[1] == 1
        rows, columns = ndimage.find_objects(mask.astype(int))[0]
        assert box == [columns.start, rows.start, columns.stop, rows.stop]


def test_the_label_is_the_largest_objects_class(many):
    area = many.masks.sum((2, 3))
    assert torch.equal(many.mask_labels[:, 0], many.labels)
    assert (area[:, 0] > area[:, 1:].amax(1)).all()
    assert 0.1 < area[:, 0].float().mean() / SIZE**2 < 0.2 and area[:, 0].min() >= 4
    count = (many.mask_labels >= 0).sum(1).bincount(minlength=4)
    assert count[0] == 0 and (count[1:] > 300).all()


def test_all_classes_are_balanced_and_drawn_at_the_same_size(many):
    assert many.labels.bincount().tolist() == [300] * 10
    for part in torch.arange(len(many)).split(10):
        assert many.labels[part].sort().values.tolist() == list(range(10))
    area = many.masks[:, 0].float().mean((1, 2))
    mean = torch.stack([area[many.labels == label].mean() for label in range(10)])
    assert mean.min() > 0.75 * mean.max()


def test_no_place_is_favoured(many):
    """Were objects placed towards the middle, a fixed disc would find them without looking at the image."""
    covered = many.masks[:, 0].float()
    mean = torch.nn.functional.avg_pool2d(covered.mean(0)[None], SIZE // 8)[0]  # on an 8 x 8 grid of tokens
    assert mean.std() < 0.25 * mean.mean()
    assert mean[3:5, 3:5].mean() < 1.25 * mean.mean()
    assert (mean.mean(0) - mean.mean(0).flip(0)).abs().max() < 0.2 * mean.mean()
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    distance = (axis[:, None] ** 2 + axis**2).sqrt()

    def jaccard(mask):
        return ((covered * mask).sum((1, 2)) / (covered + mask).clamp(max=1).sum((1, 2))).mean()

    best_disc = max(jaccard((distance < radius).float()) for radius in (0.3, 0.5, 0.7, 0.9, 1.1))
    assert best_disc < 1.1 * jaccard(torch.ones(SIZE, SIZE))


def test_label_and_place_are_independent(many):
    middle = (many.boxes[:, 0, :2] + many.boxes[:, 0, 2:]).float() / 2 / SIZE
    spread = middle.std(0) / (300**0.5)
    for label in range(10):
        mean = middle[many.labels == label].mean(0)
        assert ((mean - middle.mean(0)).abs() < 4 * spread).all()


def test_colour_tells_the_class_often_but_not_always(many):
    """Nearest class mean of the main object's colour: far above chance, far from solved."""
    mask = many.masks[:, :1].float()
    colour = (many.pixels * mask).sum((2, 3)) / mask.sum((2, 3))
    colour = colour - colour.mean(1, keepdim=True)
    half = len(many) // 2
    means = torch.stack([colour[:half][many.labels[:half] == label].mean(0) for label in range(10)])
    right = (torch.cdist(colour[half:], means).argmin(1) == many.labels[half:]).float().mean()
    assert 0.25 < right < 0.75


def test_the_scene_does_not_depend_on_the_image_size():
    small, large = (shapes.generate("clipart", 30, image_size=size) for size in (32, 96))
    assert torch.equal(small.labels, large.labels)
    reduced = torch.nn.functional.avg_pool2d(large.masks[:, 0].float(), 3) > 0.5
    overlap = (reduced & small.masks[:, 0]).sum((1, 2)) / (reduced | small.masks[:, 0]).sum((1, 2))
    assert overlap.median() > 0.85


@pytest.mark.parametrize("name", SHAPES)
def test_load_draws_the_training_set_by_the_seed_and_never_the_test_set(name):
    spec = Data(name=name, image_size=16, train_size=50, test_size=20)
    (train, test), (other, again) = load(spec, seed=0), load(spec, seed=1)
    assert len(train) == 50 and len(test) == 20 and train.labels.bincount().tolist() == [5] * 10
    assert same(test, again) and not torch.equal(train.pixels, other.pixels)
    assert same(load(spec, seed=0)[0], train)
    everything = torch.cat([train.pixels, other.pixels, test.pixels]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == 120


def test_unknown_styles_and_streams_are_refused():
    with pytest.raises(ConfigError, match="object, clipart, painting, sketch"):
        shapes.generate("oil", 1, image_size=16)
    with pytest.raises(ConfigError, match="train, test"):
        shapes.generate("object", 1, image_size=16, stream="validation")


def test_the_names_of_the_sets_are_those_of_the_styles():
    assert tuple(f"shapes-{style}" for style in STYLES) == SHAPES


@pytest.mark.parametrize("style", STYLES)
def test_cues_in_conflict_belong_to_another_class_in_the_same_scenes(style):
    """Where objects are, and which, is as in the test set, and so is every pixel of the ground."""
    sets = [Data(name=f"shapes-{style}{ending}", image_size=64, train_size=1, test_size=60) for ending in ("", "-conflict")]
    (_, plain), (_, conflict) = (load(spec, seed=4) for spec in sets)
    for part in ("labels", "masks", "mask_labels", "boxes"):
        assert torch.equal(getattr(plain, part), getattr(conflict, part)), part
    changed = (plain.pixels != conflict.pixels).any(1)
    assert not changed[~plain.masks.any(1)].any() and plain.classes == conflict.classes
    assert changed.flatten(1).any(1).float().mean() > 0.95


def test_in_conflict_no_object_looks_like_itself_and_like_every_other_equally_often():
    kind = np.arange(9000)[:, None] % 10
    looks = {
        conflict: shapes._look(shapes._Draws(seed=0, source=1, indices=np.arange(9000), size=8, conflict=conflict), kind)
        for conflict in (False, True)
    }
    assert 0.94 < (looks[False] == kind).mean() < 0.97
    steps = np.bincount(((looks[True] - kind) % 10).ravel(), minlength=10)
    assert steps[0] == 0 and np.abs(steps[1:] - 1000).max() < 120
