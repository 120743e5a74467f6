"""RandAugment of whole batches where they live (Cubuk et al. 2020), by timm's policy strings and with timm's operations.

As in `sarlib.data.augment`, `draw` takes all random numbers of a batch from a CPU generator, `apply` uses them. In each layer
the images that share an operation are put side by side and treated together; who shares one is known from what was drawn, which
stays on the CPU, so that nothing waits for the device. All is done as Pillow does it, in bytes.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as V

from sarlib.config import ConfigError, require
from sarlib.data.images import MEAN, to_device

if TYPE_CHECKING:
    from timm.data.auto_augment import RandAugment

#: The order is timm's, for `inc1` and for `inc0`: the names differ where the strength of an operation does.
INCREASING = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd",
    "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing",
    "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
_BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
PLAIN = tuple(name.removesuffix("Increasing") for name in INCREASING)

#: What shows where an image was moved away: the mean colour, as in timm's training transforms.
FILL = tuple(round(255 * mean) for mean in MEAN)

_FULL = 10.0  # the magnitude at which an operation has its full strength
_ROUNDING = 3e-4  # of an interpolated value, so that 100 - 1e-5 is 100 when it is cut off
_EXPECTED = "rand-m9-mstd0.5-inc1, or some of m (magnitude), n (layers), p (probability), mstd, mmax, inc after 'rand'"


@functools.cache
def parse(policy: str) -> RandAugment:
    """A policy such as rand-m9-mstd0.5-inc1, as timm reads it: m, n, p, mstd, mmax, inc in any order.

    `ConfigError` for anything else, timm's weighted and three-operation sets (t...) among it.
    """
    from timm.data.auto_augment import rand_augment_transform

    name, *sections = policy.split("-")
    strange = [part for part in sections if not re.fullmatch(r"(m|n|mmax|inc)\d+|(p|mstd)\d+(\.\d*)?", part)]
    if wrong := strange if name == "rand" else [name]:  # timm passes over some of them
        raise ConfigError(f"unknown part {wrong[0]!r} of the RandAugment policy {policy!r}: expected {_EXPECTED}")
    found = rand_augment_transform(policy, {"img_mean": FILL})
    require(found.ops[0].prob <= 1, f"p of the RandAugment policy {policy!r} is a probability: choose at most 1")
    return found


@dataclass(frozen=True)
class Choice:
    """What happens to n images in L layers, on the CPU."""

    operation: Tensor  # (n, L) int64, an index into `PLAIN`, -1 for none
    argument: Tensor  # (n, L) float64: degrees, bits, threshold, factor, or share of the side, as timm's operations take it

    def __getitem__(self, images: Tensor | slice) -> Choice:
        return Choice(self.operation[images], self.argument[images])


def draw(n: int, *, policy: RandAugment, generator: Generator) -> Choice:
    """All random numbers of n images."""
    shape, alike = (n, policy.num_layers), policy.ops[0]  # all operations have the same chance and magnitude
    operation = torch.randint(len(PLAIN), shape, generator=generator)
    applied = torch.rand(shape, generator=generator) < alike.prob
    if math.isinf(alike.magnitude_std):  # evenly from 0 to the magnitude
        magnitude = alike.magnitude * torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        magnitude = alike.magnitude + alike.magnitude_std * noise
    strength = magnitude.clamp(0, alike.magnitude_max or _FULL) / _FULL
    sign = 1 - 2 * torch.randint(2, shape, generator=generator).double()
    argument = torch.zeros(shape, dtype=torch.float64)
    for index, each in enumerate(policy.ops):
        if each.name in _ARGUMENTS:
            argument = torch.where(operation == index, _ARGUMENTS[each.name](strength, sign), argument)
    return Choice(torch.where(applied, operation, -1), argument)


#: What timm's level functions make of strengths s (1 is magnitude 10) and random signs; 0 for operations without an argument.
_ARGUMENTS = {
    "Rotate": lambda s, sign: sign * 30 * s,
    **dict.fromkeys(("ShearX", "ShearY"), lambda s, sign: sign * 0.3 * s),
    **dict.fromkeys(("TranslateXRel", "TranslateYRel"), lambda s, sign: sign * 0.45 * s),
    # timm's strongest posterisation keeps no bit, which current Pillow rejects: keep one
    "Posterize": lambda s, sign: (4 * s).floor().clamp(min=1),
    "PosterizeIncreasing": lambda s, sign: (4 - (4 * s).floor()).clamp(min=1),
    "Solarize": lambda s, sign: (256 * s).floor().clamp(max=256),
    "SolarizeIncreasing": lambda s, sign: 256 - (256 * s).floor().clamp(max=256),
    "SolarizeAdd": lambda s, sign: (110 * s).floor().clamp(max=128),
    **dict.fromkeys(_BLENDS, lambda s, sign: 0.1 + 1.8 * s),
    **dict.fromkeys((f"{name}Increasing" for name in _BLENDS), lambda s, sign: (1 + sign * 0.9 * s).clamp(min=0.1)),
}


def apply(pixels: Tensor, choice: Choice) -> Tensor:
    """(n, 3, S, S) uint8, each image through its layers one after the other, as a new tensor."""
    operation, order = choice.operation.sort(dim=0, stable=True)
    # in each layer images are taken from where the layer before left them, and at the end each goes to its own place
    own = torch.arange(len(pixels))[:, None]
    moves = torch.cat([own, order.argsort(dim=0)], dim=1).gather(0, torch.cat([order, own], dim=1))
    *moves, last = to_device(moves, pixels.device).unbind(1)
    arguments = to_device(choice.argument.gather(0, order), pixels.device)[..., None, None, None].unbind(1)
    for move, drawn, argument in zip(moves, operation.unbind(1), arguments, strict=True):
        pixels, start = pixels.index_select(0, move), 0
        for index, count in zip(*(part.tolist() for part in drawn.unique_consecutive(return_counts=True)), strict=True):
            alike, start = slice(start, start + count), start + count
            if index >= 0:
                pixels[alike] = _OPERATIONS[PLAIN[index]](pixels[alike], argument[alike])
    return pixels.index_select(0, last)


#: timm's operations on (k, 3, S, S) uint8 with arguments (k, 1, 1, 1) float64.
_OPERATIONS = {
    "AutoContrast": lambda x, a: _stretched(x),
    "Equalize": lambda x, a: V.equalize(x),
    "Invert": lambda x, a: 255 - x,
    "Rotate": lambda x, a: _rotated(x, a[:, 0]),
    "Posterize": lambda x, a: x & (256 - 2 ** (8 - a)).to(torch.uint8),
    "Solarize": lambda x, a: torch.where(x < a.to(torch.int16), x, 255 - x),
    "SolarizeAdd": lambda x, a: torch.where(x < 128, (x + a.to(torch.int16)).clamp(max=255), x),
    "Color": lambda x, a: _blended(_grey(x), x, a),
    "Contrast": lambda x, a: _blended(_mean_grey(x), x, a),
    "Brightness": lambda x, a: _blended(torch.zeros_like(a), x, a),
    "Sharpness": lambda x, a: _blended(_smoothed(x), x, a),
    "ShearX": lambda x, a: _shifted(x, _sheared(x, a)),
    "ShearY": lambda x, a: _shifted(x.mT.contiguous(), _sheared(x, a)).mT,
    "TranslateXRel": lambda x, a: _shifted(x, a[:, 0, 0] * x.shape[-1]),
    "TranslateYRel": lambda x, a: _shifted(x.mT.contiguous(), a[:, 0, 0] * x.shape[-1]).mT,
}


def _sheared(x: Tensor, a: Tensor) -> Tensor:
    """(k, S) float64: how far each row moves, by its middle's distance from the edge."""
    return a[:, 0, 0] * (torch.arange(x.shape[-1], dtype=torch.float64, device=x.device) + 0.5)


def _stretched(pixels: Tensor) -> Tensor:
    """Each channel's smallest value becomes 0 and its largest 255; unchanged where they are equal."""
    low, high = (end.double()[..., None] for end in torch.aminmax(pixels.flatten(2), dim=2))
    value = torch.arange(256, device=pixels.device)
    # Pillow divides, multiplies, adds and truncates in this order; a number over a tensor would be its inverse times the number
    scale = low.new_full((), 255) / (high - low).clamp(min=1)
    stretched = (value * scale + -low * scale).clamp(0, 255)
    tables = torch.where(high > low, stretched, value.double()).to(torch.uint8)
    first = 256 * torch.arange(3 * len(pixels), dtype=torch.int32, device=pixels.device).view(-1, 3, 1, 1)
    return tables.flatten().index_select(0, (pixels + first).flatten()).view_as(pixels)


def _blended(plain: Tensor, value: Tensor, factor: Tensor) -> Tensor:
    """plain + factor * (value - plain) as Pillow rounds it: in float32, then truncated. uint8."""
    plain = plain.float()
    return (plain + factor.float() * (value.float() - plain)).clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """(k, 1, S, S) int32: Pillow's luma of ITU-R BT.601 in 16-bit fixed point."""
    red, green, blue = pixels.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def _mean_grey(pixels: Tensor) -> Tensor:
    """(k, 1, 1, 1) float64, rounded to a whole number."""
    return (_grey(pixels).sum((1, 2, 3), keepdim=True).double() / pixels[0, 0].numel() + 0.5).floor()


def _smoothed(pixels: Tensor) -> Tensor:
    """Each pixel's mean with its 8 neighbours, itself counted five times; the outermost pixels stay. (k, 3, S, S) int16."""
    x = pixels.to(torch.int16)
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    inner = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * x[..., 1:-1, 1:-1]
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = (2 * inner + 13) // 26  # rounded to the nearest; 13 is odd, so there are no ties
    return smooth


def _shifted(pixels: Tensor, shift: Tensor) -> Tensor:
    """Row y of image i shows at x what was at x + shift[i, y], (k, S or 1) float64 in pixels: by a cubic with Pillow's a = -1
    over four neighbours in the row, which goes on with its outermost pixels."""
    size = pixels.shape[-1]
    shift = shift.clamp(-size, size)  # beyond that all is fill
    whole = shift.expand(-1, size).floor()
    near = torch.arange(-1, size + 2, device=pixels.device)
    at = (whole.long()[:, :, None] + near).clamp_(0, size - 1)  # (k, S, S + 3)
    row = pixels.gather(3, at[:, None].expand(-1, 3, -1, -1)).float()
    shift, part = (x.float()[:, None, :, None] for x in (shift, shift - whole))
    square, cube = part**2, part**3
    moved = row[..., :size] * (2 * square - cube - part)
    for tap, weight in enumerate((1 - 2 * square + cube, part + square - cube, cube - square), start=1):
        moved.addcmul_(row[..., tap : tap + size], weight)
    source = near[1:-2] + 0.5 + shift
    return _cut(moved.sub_(_fill(pixels.device)), (source >= 0) & (source < size))


def _rotated(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turned counter-clockwise by degrees (k, 1, 1); torch's cubic (a = -0.75) is a little softer than Pillow's (a = -1)."""
    size = pixels.shape[-1]
    cos, sin = degrees.deg2rad().cos().float(), degrees.deg2rad().sin().float()
    x = torch.arange(size, device=pixels.device) + 0.5 - size / 2
    y = x[:, None]
    across, down = cos * x - sin * y, sin * x + cos * y
    inside = (across.abs() < size / 2) & (down.abs() < size / 2)
    grid = torch.stack([across, down], dim=-1).mul_(2 / size)
    moved = F.grid_sample(pixels - _fill(pixels.device), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return _cut(moved, inside[:, None])


def _cut(beside_fill: Tensor, inside: Tensor) -> Tensor:
    """uint8 of values given as differences from the fill colour, which stays alone outside."""
    fill = _fill(beside_fill.device)
    return beside_fill.mul_(inside.float()).add_(fill + _ROUNDING).clamp_(0, 255).to(torch.uint8)


@functools.cache
def _fill(device: torch.device) -> Tensor:
    """(3, 1, 1) float32"""
    return to_device(torch.tensor(FILL, dtype=torch.float32), device)[:, None, None]
