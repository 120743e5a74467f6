"""Evaluation against the same measures written out image by image."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from pixelwise import upsample

from sarlib import config, models
from sarlib.config import ConfigError
from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches
from sarlib.entropy import component_counts, map_entropy
from sarlib.last_block import forward
from sarlib.tasks.classification import Classification
from sarlib.tasks.masks import jaccard_references, mass_mask

CPU = torch.device("cpu")


def photographs(n=14, *, classes=7, size=16, seed=0):
    """Random pictures; the objects are rectangles of whole 4-pixel cells; the last image shows none."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, 2, size, size, dtype=torch.bool)
    for mask in masks[:-1]:
        row, column = (4 * torch.randint(0, size // 4 - 1, (2,), generator=g)).tolist()
        mask[0, row : row + 8, column : column + 4] = True
        mask[1, :, column + 4 : column + 8] = True
    labels = torch.randint(0, classes, (n,), generator=g)
    mask_labels = torch.stack([labels, torch.randint(-1, classes, (n,), generator=g)], 1)
    return Images(
        labels=labels,
        classes=tuple("abcdefghij"[:classes]),
        pixels=torch.randint(0, 256, (n, 3, size, size), generator=g, dtype=torch.uint8),
        masks=masks,
        mask_labels=mask_labels,
        boxes=torch.zeros(n, 2, 4, dtype=torch.int64),
    )


def network(*, classes=7, variant="C", size=16):
    torch.manual_seed(0)
    declared = config.Model(patch_size=4, dim=24, depth=2, heads=3, variant=variant)
    model = models.create(declared, classes=classes, image_size=size)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def measure(model, images, **settings):
    return Classification(model).evaluate(images, **{"batch_size": 4, "image_size": 16, "device": CPU, **settings})


def object_overlap(mask, images, i):
    """Mean over the object classes of image `i` of the best head's IoU; None without objects. mask: (H, h, w)."""
    kept, scores = upsample(mask, images.masks.shape[-2:]), []
    for label in set(images.mask_labels[i].tolist()) - {-1}:
        truth = images.masks[i][images.mask_labels[i] == label].any(0)
        if truth.any():
            scores.append(max(((head & truth).sum() / (head | truth).sum()).item() for head in kept))
    return sum(scores) / len(scores) if scores else None


def test_every_measure_image_by_image():
    images, model = photographs(), network().eval()
    expected = {name: [] for name in ("top1", "top5", "loss", "entropy", "components", "jaccard")}
    with torch.no_grad():
        for x, indices in evaluation_batches(images, batch_size=1, image_size=16, device=CPU):
            (i,) = indices.tolist()
            logits, s, *_ = forward(model, x)
            ranking = logits[0].argsort(descending=True).tolist()
            label = images.labels[i].item()
            expected["top1"].append(100.0 * (ranking[0] == label))
            expected["top5"].append(100.0 * (label in ranking[:5]))
            expected["loss"].append(-logits[0].log_softmax(0)[label].item())
            expected["entropy"].append(map_entropy(s).mean().item())
            expected["components"].append(component_counts(s).double().mean().item())
            expected["jaccard"].append(object_overlap(mass_mask(s)[0], images, i))
    assert expected["jaccard"].pop() is None, "the last image shows no object and does not count"
    found = measure(model, images)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(sum(values) / len(values), rel=1e-5), name
    assert all(isinstance(value, float) for value in found.values())
    assert found["entropy"] > 0 and found["components"] >= 1 and 0 < found["jaccard"] < 1


def test_batch_size_does_not_matter():
    images, model = photographs(), network()
    whole = measure(model, images, batch_size=100)
    assert measure(model, images, batch_size=5) == pytest.approx(whole, rel=1e-5)


def test_accuracy_of_known_predictions():
    """A head that always ranks class 2 first and class 6 last."""
    images, model = photographs(40), network()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 2, 9, 3, 4, 5, 0]))
    found = measure(model, images)
    assert found["top1"] == pytest.approx(100 * (images.labels == 2).double().mean().item())
    assert found["top5"] == pytest.approx(100 * (images.labels != 6).double().mul(images.labels != 0).mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(model.head.bias.expand(40, -1), images.labels).item(), rel=1e-5)


def test_no_top5_among_five_classes_and_no_jaccard_without_masks():
    images = photographs(classes=5)
    assert "top5" not in measure(network(classes=5), images)
    bare = dataclasses.replace(images, masks=None, mask_labels=None, boxes=None)
    assert set(measure(network(classes=5), bare)) == {"top1", "loss", "entropy", "components"}
    assert jaccard_references(bare, (4, 4), heads=3) == {}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    """Evaluated without stochastic depth, back in its own mode afterwards, even after an error; no gradient is kept."""
    model = network().train(training)
    model.blocks[-1].mlp.drop1.p = 0.5
    assert measure(model, photographs()) == measure(model, photographs())
    assert model.training is training and model.blocks[-1].training is training
    assert all(p.grad is None for p in model.parameters())
    model.head = None
    with pytest.raises(TypeError):
        measure(model, photographs())
    assert model.training is training


def test_references_by_hand():
    """One 8 x 8 object in a corner of 16 x 16, and one that is a centred square."""
    images = photographs(2)
    masks = torch.zeros_like(images.masks)
    masks[0, 0, :8, :8] = True
    masks[1, 0, 4:12, 4:12] = True
    images = dataclasses.replace(images, masks=masks, mask_labels=torch.tensor([[0, -1], [1, -1]]))
    found = jaccard_references(images, (4, 4), heads=3)
    assert found["jaccard_all"] == pytest.approx(64 / 256)
    assert found["jaccard_best"] == 1.0
    # the four tokens at the centre: a quarter of the first object (1 / 7), all of the second
    assert found["jaccard_centre"] == pytest.approx((1 / 7 + 1) / 2)
    assert jaccard_references(images, (1, 1), heads=1)["jaccard_best"] == pytest.approx(64 / 256)
    masks = masks.clone()
    masks[:, 0] = True
    everywhere = dataclasses.replace(images, masks=masks)
    assert jaccard_references(everywhere, (4, 4), heads=3)["jaccard_centre"] == 1, "the largest disc is everything"


def test_more_random_heads_fit_better():
    images = photographs(200)
    scores = [jaccard_references(images, (4, 4), heads=heads)["jaccard_random"] for heads in (1, 3, 12)]
    assert scores == sorted(scores) and scores[0] < scores[-1] < jaccard_references(images, (4, 4), heads=1)["jaccard_best"]
    assert scores[1] == jaccard_references(images, (4, 4), heads=3)["jaccard_random"]
    with pytest.raises(ConfigError, match="at least one head"):
        jaccard_references(images, (4, 4), heads=0)
