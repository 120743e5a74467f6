"""60 %-mass masks and their overlap with objects, against plain loops over pixels and brute force."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pixelwise import class_map, upsample
from voc_layout import palette, write_year, xml

from sarlib import data
from sarlib.config import ConfigError, Data
from sarlib.data import shapes
from sarlib.entropy import component_counts, map_entropy
from sarlib.tasks.masks import (
    best_jaccard,
    centre_discs,
    jaccard,
    jaccard_references,
    map_metrics,
    mass_mask,
    object_cells,
    random_masks,
    read_object_cells,
    references,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(*, images=6, size=(12, 20), seed=0):
    """Disjoint instance masks, their classes (some shared, some none) and a void border."""
    g = generator(seed)
    owner = F.interpolate(torch.randint(0, 4, (images, 1, *(s // 2 for s in size)), generator=g).float(), size=size).squeeze(1)
    masks = torch.stack([owner == m for m in (1, 2, 3)], 1)
    labels = torch.tensor([[0, 1, 2], [1, 1, 2], [5, 5, 5], [-1, 3, -1], [0, -1, 0], [-1, -1, -1]])[:images]
    void = torch.rand(images, *size, generator=g) < 0.1
    return masks, labels, void


def jaccard_by_loops(heads, masks, labels, void):
    """The protocol spelled out on pixels."""
    means = []
    for image in range(len(masks)):
        valid = ~void[image]
        scores = []
        for label in sorted(set(labels[image].tolist()) - {-1}):
            truth = masks[image][labels[image] == label].any(0) & valid
            if truth.any():
                kept = [upsample(head, truth.shape) & valid for head in heads[image]]
                scores.append(max(float((k & truth).sum() / (k | truth).sum()) for k in kept))
        means.append(sum(scores) / len(scores) if scores else float("nan"))
    return torch.tensor(means)


# ---- masks -----------------------------------------------------------------------------------------------------------------


def test_mass_mask_is_the_smallest_set():
    maps = 3 * torch.randn(200, 2, 3, 4, generator=generator())
    masks, shares = mass_mask(maps), maps.flatten(2).softmax(-1)
    held = (shares * masks.flatten(2)).sum(-1)
    assert (held >= 0.6 - 1e-6).all()
    for share, mask, total in zip(shares.flatten(0, 1), masks.flatten(0, 1).flatten(1), held.flatten(), strict=True):
        assert total - share[mask].min() < 0.6, "a smaller set would do"
        assert not mask.all() and share[mask].min() >= share[~mask].max()


def test_mass_mask_by_hand():
    share = torch.tensor([[0.05, 0.35], [0.2, 0.4]])
    assert mass_mask(share.log()).tolist() == [[False, True], [False, True]]
    assert mass_mask(share.log() + 100, mass=0.9).tolist() == [[False, True], [True, True]]
    assert mass_mask(torch.zeros(1, 5, 5)).sum() == 15, "60 % of a flat map is 60 % of its tokens"
    assert mass_mask(torch.zeros(4, 2), mass=1.0).all()


@pytest.mark.parametrize("mass", [0, -0.1, 1.1])
def test_mass_that_cannot_be_kept(mass):
    with pytest.raises(ConfigError, match="mass"):
        mass_mask(torch.zeros(2, 2), mass=mass)


@pytest.mark.parametrize("size", [(12, 20), (13, 22), (3, 5), (480, 333)])
def test_upsample_is_nearest_neighbour(size):
    mask = torch.rand(2, 3, 3, 5, generator=generator()) < 0.5
    assert torch.equal(upsample(mask, size), F.interpolate(mask.float(), size=size, mode="nearest").bool())


# ---- overlap with objects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (5, 7)])
@pytest.mark.parametrize("with_void", [False, True])
def test_jaccard_on_cells_equals_jaccard_on_pixels(grid, with_void):
    masks, labels, void = scene()
    heads = mass_mask(torch.randn(6, 3, *grid, generator=generator(1)))
    cells = object_cells(masks, labels, grid, void=void if with_void else None)
    expected = jaccard_by_loops(heads, masks, labels, void if with_void else torch.zeros_like(void))
    torch.testing.assert_close(jaccard(heads, cells), expected, equal_nan=True)
    assert expected.isnan().tolist() == [False, False, False, False, False, True]


def test_jaccard_of_the_object_itself_is_one():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 2:6, 4:8] = True
    cells = object_cells(mask, torch.tensor([[3]]), (4, 4))
    itself = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    itself[0, 1, 1:3, 2:4] = True
    assert jaccard(itself, cells).item() == best_jaccard(cells).item() == 1
    assert jaccard(itself[:, :1], cells).item() == 0
    assert jaccard(torch.ones(1, 1, 4, 4, dtype=torch.bool), cells).item() == 16 / 64


def test_best_jaccard_beats_every_mask():
    masks, labels, void = scene(images=5)
    cells = object_cells(masks, labels, (2, 4), void=void)
    every = torch.tensor(list(itertools.product([False, True], repeat=8))).view(1, 256, 2, 4)
    torch.testing.assert_close(best_jaccard(cells), jaccard(every, cells))


def test_hidden_objects_do_not_count():
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, :2] = True
    both = object_cells(masks, torch.tensor([[0, 1]]), (2, 2))
    assert both.image.tolist() == [0], "the second object has no visible pixel"


def transcribed(similarity, class_map, *, void_is_background):
    """Table 11 of one image, as its protocol reads, in float64: every head keeps the largest attention until 60 % of it is
    there and is scaled up by nearest neighbours; each class takes the best head; the mean is over the classes."""
    height, width = class_map.shape
    scores = {}
    for head in np.asarray(similarity, dtype=np.float64):
        weights = np.exp(head - head.max()).ravel() / np.exp(head - head.max()).sum()
        kept, held = np.zeros(weights.size, dtype=bool), 0.0
        for token in np.argsort(-weights):
            if held >= 0.6:
                break
            kept[token], held = True, held + weights[token]
        mask = np.array([[kept.reshape(head.shape)[y * head.shape[0] // height, x * head.shape[1] // width]
                          for x in range(width)] for y in range(height)])  # fmt: skip
        counts = np.ones_like(mask) if void_is_background else class_map != 255
        for label in set(np.unique(class_map)) - {0, 255}:
            truth = class_map == label
            overlap = (mask & truth & counts).sum() / ((mask | truth) & counts).sum()
            scores[label] = max(scores.get(label, 0.0), overlap)
    return np.mean(list(scores.values())) if scores else np.nan


@pytest.fixture
def annotated(tmp_path):
    """Twelve VOC images with rectangles of up to four classes, void borders, and one without objects; 24 px."""
    random, year = np.random.default_rng(3), write_year(tmp_path / "VOCdevkit" / "VOC2012")
    names = [f"{index:02d}" for index in range(12)]
    for name in names:
        classes = np.zeros((24, 24), dtype=np.uint8)
        for label in random.integers(1, 21, 0 if name == "07" else 4):
            top, left = random.integers(0, 18, 2)
            classes[top : top + 9, left : left + 9] = 255
            classes[top + 1 : top + 8, left + 1 : left + 8] = label
        Image.fromarray(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(year / "JPEGImages" / f"{name}.jpg")
        (year / "Annotations" / f"{name}.xml").write_text(xml([], width=24, height=24))
        for kind in ("SegmentationClass", "SegmentationObject"):
            palette(year / kind / f"{name}.png", classes)
    (year / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names))
    return data.load(Data(name="voc2012-masks", image_size=24), seed=0, root=tmp_path)[1]


@pytest.mark.parametrize("grid", [(4, 4), (5, 5), (7, 7)])
def test_both_readings_of_void_are_the_protocols(annotated, grid):
    shown = dataclasses.replace(annotated, files=None, pixels=torch.zeros(12, 3, 24, 24, dtype=torch.uint8))
    similarity = 2 * torch.randn(12, 3, *grid, generator=generator(5))
    found = [jaccard(mass_mask(similarity), cells) for cells in read_object_cells(shown, grid)]
    for void_is_background, ours in zip((False, True), found, strict=True):
        theirs = [
            transcribed(one, class_map(annotated.objects(index)).numpy(), void_is_background=void_is_background)
            for index, one in enumerate(similarity)
        ]
        assert ours.numpy() == pytest.approx(np.array(theirs), abs=1e-6, nan_ok=True)
    assert (found[0] >= found[1])[~found[0].isnan()].all() and found[0].isnan().nonzero().tolist() == [[7]]


def test_void_by_hand(annotated):
    """4 x 4 px, cells of 2 px. The mask keeps the left half: 8 pixels, of which 3 are the object's and 2 are void; the object
    has 4. Without void 3 of 7, with void as background 3 of 9."""
    masks, void = torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, :3] = masks[0, 0, 1, 0] = True
    void[0, 3, :2] = True
    left = torch.tensor([[True, False], [True, False]])[None, None]
    cells = [object_cells(masks, torch.tensor([[3]]), (2, 2), void=each) for each in (void, None)]
    assert [jaccard(left, each).item() for each in cells] == pytest.approx([3 / 7, 3 / 9])


def test_the_best_that_cells_can_do_under_both_readings_of_void(annotated):
    shown = dataclasses.replace(annotated, files=None, pixels=torch.zeros(12, 3, 24, 24, dtype=torch.uint8))
    every = torch.tensor(list(itertools.product([False, True], repeat=9))).view(1, 512, 3, 3)
    for cells in read_object_cells(shown, (3, 3)):
        torch.testing.assert_close(best_jaccard(cells), jaccard(every, cells), equal_nan=True)
        assert references(cells, heads=2)["jaccard_best"] == pytest.approx(best_jaccard(cells).nanmean().item())


def test_masks_in_memory_are_read_as_they_lie_there():
    images = data.load(Data(name="shapes-object", image_size=32, train_size=2, test_size=9), seed=0)[1]
    whole = object_cells(images.masks, images.mask_labels, (4, 4))
    for cells in read_object_cells(images, (4, 4)):
        assert cells.images == 9 and torch.equal(cells.image, whole.image)
        for name in ("inside", "valid"):
            assert torch.equal(getattr(cells, name), getattr(whole, name))
    with pytest.raises(ConfigError, match="at least one head, got 0"):
        references(whole, heads=0)


# ---- clips -------------------------------------------------------------------------------------------------------------------


def test_of_clips_every_frame_counts_and_components_reach_over_frames():
    """Against the measures of each frame by itself, and of each volume by itself."""
    clips = shapes.generate("object", 6, image_size=16, frames=3)
    similarity = torch.randn(4, 2, 3, 4, 4, generator=generator())
    chosen = torch.tensor([5, 0, 2, 3])
    found = map_metrics(similarity, clips, chosen)
    for place, index in enumerate(chosen.tolist()):
        frames = clips.subset([index]).by_frame()
        alone = map_metrics(similarity[place].transpose(0, 1), frames, torch.arange(3))
        for name in ("entropy", "components", "jaccard"):
            torch.testing.assert_close(found[name][place], alone[name].nanmean())
    volumes = similarity.flatten(0, 1)
    torch.testing.assert_close(found["clip_entropy"], map_entropy(volumes, axes=3).view(4, 2).mean(1))
    torch.testing.assert_close(found["clip_components"], component_counts(volumes, axes=3).view(4, 2).float().mean(1))
    assert set(found) == {"entropy", "components", "jaccard", "clip_entropy", "clip_components"}


def test_references_of_clips_are_those_of_their_frames():
    clips = shapes.generate("object", 6, image_size=16, frames=3)
    assert jaccard_references(clips, (4, 4), heads=3) == jaccard_references(clips.by_frame(), (4, 4), heads=3)


# ---- references --------------------------------------------------------------------------------------------------------------


def test_random_masks_are_seeded_and_keep_their_share():
    masks = random_masks(400, 3, (8, 8), seed=2)
    assert masks.shape == (400, 3, 8, 8) and torch.equal(masks, random_masks(400, 3, (8, 8), seed=2))
    assert not torch.equal(masks, random_masks(400, 3, (8, 8), seed=3))
    assert masks.float().mean().item() == pytest.approx(0.6, abs=0.01)


def test_centre_discs_grow_around_the_centre():
    discs = centre_discs((4, 6))
    sizes = [int(disc.sum()) for disc in discs]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 24
    assert discs[0].nonzero()[:, 2:].tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    for smaller, larger in itertools.pairwise(discs):
        assert (smaller <= larger).all() and torch.equal(larger, larger.flip(2, 3))
    assert centre_discs((3, 3))[0].sum() == 1
