"""Views are functions of seed, epoch and step alone, and each of their steps is torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional as reference

from sarlib.config import SelfSupervision
from sarlib.data import views
from sarlib.data.images import MEAN, STD, Images
from sarlib.data.views import ViewBatches

SIZE, SMALL = 16, 8
VIEWS = SelfSupervision(out_dim=8, hidden=8, temperature=0.1, momentum=0.9, local_crops=3)


def batches(images, **settings):
    settings = {
        "views": VIEWS,
        "local_size": SMALL,
        "batch_size": 12,
        "image_size": SIZE,
        "seed": 3,
        "device": "cpu",
    } | settings
    return ViewBatches(images, **settings)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (30, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return Images(labels=torch.arange(30) % 3, classes=("a", "b", "c"), pixels=pixels)


@pytest.fixture
def x():
    return 255 * torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_step_depends_on_seed_epoch_and_step_alone(images):
    """Also when it is the first after a resume; and shapes are those of two global views and the local ones."""
    torch.manual_seed(1)
    whole = list(batches(images).epoch(2))
    state = torch.get_rng_state()
    (resumed,) = batches(images).epoch(2, start=1)
    assert len(whole) == 2 and same(whole[1], resumed) and torch.equal(torch.get_rng_state(), state)
    assert [tuple(part.shape) for part in resumed] == [(12, 2, 3, SIZE, SIZE), (12, 3, 3, SMALL, SMALL)]
    assert not same(whole[1], next(batches(images).epoch(3, start=1))), "another epoch, other crops of other images"
    assert not same(whole[1], next(batches(images, seed=4).epoch(2, start=1)))


def test_two_ranks_see_the_views_of_one(images, monkeypatch):
    (whole, _), shares = batches(images).epoch(0), [next(batches(images, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    assert same(whole, [torch.cat(parts) for parts in zip(*shares, strict=True)])
    monkeypatch.setattr("sarlib.data.loader._CHUNK", 1)
    assert same(whole, next(batches(images).epoch(0))), "however many images are made at a time"


def test_without_local_crops_a_batch_is_its_global_views(images):
    plain = SelfSupervision(out_dim=8, hidden=8, temperature=0.1, momentum=0.9)
    (batch,) = next(batches(images, views=plain).epoch(0))
    assert batch.shape == (12, 2, 3, SIZE, SIZE)


def view(n, size, **changes):
    whole = torch.tensor([[0, 0, size, size]]).repeat(n, 1)
    off = torch.zeros(n, dtype=torch.bool)
    still = {"jitter": torch.tensor([[1.0, 1, 1, 0]]).repeat(n, 1), "blur": torch.zeros(n), "grey": off, "solarized": off}
    return views.View(size=size, window=whole, **({"flipped": off} | still | changes))


def shown(pixels, **changes):
    """The view of (n, 3, S, S) bytes, brought back to 0..255."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return 255 * (views.apply(pixels, view(len(pixels), pixels.shape[-1], **changes)) * std + mean)


def test_each_step_is_torchvisions(images):
    pixels, every = images.pixels[:4], torch.ones(4, dtype=torch.bool)
    expected = {
        "grey": reference.rgb_to_grayscale(pixels.float(), num_output_channels=3),
        "solarized": reference.solarize(pixels, 128).float(),
        "flipped": reference.hflip(pixels).float(),
    }
    torch.testing.assert_close(shown(pixels), pixels.float(), atol=1e-3, rtol=0)
    for name, wanted in expected.items():
        torch.testing.assert_close(shown(pixels, **{name: every}), wanted, atol=0.05, rtol=0, msg=name)


def test_each_image_has_its_own_steps(images):
    only = torch.tensor([False, True, False, True])
    found, plain = shown(images.pixels[:4], solarized=only, blur=only * 1.0), shown(images.pixels[:4])
    changed = (found - plain).abs().amax((1, 2, 3)) > 1
    assert changed.tolist() == only.tolist()


def test_blur_is_torchvisions_away_from_the_border(x):
    sigma = torch.tensor([0.3, 0.7, 1.2, 0.0])
    found = views.blur(x, sigma)
    for image, blurred, width in zip(x[:3], found, sigma.tolist()):
        wanted = reference.gaussian_blur(image, kernel_size=15, sigma=width)
        torch.testing.assert_close(blurred[:, 8:-8, 8:-8], wanted[:, 8:-8, 8:-8], atol=0.01, rtol=0)
    assert torch.equal(found[3], x[3]), "without a blur nothing is rounded"
    torch.testing.assert_close(views.blur(torch.full_like(x, 7.0), sigma), torch.full_like(x, 7.0))


def test_hue_turns_as_torchvisions_where_a_turn_exchanges_colours(x):
    thirds = views.turn_hue(x, torch.tensor([1 / 3, -1 / 3, 0.0, 0.1]))
    torch.testing.assert_close(thirds[0], x[0].roll(1, dims=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(thirds[0] / 255, reference.adjust_hue(x[0] / 255, 1 / 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(thirds[1] / 255, reference.adjust_hue(x[1] / 255, -1 / 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(thirds[2], x[2], atol=1e-4, rtol=0)
    pale, some = 120 + 0.1 * x, torch.tensor([0.1, -0.03, 0.05, 0.08])
    turned = views.turn_hue(pale, some)
    torch.testing.assert_close(turned.mean(1), pale.mean(1), atol=1e-3, rtol=0)
    torch.testing.assert_close(views.turn_hue(turned, -some), pale, atol=1e-3, rtol=0)
    assert (turned - pale).abs().amax((1, 2, 3)).min() > 0.5


def test_what_is_drawn_has_byols_frequencies_and_ranges():
    settings = {"views": VIEWS, "source": 224, "local_size": 96, "generator": torch.Generator().manual_seed(0)}
    first, second, *small = views.draw(4000, **settings)
    assert [each.size for each in (first, second, *small)] == [224, 224, 96, 96, 96]
    for each, blurred, solarized in ((first, 1.0, 0.0), (second, 0.1, 0.2), (small[1], 0.5, 0.0)):
        frequencies = [part.float().mean().item() for part in (each.flipped, each.grey, each.blur > 0, each.solarized)]
        assert frequencies == pytest.approx([0.5, 0.2, blurred, solarized], abs=0.03)
        jittered = (each.jitter != torch.tensor([1.0, 1, 1, 0])).any(1)
        assert jittered.float().mean().item() == pytest.approx(0.8, abs=0.03)
        low, high = each.jitter[jittered].aminmax(dim=0)
        torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.8, -0.1]), atol=0.01, rtol=0)
        torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.2, 0.1]), atol=0.01, rtol=0)
        low, high = each.blur[each.blur > 0].aminmax()
        assert (low.item(), high.item()) == pytest.approx((0.1, 2.0), abs=0.03)
    for each, (low, high) in ((first, VIEWS.global_scale), (small[0], VIEWS.local_scale)):
        share = each.window[:, 2:].prod(1) / 224**2
        assert low - 0.01 < share.min() < low + 0.02 and high - 0.05 < share.max() <= high + 0.01
