"""Ten common corruptions at five severities, after Hendrycks and Dietterich (2019), for images of any size.

Names and kinds are those of ImageNet-C. The strengths are ours, and lengths are shares of the image's side, as ImageNet-C's are
made for 224 px and leave nothing of small images. Errors under them belong in no column with errors on ImageNet-C.

A corrupted image is a function of its pixels, its place in the set, corruption, severity and seed, whatever the number of
threads: no sum is left to a library that may change its order. All severities draw the same random numbers.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sarlib.config import require, require_known
from sarlib.data.images import Images, to_bytes
from sarlib.data.released import CLEAN, SEVERITIES

_AT_A_TIME = 100  # images, so that float32 and its neighbours stay in the cache
_STEPS = 8  # places over which the smears are averaged


def each(images: Images) -> Iterator[tuple[str, Images]]:
    """CLEAN and the `images`, which are in memory; then every corruption and the images under it, by ascending severity."""
    yield CLEAN, images
    for name in CORRUPTIONS:
        for severity in range(1, SEVERITIES + 1):
            yield name, dataclasses.replace(images, pixels=corrupt(images.pixels, name, severity))


def corrupt(pixels: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """`pixels` (N, 3, H, W) uint8 under a corruption, of the same shape and type; severity 0 leaves them as they are.

    Raises `ConfigError` for an unknown name and a severity that is not 0 to 5.
    """
    require_known("corruption", name, CORRUPTIONS)
    require(0 <= severity <= SEVERITIES, f"severities are 0 (none) to {SEVERITIES}, got {severity}")
    if severity == 0:
        return pixels
    change, strengths = CORRUPTIONS[name]
    draws = np.random.default_rng((seed, list(CORRUPTIONS).index(name)))
    changed = (change(part.float() / 255, strengths[severity - 1], draws) for part in pixels.split(_AT_A_TIME))
    return torch.cat([(part * 255).round().clamp(0, 255).to(torch.uint8) for part in changed])


def _gaussian_noise(x: Tensor, deviation: float, draws: np.random.Generator) -> Tensor:
    return x + deviation * torch.from_numpy(draws.standard_normal(x.shape, dtype=np.float32))


def _shot_noise(x: Tensor, deviation: float, draws: np.random.Generator) -> Tensor:
    """The normal limit of counted photons: white has `deviation`, the variance falls with the light."""
    return x + deviation * x.sqrt() * torch.from_numpy(draws.standard_normal(x.shape, dtype=np.float32))


def _impulse_noise(x: Tensor, share: float, draws: np.random.Generator) -> Tensor:
    """A share of all values becomes 0 or 1."""
    drawn = torch.from_numpy(draws.random(x.shape, dtype=np.float32))
    return torch.where(drawn < share, (drawn < share / 2).float(), x)


def _defocus_blur(x: Tensor, radius: float, draws: np.random.Generator) -> Tensor:
    """A disc of `radius` sides of the image, whose edge fades over a pixel."""
    radius *= x.shape[-1]
    reach = math.ceil(radius)
    padded, total, weights = F.pad(x, [reach] * 4, mode="replicate"), torch.zeros_like(x), 0.0
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            weight = min(1.0, max(0.0, radius + 1 - math.hypot(i - reach, j - reach)))
            total += weight * padded[..., i : i + x.shape[-2], j : j + x.shape[-1]]
            weights += weight
    return total / weights


def _motion_blur(x: Tensor, length: float, draws: np.random.Generator) -> Tensor:
    """A smear of `length` sides of the image, in a direction of each image's own."""
    angle = torch.from_numpy(draws.random(len(x), dtype=np.float32)) * math.pi
    step = 2 * length * torch.stack([angle.cos(), angle.sin()], 1)  # the grid's width is 2
    return _mean_of_views(x, [(1.0, (place / (_STEPS - 1) - 0.5) * step) for place in range(_STEPS)])


def _zoom_blur(x: Tensor, most: float, draws: np.random.Generator) -> Tensor:
    """The mean over enlargements about the centre, by up to `most` times more."""
    return _mean_of_views(x, [(1 / (1 + most * place / (_STEPS - 1)), torch.zeros(len(x), 2)) for place in range(_STEPS)])


def _mean_of_views(x: Tensor, views: list[tuple[float, Tensor]]) -> Tensor:
    """The mean of the image seen at scales and shifts (N, 2), bilinearly; what lies outside repeats the border."""
    total = torch.zeros_like(x)
    for scale, shift in views:
        affine = torch.cat([torch.eye(2).expand(len(x), 2, 2) * scale, shift[:, :, None]], 2)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        total += F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return total / len(views)


def _brightness(x: Tensor, more: float, draws: np.random.Generator) -> Tensor:
    """Of hue, saturation and value, the value rises."""
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x / value.clamp(min=1e-6), torch.ones_like(x)) * (value + more).clamp(max=1)


def _contrast(x: Tensor, share: float, draws: np.random.Generator) -> Tensor:
    """A share of every difference from the image's mean colour is left."""
    mean = x.double().mean((-2, -1), keepdim=True).float()
    return mean + share * (x - mean)


def _pixelate(x: Tensor, share: float, draws: np.random.Generator) -> Tensor:
    """A share of the pixels a side, each a mean."""
    small = F.interpolate(x, size=[max(1, round(side * share)) for side in x.shape[-2:]], mode="area")
    return F.interpolate(small, size=x.shape[-2:], mode="nearest-exact")


def _jpeg_compression(x: Tensor, quality: int, draws: np.random.Generator) -> Tensor:
    coded = []
    for picture in (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        Image.fromarray(picture).save(file := io.BytesIO(), "JPEG", quality=quality)
        coded.append(to_bytes(Image.open(file)))
    return torch.stack(coded).float() / 255


#: By ImageNet-C's name: what it does, and the strength of each severity.
CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.09, 0.13, 0.18)),
    "shot_noise": (_shot_noise, (0.06, 0.09, 0.13, 0.18, 0.25)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.04, 0.07, 0.11)),
    "defocus_blur": (_defocus_blur, (0.006, 0.011, 0.017, 0.025, 0.035)),
    "motion_blur": (_motion_blur, (0.04, 0.06, 0.085, 0.115, 0.15)),
    "zoom_blur": (_zoom_blur, (0.08, 0.14, 0.2, 0.28, 0.38)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.75, 0.5, 0.35, 0.22, 0.12)),
    "pixelate": (_pixelate, (0.5, 0.42, 0.36, 0.31, 0.26)),
    "jpeg_compression": (_jpeg_compression, (50, 30, 18, 11, 7)),
}
