"""Augmentation of whole batches where they live: crop, flip, RandAugment or colour jitter, erasing, mixup, cutmix, soft labels.

Two steps: `draw` takes every random number of a batch from one CPU generator, so that a batch is the same on every device;
the other functions apply what was drawn, without making the host wait for the device. Names, ranges, defaults and order are timm's and
torchvision's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Generator, Tensor

from sarlib.config import Augmentation, ConfigError
from sarlib.data import rand_augment
from sarlib.data.placement import place
from sarlib.data.resize import resize_windows

_PROPOSALS = 10  # of a random rectangle, before falling back
_CROP_RATIO = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens to n images of size x size pixels; None where a step is off. All tensors on the CPU.

    window  (n, 4) int64    x, y, width, height cut from the source; x and y may reach into the reflected padding
    flip    (n,) bool       mirrored left to right
    choice                  RandAugment's operations
    colour  (n, 3)          factors of brightness, contrast, saturation
    erased  (n, 4) int64    x, y, width, height filled with noise, width 0 for none
    noise   (3, size, size) standard normal
    mixing  what images exchange with their partners
    """

    window: Tensor | None = None
    flip: Tensor | None = None
    choice: rand_augment.Choice | None = None
    colour: Tensor | None = None
    erased: Tensor | None = None
    noise: Tensor | None = None
    mixing: Mixing | None = None

    def rows(self, rows: Tensor | slice) -> Plan:
        """The plan for some of the n images; `mixing` stays that of the whole batch."""
        parts = {name: getattr(self, name) for name in ("window", "flip", "choice", "colour", "erased")}
        return dataclasses.replace(self, **{name: part[rows] for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class Mixing:
    """Each image keeps `share` of itself; mixup (box None) blends in the rest, cutmix takes the partner's x0, y0, x1, y1."""

    share: float
    box: tuple[int, int, int, int] | None = None


def draw(n: int, *, augmentation: Augmentation, size: int, generator: Generator) -> Plan:
    """All random numbers of a batch of n images of size x size pixels."""
    plan = {}
    if augmentation.crop == "pad":
        if augmentation.crop_padding >= size:
            raise ConfigError(f"crop_padding {augmentation.crop_padding} must be smaller than the image, {size} px")
        corner = torch.randint(2 * augmentation.crop_padding + 1, (n, 2), generator=generator) - augmentation.crop_padding
        plan["window"] = torch.cat([corner, torch.full((n, 2), size)], dim=1)
    elif augmentation.crop == "resized":
        area = augmentation.crop_scale
        plan["window"] = _rectangles(n, size=size, area=area, ratio=_CROP_RATIO, fallback=size, generator=generator)
    if augmentation.flip:
        plan["flip"] = torch.rand(n, generator=generator) < augmentation.flip
    if augmentation.rand_augment:
        policy = rand_augment.parse(augmentation.rand_augment)
        plan["choice"] = rand_augment.draw(n, policy=policy, generator=generator)
    elif augmentation.color_jitter:  # not both, as in timm
        low = max(0.0, 1 - augmentation.color_jitter)
        plan["colour"] = low + (1 + augmentation.color_jitter - low) * torch.rand(n, 3, generator=generator)
    if augmentation.erasing:
        erased = _rectangles(n, size=size, area=_ERASED_AREA, ratio=_ERASED_RATIO, fallback=0, generator=generator)
        hit = torch.rand(n, 1, generator=generator) < augmentation.erasing
        plan["erased"] = erased * hit
        # One field a batch: each image shows the part of it under its own rectangle.
        plan["noise"] = torch.randn(3, size, size, generator=generator)
    return Plan(**plan, mixing=draw_mixing(augmentation=augmentation, size=size, generator=generator))


def _rectangles(
    n: int, *, size: int, area: tuple[float, float], ratio: tuple[float, float], fallback: int, generator: Generator
) -> Tensor:
    """(n, 4) int64 x, y, width, height: share of the area uniform, log of the aspect ratio uniform, position uniform.

    The first of ten proposals that fits into the image; if none does, a square of `fallback` pixels.
    """
    share, aspect, across, down = torch.rand(4, n, _PROPOSALS, generator=generator, dtype=torch.float64)
    share = (area[0] + (area[1] - area[0]) * share) * size**2
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * aspect)
    width, height = (share * aspect).sqrt().round(), (share / aspect).sqrt().round()
    fits = (width <= size) & (height <= size) & (width > 0) & (height > 0)
    corner = [(across * (size - width + 1)).floor(), (down * (size - height + 1)).floor()]
    proposals = torch.stack([*corner, width, height], dim=-1)
    chosen = proposals[torch.arange(n), fits.int().argmax(1)].long()
    return torch.where(fits.any(1, keepdim=True), chosen, torch.tensor([0, 0, fallback, fallback]))


def draw_mixing(*, augmentation: Augmentation, size: int, generator: Generator) -> Mixing | None:
    """One mixup or cutmix for a whole batch, as timm's `Mixup` does in batch mode (Zhang et al. 2018; Yun et al. 2019)."""
    if not (augmentation.mixup or augmentation.cutmix):
        return None
    both = augmentation.mixup > 0 and augmentation.cutmix > 0
    switch = torch.rand((), generator=generator).item() < augmentation.mix_switch
    cutmix = switch if both else augmentation.cutmix > 0
    alpha = augmentation.cutmix if cutmix else augmentation.mixup
    # torch has no Beta distribution that takes a generator: let one draw of it seed numpy's.
    share = np.random.default_rng(torch.randint(2**62, (), generator=generator).item()).beta(alpha, alpha)
    if not cutmix:
        return Mixing(share)
    side = int(size * math.sqrt(1 - share))
    x, y = torch.randint(size, (2,), generator=generator).tolist()
    box = tuple(min(max(at, 0), size) for at in (x - side // 2, y - side // 2, x + side // 2, y + side // 2))
    return Mixing(1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2, box)


def partners(n: int) -> Tensor:
    """(n,) int64: whom each image of a batch is mixed with. Neighbours swap; the last of an odd batch stays alone.

    A batch is a random permutation already, so which pairing is used does not matter; this one keeps most pairs on one rank.
    """
    pair = torch.arange(n) ^ 1
    return pair.clamp_max(n - 1)


def apply(pixels: Tensor, plan: Plan, *, resized: bool, other: Tensor, out: Tensor | None = None) -> Tensor:
    """(n, 3, S, S) uint8 -> what the plan makes of it, normalised: (n, 3, S, S) float32, in `out` if given.

    `other` (n,), on the device, says where among the n images each one's mixing partner is.
    """
    x = crop_and_flip(pixels, plan, resized=resized)
    if plan.choice is not None:
        x = rand_augment.apply(x, plan.choice)
    if plan.colour is not None:
        x = jitter(x.float(), plan.colour)
    blended = plan.mixing is not None and plan.mixing.box is None
    x = normalise(x, out=None if blended else out)
    if plan.erased is not None:
        erase(x, plan.erased, plan.noise)
    return x if plan.mixing is None else mix(x, other, plan.mixing, out=out)


def crop_and_flip(pixels: Tensor, plan: Plan, *, resized: bool) -> Tensor:
    """(n, 3, S, S) uint8 -> its windows, mirrored where planned, (n, 3, S, S) uint8; float32 in 0..255 when `resized`, except ahead of
    RandAugment, which works on bytes."""
    if resized and plan.choice is None:
        return _resize_windows(pixels, plan)
    if resized:
        return resize_windows(pixels, plan.window, plan.flip)
    if plan.window is None:
        return _flip(pixels, plan)
    n, channels, size, _ = pixels.shape
    at = torch.arange(size, device=pixels.device)
    x, y = place(plan.window[:, :2], pixels.device).unbind(1)
    rows, columns = _mirrored(at + y[:, None]), _mirrored(at + x[:, None])
    if plan.flip is not None:
        columns = torch.where(place(plan.flip, pixels.device)[:, None], columns.flip(1), columns)
    at = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, size * size)
    return pixels.flatten(2).gather(2, at.expand(n, channels, size * size)).view_as(pixels)


def _flip(pixels: Tensor, plan: Plan) -> Tensor:
    if plan.flip is None:
        return pixels
    flipped = place(plan.flip.nonzero()[:, 0], pixels.device)
    return pixels.index_copy(0, flipped, pixels.index_select(0, flipped).flip(3))


def _mirrored(at: Tensor) -> Tensor:
    """Positions up to size - 1 outside an axis (n, size), reflected back into it at its outermost pixels."""
    last = at.shape[1] - 1
    return last - (last - at.abs()).abs()


def _resize_windows(pixels: Tensor, plan: Plan) -> Tensor:
    """Resize each image's window to the whole image, bicubically."""
    size = pixels.shape[-1]
    x, y, width, height = (place(plan.window.float(), pixels.device) / size).unbind(1)
    across = width if plan.flip is None else torch.where(place(plan.flip, pixels.device), -width, width)
    zero = torch.zeros_like(x)
    # normalised output coordinates -> normalised source coordinates, both from -1 to 1 over the image
    affine = torch.stack([across, zero, 2 * x + width - 1, zero, height, 2 * y + height - 1], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode="bicubic", padding_mode="border", align_corners=False).clamp_(0, 255)


def jitter(x: Tensor, colour: Tensor) -> Tensor:
    """Brightness, contrast, saturation, in this order, of (n, 3, S, S) float32 in 0..255."""
    brightness, contrast, saturation = place(colour, x.device)[:, :, None, None, None].unbind(1)
    x = (x * brightness).clamp_(0, 255)
    x = (_grey(x).mean((2, 3), keepdim=True) * (1 - contrast) + x * contrast).clamp_(0, 255)
    return (_grey(x) * (1 - saturation) + x * saturation).clamp_(0, 255)


def _grey(x: Tensor) -> Tensor:
    """(n, 1, S, S) luma of ITU-R BT.601"""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def normalise(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """0..255, uint8 or float -> float32 with ImageNet's mean 0 and standard deviation 1, (n, 3, H, W), into `out` if given."""
    x = x.float()
    out = torch.empty_like(x) if out is None else out
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    # channel by channel with plain factors: three times faster on a CPU than with tensors of them
    for channel, (shift, scale) in enumerate(zip((-mean / std).tolist(), (1 / (255 * std)).tolist(), strict=True)):
        torch.add(x.new_full((), shift), x[:, channel], alpha=scale, out=out[:, channel])
    return out


def erase(x: Tensor, erased: Tensor, noise: Tensor) -> None:
    """Fill each image's rectangle with noise, in place (Zhong et al. 2020, "pixel" mode): x normalised (n, 3, S, S)."""
    hit = erased[:, 2].nonzero()[:, 0]
    left, top, width, height = place(erased[hit], x.device)[:, :, None].unbind(1)
    at = torch.arange(x.shape[-1], device=x.device)
    columns = (at >= left) & (at < left + width)
    rows = (at >= top) & (at < top + height)
    hit = place(hit, x.device)
    filled = torch.where((rows[:, :, None] & columns[:, None, :])[:, None], place(noise, x.device), x.index_select(0, hit))
    x.index_copy_(0, hit, filled)


def mix(x: Tensor, other: Tensor, mixing: Mixing, *, out: Tensor | None = None) -> Tensor:
    """Images x (n, 3, S, S) mixed with their partners x[other]: by mixup in a new tensor or `out`, by cutmix in place."""
    if mixing.box is None:
        return torch.mul(x, mixing.share, out=out).add_(x.index_select(0, other).mul_(1 - mixing.share))
    x0, y0, x1, y1 = mixing.box
    x[:, :, y0:y1, x0:x1] = x[:, :, y0:y1, x0:x1].index_select(0, other)
    return x


def soft_labels(labels: Tensor, *, classes: int, smoothing: float) -> Tensor:
    """(n,) int64 -> (n, classes) float32: `smoothing` goes from the label to all classes alike (Szegedy et al. 2016)."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix_labels(target: Tensor, other: Tensor, mixing: Mixing) -> Tensor:
    """(n, classes): each image's target and its partner's in the shares that `mix` gives their pixels."""
    return target * mixing.share + target.index_select(0, other) * (1 - mixing.share)
