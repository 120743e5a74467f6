"""Views of whole batches where they live, for self-supervision: crop, flip, jitter, grey, blur, solarisation.

As in `augment`, `draw` takes every random number from one CPU generator and `apply` does what was drawn. Probabilities, ranges
and order are those of BYOL (Grill et al. 2020), as DINO's and MoCo-v3's released code has them. Three things differ: the four
jitters come in a fixed order, hue turns around the grey axis of RGB instead of HSV's, and blur is in proportion to the image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from sarlib.config import Augmentation, SelfSupervision
from sarlib.data import augment
from sarlib.data.images import Images, to_device
from sarlib.data.loader import TrainBatches

FLIPPED, JITTERED, GREY = 0.5, 0.8, 0.2
#: How far brightness, contrast and saturation may be from 1, and hue from 0, as a share of its circle.
JITTER = (0.4, 0.4, 0.2, 0.1)
SIGMA = (0.1, 2.0)  # of the blur, in pixels of an image of 224
#: Of the first global view, the second, and every local one.
BLURRED, SOLARIZED = (1.0, 0.1, 0.5), (0.0, 0.2, 0.0)


@dataclass(frozen=True)
class View:
    """What becomes of n images in one view of `size` pixels a side; jitter (1, 1, 1, 0) and blur 0 leave them as they are."""

    size: int
    window: Tensor  # (n, 4) int64 x, y, width, height cut from the source
    flipped: Tensor  # (n,) bool
    jitter: Tensor  # (n, 4) factors of brightness, contrast, saturation; turn of the hue
    grey: Tensor  # (n,) bool
    blur: Tensor  # (n,) standard deviation in pixels
    solarized: Tensor  # (n,) bool

    def each(self, change: Callable[[Tensor], Tensor]) -> View:
        _, *parts = (getattr(self, item.name) for item in dataclasses.fields(self))
        return View(self.size, *map(change, parts))


def draw(n: int, *, views: SelfSupervision, source: int, local_size: int, generator: Generator) -> list[View]:
    """All random numbers of a batch of n images of `source` pixels a side: two global views, then the local ones."""
    locals_ = [(local_size, views.local_scale, 2)] * views.local_crops
    drawn, middle = [], torch.tensor([1.0, 1.0, 1.0, 0.0])
    for size, scale, kind in [(source, views.global_scale, 0), (source, views.global_scale, 1), *locals_]:
        window = augment.rectangles(n, source, scale, augment.CROP_RATIO, fallback=source, generator=generator)
        flipped, jittered, grey, blurred, solarized, sigma = torch.rand(6, n, generator=generator)
        jitter = middle + (2 * torch.rand(n, 4, generator=generator) - 1) * torch.tensor(JITTER)
        jitter = torch.where(jittered[:, None] < JITTERED, jitter, middle)
        spread = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * sigma) * (source / 224) * (blurred < BLURRED[kind])
        drawn.append(View(size, window, flipped < FLIPPED, jitter, grey < GREY, spread, solarized < SOLARIZED[kind]))
    return drawn


def apply(pixels: Tensor, view: View, *, out: Tensor | None = None) -> Tensor:
    """(n, 3, S, S) uint8 -> that view of them, normalised: (n, 3, size, size) float32, in `out` if given; on one device."""
    x = augment.sampled(pixels, view.window, view.flipped, size=view.size)
    x = turn_hue(augment.jitter(x, view.jitter[:, :3]), view.jitter[:, 3])
    grey, solarized = (chosen[:, None, None, None] for chosen in (view.grey, view.solarized))
    x = blur(torch.where(grey, augment.grey(x), x), view.blur)
    return augment.normalise(torch.where(solarized & (x >= 128), 255 - x, x), out=out)


def turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colours (n, 3, H, W) in 0..255, turned around the grey axis by `turn` (n,) of a circle: a third makes red green."""
    angle = 2 * math.pi * turn[:, None, None]
    cross = x.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = torch.eye(3, device=x.device) * angle.cos() + (1 - angle.cos()) / 3 + cross * angle.sin()
    return (rotation @ x.flatten(2)).view_as(x).clamp_(0, 255)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Each of the images (n, 3, S, S) under a Gaussian of its own standard deviation, `sigma` (n,) pixels; 0 for none. Beyond
    the border there is nothing: the weights of what is inside sum to 1."""
    at = torch.arange(x.shape[-1], device=x.device)
    weights = torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma.clamp(min=1e-3)[:, None, None] ** 2))
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    return weights @ x @ weights.mT


class ViewBatches(TrainBatches):
    """Batches of views without labels: `TrainBatches` whose batch is (B, 2, 3, S, S) global views and, where there are any,
    (B, local_crops, 3, s, s) local ones, `local_size` pixels a side. Files are decoded to S x S first."""

    def __init__(self, images: Images, *, views: SelfSupervision, local_size: int, **settings: Any) -> None:
        super().__init__(images, augmentation=Augmentation(), **settings)
        self._views, self._local_size = views, local_size

    def _made(self, pixels: Tensor, index: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        sizes = {"source": self._size, "local_size": self._local_size}
        drawn = draw(self._batch, views=self._views, **sizes, generator=generator)
        drawn = [view.each(lambda part: part[self._rows]) for view in drawn]
        groups = [group for group in (drawn[:2], drawn[2:]) if group]
        batch = [self._empty(len(pixels), len(group), 3, group[0].size, group[0].size) for group in groups]

        def work(rows: slice) -> None:
            for images, group in zip(batch, groups, strict=True):
                for number, view in enumerate(group):
                    own = view.each(lambda part: to_device(part[rows], self._device))
                    apply(pixels[rows], own, out=images[rows, number])

        self._in_chunks(work, pixels)
        return tuple(batch)
