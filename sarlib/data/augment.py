"""Augmentation of whole batches where they live: crop, flip, RandAugment or colour jitter, erasing, mixup, cutmix, soft labels.

Two steps: `draw` takes every random number of a batch from one CPU generator, so that a batch is the same on every device; the
others apply what was drawn, without making the host wait for the device. Names, ranges, defaults and order are timm's and
torchvision's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sarlib.config import Augmentation, require
from sarlib.data import rand_augment
from sarlib.data.images import MEAN, STD, to_device

_PROPOSALS = 10  # of a random rectangle, before falling back
CROP_RATIO = (3 / 4, 4 / 3)
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)
_CUBIC = -0.5  # Pillow's a


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens to n images of S x S pixels; None where a step is off."""

    window: Tensor | None = None  # (n, 4) int64 x, y, width, height cut from the source; may reach into a reflected padding
    resized: bool = False  # is the window resized to the whole image, or as large as that?
    flip: Tensor | None = None  # (n,) bool, mirrored left to right
    choice: rand_augment.Choice | None = None
    colour: Tensor | None = None  # (n, 3) factors of brightness, contrast, saturation
    erased: Tensor | None = None  # (n, 4) int64 x, y, width, height filled with noise, width 0 for none
    noise: Tensor | None = None  # (3, S, S) standard normal
    mixing: Mixing | None = None

    def rows(self, rows: Tensor | slice) -> Plan:
        """The plan for some of the n images; `noise` and `mixing` stay those of the whole batch."""
        return self._with(lambda part: part[rows], "window", "flip", "choice", "colour", "erased")

    def to(self, device: torch.device) -> Plan:
        """The plan for images on `device`; `choice` and `erased` stay on the CPU, where they decide what is called."""
        return self._with(lambda part: to_device(part, device), "window", "flip", "colour", "noise")

    def _with(self, change: Callable, *names: str) -> Plan:
        parts = {name: getattr(self, name) for name in names}
        return dataclasses.replace(self, **{name: change(part) for name, part in parts.items() if part is not None})


@dataclass(frozen=True)
class Mixing:
    """Each image keeps `share` of itself; mixup (box None) blends in the rest, cutmix takes the partner's x0, y0, x1, y1."""

    share: float
    box: tuple[int, int, int, int] | None = None


def draw(n: int, *, augmentation: Augmentation, size: int, generator: Generator) -> Plan:
    """All random numbers of a batch of n images of size x size pixels."""
    plan = {}
    if augmentation.crop == "pad":
        padding = augmentation.crop_padding
        require(padding < size, f"crop_padding {padding} must be smaller than the image, {size} px")
        corner = torch.randint(2 * padding + 1, (n, 2), generator=generator) - padding
        plan["window"] = torch.cat([corner, torch.full((n, 2), size)], dim=1)
    elif augmentation.crop == "resized":
        plan["resized"] = True
        plan["window"] = rectangles(n, size, augmentation.crop_scale, CROP_RATIO, fallback=size, generator=generator)
    if augmentation.flip:
        plan["flip"] = torch.rand(n, generator=generator) < augmentation.flip
    if augmentation.rand_augment:
        policy = rand_augment.parse(augmentation.rand_augment)
        plan["choice"] = rand_augment.draw(n, policy=policy, generator=generator)
    elif augmentation.color_jitter:  # not both, as in timm
        low = max(0.0, 1 - augmentation.color_jitter)
        plan["colour"] = low + (1 + augmentation.color_jitter - low) * torch.rand(n, 3, generator=generator)
    if augmentation.erasing:
        erased = rectangles(n, size, _ERASED_AREA, _ERASED_RATIO, fallback=0, generator=generator)
        plan["erased"] = erased * (torch.rand(n, 1, generator=generator) < augmentation.erasing)
        # One field a batch: each image shows the part of it under its own rectangle.
        plan["noise"] = torch.randn(3, size, size, generator=generator)
    return Plan(**plan, mixing=draw_mixing(augmentation=augmentation, size=size, generator=generator))


def rectangles(n: int, size: int, area: tuple, ratio: tuple, *, fallback: int, generator: Generator) -> Tensor:
    """(n, 4) int64 x, y, width, height, uniform in share of the area, log of the aspect ratio, and position: the first of ten
    proposals that fits into the image; if none does, a square of `fallback` pixels."""
    share, aspect, across, down = torch.rand(4, n, _PROPOSALS, generator=generator, dtype=torch.float64)
    share = (area[0] + (area[1] - area[0]) * share) * size**2
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * aspect)
    width, height = (share * aspect).sqrt().round(), (share / aspect).sqrt().round()
    fits = (width <= size) & (height <= size) & (width > 0) & (height > 0)
    x, y = (across * (size - width + 1)).floor(), (down * (size - height + 1)).floor()
    chosen = torch.stack([x, y, width, height], dim=-1)[torch.arange(n), fits.int().argmax(1)].long()
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


def apply(pixels: Tensor, plan: Plan, *, out: Tensor | None = None) -> Tensor:
    """(n, 3, S, S) uint8 -> what the plan makes of it, normalised: (n, 3, S, S) float32, in `out` if given; on one device."""
    x = crop_and_flip(pixels, plan)
    if plan.choice is not None:
        x = rand_augment.apply(x, plan.choice)
    if plan.colour is not None:
        x = jitter(x.float(), plan.colour)
    blended = plan.mixing is not None and plan.mixing.box is None
    x = normalise(x, out=None if blended else out)
    if plan.erased is not None:
        erase(x, plan.erased, plan.noise)
    return x if plan.mixing is None else mix(x, plan.mixing, out=out)


def crop_and_flip(pixels: Tensor, plan: Plan, *, mode: str = "bicubic") -> Tensor:
    """(n, C, S, S) uint8 -> its windows, mirrored where planned, uint8; resized ones float32 in 0..255 without RandAugment, by
    `sampled` in this `mode`."""
    n, channels, size, _ = pixels.shape
    if plan.resized and plan.choice is None:
        return sampled(pixels, plan.window, plan.flip, mode=mode)
    if plan.resized:
        flip = torch.zeros_like(plan.window[:, 0], dtype=torch.bool) if plan.flip is None else plan.flip
        return (one_by_one if pixels.device.type == "cpu" else all_together)(pixels, plan.window, flip)
    if plan.window is None:
        return pixels if plan.flip is None else torch.where(plan.flip[:, None, None, None], pixels.flip(3), pixels)
    at = plan.window[:, :2, None] + torch.arange(size, device=pixels.device)
    columns, rows = (size - 1 - (size - 1 - at.abs()).abs()).unbind(1)  # reflected at the outermost pixels
    if plan.flip is not None:
        columns = torch.where(plan.flip[:, None], columns.flip(1), columns)
    at = (rows[:, :, None] * size + columns[:, None, :]).view(n, 1, size * size)
    return pixels.flatten(2).gather(2, at.expand(n, channels, size * size)).view_as(pixels)


def sampled(pixels: Tensor, window: Tensor, flip: Tensor | None, *, size: int | None = None, mode: str = "bicubic") -> Tensor:
    """Each image's window as a whole image, (n, 3, size, size) float32 in 0..255, bicubically from the 16 pixels around each
    point, or by grid_sample's other modes; without a `size` as large as the source."""
    side = pixels.shape[-1]
    x, y, width, height = (window.float() / side).unbind(1)
    across = width if flip is None else torch.where(flip, -width, width)
    zero = torch.zeros_like(x)
    # normalised output coordinates -> normalised source coordinates, both from -1 to 1 over the image
    affine = torch.stack([across, zero, 2 * x + width - 1, zero, height, 2 * y + height - 1], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [*pixels.shape[:2], size or side, size or side], align_corners=False)
    return F.grid_sample(pixels.float(), grid, mode=mode, padding_mode="border", align_corners=False).clamp_(0, 255)


def one_by_one(pixels: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    """Each image's window as the whole image, (n, 3, S, S) uint8, with Pillow's antialiased bicubic filter; for CPUs.

    `all_together` gives the same pixels, but for a level or two where the rounding differs: a CPU has a vectorised kernel for
    one image at a time, a GPU wants one product for the whole batch.
    """
    resized = torch.empty_like(pixels)
    for image, target, (x, y, width, height), mirrored in zip(pixels, resized, window.tolist(), flip.tolist(), strict=True):
        part = image[None, :, y : y + height, x : x + width]
        part = part.flip(3) if mirrored else part
        target.copy_(F.interpolate(part, size=target.shape[1:], mode="bicubic", antialias=True)[0])
    return resized


def all_together(pixels: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    """As `one_by_one`, for GPUs."""
    size = pixels.shape[-1]
    x, y, width, height = window.float().unbind(1)
    across = _weights(x, width, size)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    # Pillow keeps bytes between the two directions too
    wide = (pixels.float() @ across.mT[:, None]).round().clamp(0, 255)
    return (_weights(y, height, size)[:, None] @ wide).round().clamp(0, 255).to(torch.uint8)


def _weights(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """(n, size, size): what each of the `size` pixels of a side takes from each pixel of the source's side, whose windows begin
    at `start` (n,) and are `extent` (n,) pixels long."""
    at = torch.arange(size, device=start.device) + 0.5
    centre = start[:, None] + at * (extent / size)[:, None]
    distance = (at - centre[:, :, None]).abs()
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
    within = (at > start[:, None]) & (at < (start + extent)[:, None])
    weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0)) * within[:, None]
    return weight / weight.sum(-1, keepdim=True)


def jitter(x: Tensor, colour: Tensor) -> Tensor:
    """Brightness, contrast, saturation, in this order, of (n, 3, S, S) float32 in 0..255."""
    brightness, contrast, saturation = colour[:, :, None, None, None].unbind(1)
    x = (x * brightness).clamp_(0, 255)
    x = (grey(x).mean((2, 3), keepdim=True) * (1 - contrast) + x * contrast).clamp_(0, 255)
    return (grey(x) * (1 - saturation) + x * saturation).clamp_(0, 255)


def grey(x: Tensor) -> Tensor:
    """(n, 1, S, S) luma of ITU-R BT.601"""
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def normalise(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """0..255, uint8 or float -> float32 with ImageNet's mean 0 and standard deviation 1, (n, 3, H, W), into `out` if given.
    Of clips, (n, 3 T, H, W), every frame."""
    x = x.float()
    out = torch.empty_like(x) if out is None else out
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    factors = list(zip((-mean / std).tolist(), (1 / (255 * std)).tolist(), strict=True))
    # channel by channel with plain factors: three times faster on a CPU than with tensors of them
    for channel in range(x.shape[1]):
        shift, scale = factors[channel % 3]
        torch.add(x.new_full((), shift), x[:, channel], alpha=scale, out=out[:, channel])
    return out


def erase(x: Tensor, erased: Tensor, noise: Tensor) -> None:
    """Fill each image's rectangle with noise, in place (Zhong et al. 2020, "pixel" mode): x normalised (n, 3, S, S)."""
    for i, (left, top, width, height) in enumerate(erased.tolist()):
        if width:
            part = slice(None), slice(top, top + height), slice(left, left + width)
            x[i][part] = noise[part]


def mix(x: Tensor, mixing: Mixing, *, out: Tensor | None = None) -> Tensor:
    """Images x (n, 3, S, S) mixed with their partners: by mixup in a new tensor or `out`, by cutmix in place."""
    if mixing.box is None:
        return torch.mul(x, mixing.share, out=out).add_(_partners(x).mul_(1 - mixing.share))
    x0, y0, x1, y1 = mixing.box
    x[:, :, y0:y1, x0:x1] = _partners(x[:, :, y0:y1, x0:x1])
    return x


def _partners(x: Tensor) -> Tensor:
    """Neighbours swap, which keeps most pairs on one rank; the last of an odd number stays alone."""
    return x.index_select(0, (torch.arange(len(x), device=x.device) ^ 1).clamp_max(len(x) - 1))


def soft_labels(labels: Tensor, *, classes: int, smoothing: float, mixing: Mixing | None = None) -> Tensor:
    """(n,) int64 -> (n, classes) float32: `smoothing` goes from the label to all classes alike (Szegedy et al. 2016), and what
    `mixing` exchanges of the pixels goes to the partner's label."""
    return mixed_labels(F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes, mixing)


def mixed_labels(targets: Tensor, mixing: Mixing | None) -> Tensor:
    """Targets (n, ...) float32 of images that were mixed: of both partners, in the shares of their pixels."""
    return targets if mixing is None else targets * mixing.share + _partners(targets) * (1 - mixing.share)
