"""Ten corruptions: nothing at severity 0, worse with every severity, the same bytes wherever they are made; each does what
its name says."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from sarlib.config import ConfigError
from sarlib.data import corruptions, shapes
from sarlib.data.corruptions import CORRUPTIONS, corrupt
from sarlib.data.released import ALEXNET

EACH = pytest.mark.parametrize("name", CORRUPTIONS)
SEVERITIES = range(6)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return shapes.generate("object", 20, image_size=64, stream="test").pixels


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Root mean square over each image's values."""
    return (one.float() - other.float()).square().mean((1, 2, 3)).sqrt()


def test_they_are_ten_of_imagenet_cs() -> None:
    assert len(CORRUPTIONS) == 10 and set(CORRUPTIONS) < set(ALEXNET)
    assert all(len(strengths) == 5 for _, strengths in CORRUPTIONS.values())


@EACH
def test_severity_0_is_the_identity_and_the_error_grows(pixels: Tensor, name: str) -> None:
    """On the mean over images, whatever their size."""
    assert torch.equal(corrupt(pixels, name, 0), pixels)
    for shown in (pixels, F.interpolate(pixels, size=32), F.interpolate(pixels[:2], size=224)):
        errors = torch.stack([distance(corrupt(shown, name, severity), shown) for severity in SEVERITIES])
        means = errors.mean(1)
        assert (means.diff() > 0).all(), means
        assert (errors[1:] > 2).all() and (errors[5] < 128).all(), "seen in every image, which is still there"


@EACH
def test_an_image_does_not_depend_on_those_after_it(pixels: Tensor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = corrupt(pixels, name, 3)
    assert whole.dtype == torch.uint8 and whole.shape == pixels.shape
    assert torch.equal(corrupt(pixels[:11], name, 3), whole[:11])
    monkeypatch.setattr(corruptions, "_AT_A_TIME", 7)
    assert torch.equal(corrupt(pixels, name, 3), whole)


DIGEST = """
import hashlib, torch
torch.set_num_threads(2)
from sarlib.data import corruptions, shapes
pixels = shapes.generate("object", 6, image_size=32, stream="test").pixels
for name in corruptions.CORRUPTIONS:
    for severity in (1, 5):
        print(hashlib.sha256(corruptions.corrupt(pixels, name, severity, seed=3).numpy().tobytes()).hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    pixels = shapes.generate("object", 6, image_size=32, stream="test").pixels
    made = [corrupt(pixels, name, severity, seed=3) for name in CORRUPTIONS for severity in (1, 5)]
    assert done.stdout.split() == [hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in made]
    random = [name for name in CORRUPTIONS if not torch.equal(corrupt(pixels, name, 2), corrupt(pixels, name, 2, seed=1))]
    assert random == ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur"]


def test_noise_has_the_moments_that_it_is_named_after() -> None:
    grey = torch.full((20, 3, 64, 64), 128, dtype=torch.uint8)
    for name, expected in (("gaussian_noise", 0.09), ("shot_noise", 0.13 * (128 / 255) ** 0.5)):
        noise = (corrupt(grey, name, 3).float() - 128) / 255
        assert abs(noise.mean()) < 0.002 and noise.std().item() == pytest.approx(expected, rel=0.02)
        assert abs(np.corrcoef(noise[:, :, :, 1:].ravel(), noise[:, :, :, :-1].ravel())[0, 1]) < 0.01
    hit = corrupt(grey, "impulse_noise", 3)
    assert set(hit.unique().tolist()) == {0, 128, 255}
    assert [(hit == value).float().mean().item() for value in (0, 255)] == pytest.approx([0.02, 0.02], abs=0.002)


def test_blurs_are_scipys_and_keep_what_is_flat(pixels: Tensor) -> None:
    flat = torch.full((2, 3, 40, 40), 77, dtype=torch.uint8)
    for name in ("defocus_blur", "motion_blur", "zoom_blur", "pixelate"):
        assert torch.equal(corrupt(flat, name, 5), flat), name
    radius = CORRUPTIONS["defocus_blur"][1][4] * 64
    offsets = np.hypot(*np.meshgrid(*[np.arange(-3, 4)] * 2))
    disc = np.clip(radius + 1 - offsets, 0, 1)
    expected = ndimage.convolve(pixels[0, 0].numpy().astype(float), disc / disc.sum(), mode="nearest")
    assert np.abs(corrupt(pixels[:1], "defocus_blur", 5)[0, 0].numpy() - expected).max() < 0.51


def test_a_smear_has_the_length_and_the_zoom_the_reach_that_are_declared() -> None:
    dot = torch.zeros(16, 3, 101, 101, dtype=torch.uint8)
    dot[:, :, 49:52, 49:52] = 255
    for severity, length in enumerate(CORRUPTIONS["motion_blur"][1], start=1):
        rows, columns = (corrupt(dot, "motion_blur", severity)[:, 0].amax(axis) > 0 for axis in (2, 1))
        reach = torch.stack([rows.sum(1), columns.sum(1)]).float().sub(3).norm(dim=0)
        assert (reach - length * 101).abs().max() < 3.1, "along its direction, but for the dot's corners"
    ring = torch.zeros(1, 3, 101, 101, dtype=torch.uint8)
    ring[..., 50, 70] = 255
    seen = corrupt(ring, "zoom_blur", 5)[0, 0, 50].nonzero()[:, 0]
    assert seen.min() == 70 and seen.max() == pytest.approx(50 + 20 * (1 + CORRUPTIONS["zoom_blur"][1][4]), abs=1.1)


def test_colour_and_coding(pixels: Tensor) -> None:
    import colorsys

    brighter = corrupt(pixels[:1], "brightness", 1)[0, :, 5, :8].T
    for before, after in zip(pixels[0, :, 5, :8].T.tolist(), brighter.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in before))
        expected = [255 * value for value in colorsys.hsv_to_rgb(h, s, min(1.0, v + 0.1))]
        assert after == pytest.approx(expected, abs=0.51)
    flatter = corrupt(pixels, "contrast", 2).float()
    mean = pixels.float().mean((2, 3), keepdim=True)
    assert (flatter - (mean + 0.5 * (pixels - mean))).abs().max() < 0.51
    blocks = corrupt(pixels, "pixelate", 1).float().unfold(2, 2, 2).unfold(3, 2, 2)
    assert (blocks.amax((-2, -1)) == blocks.amin((-2, -1))).all() and blocks[..., 0, 0].std() > 1


@pytest.mark.parametrize(("name", "severity"), [("fog", 1), ("contrast", 6), ("contrast", -1)])
def test_what_is_not_there_is_refused(pixels: Tensor, name: str, severity: int) -> None:
    with pytest.raises(ConfigError, match="unknown corruption 'fog'; choose from gaussian_noise|severities are 0"):
        corrupt(pixels, name, severity)
