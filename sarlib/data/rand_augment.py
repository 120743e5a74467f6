"""RandAugment of whole batches where they live (Cubuk et al. 2020), by timm's policy strings and with timm's operations.

As in the rest of the augmentation, `draw` takes all random numbers of a batch from a CPU generator and `apply` uses them. Images
that a layer treats alike are treated together: look-up tables for what maps each value of a channel by itself, a blend for what needs
more than one pixel or channel, shifts of rows, of columns, and rotation. Groups are made from what was drawn, which lies on the CPU, so
that nothing waits for the device.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Generator, Tensor

from sarlib.config import ConfigError
from sarlib.data.geometry import rotate, shift_rows
from sarlib.data.placement import place

#: The order is timm's, for `inc1` and for `inc0`: the names differ where the strength of an operation does.
INCREASING = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing",
    "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip
PLAIN = tuple(name.removesuffix("Increasing") for name in INCREASING)

#: What shows where an image was moved away: the mean colour, as in timm's training transforms.
FILL = tuple(round(255 * mean) for mean in IMAGENET_DEFAULT_MEAN)

_FULL = 10.0  # the magnitude at which an operation has its full strength
_UNIFORM_FROM = 100.0  # a larger mstd draws magnitudes evenly from 0 to m


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`layers` operations an image, each applied with `probability`, at `magnitude` of 10 with standard deviation `deviation`
    (infinite: evenly from 0 to `magnitude`), within 0 and `ceiling`."""

    magnitude: float = _FULL
    layers: int = 2
    probability: float = 0.5
    deviation: float = 0.0
    ceiling: float = _FULL
    increasing: bool = False

    @property
    def operations(self) -> tuple[str, ...]:
        """timm's names of what is chosen from."""
        return INCREASING if self.increasing else PLAIN


@functools.cache
def parse(policy: str) -> Policy:
    """A policy such as rand-m9-mstd0.5-inc1, read as timm reads it: m, n, p, mstd, mmax, inc in any order.

    `ConfigError` for anything else, timm's weighted and three-operation sets (t...) among it.
    """
    name, *sections = policy.split("-")
    settings = {}
    for section in sections:
        found = re.fullmatch(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d*)?)", section)
        whole = found and found[1] in ("m", "n", "mmax", "inc")
        if not found or (whole and not found[2].isdigit()):
            raise ConfigError(f"unknown part {section!r} of the RandAugment policy {policy!r}: expected {_EXPECTED}")
        settings[found[1]] = float(found[2])
    if name != "rand":
        raise ConfigError(f"unknown augmentation policy {policy!r}: expected {_EXPECTED}")
    deviation = settings.get("mstd", 0.0)
    parsed = Policy(
        magnitude=settings.get("m", _FULL),
        layers=int(settings.get("n", 2)),
        probability=settings.get("p", 0.5),
        deviation=math.inf if deviation > _UNIFORM_FROM else deviation,
        ceiling=settings.get("mmax") or _FULL,
        increasing=bool(settings.get("inc", 0)),
    )
    if parsed.probability > 1:
        raise ConfigError(f"p of the RandAugment policy {policy!r} is a probability: choose at most 1")
    return parsed


_EXPECTED = "rand-m9-mstd0.5-inc1, or some of m (magnitude), n (layers), p (probability), mstd, mmax, inc after 'rand'"


@dataclass(frozen=True)
class Choice:
    """What happens to n images in L layers, on the CPU.

    operation  (n, L) int64    an index into `PLAIN`, -1 for none
    argument   (n, L) float64  degrees, bits, threshold, factor, or share of the side, as timm hands it to the operation
    """

    operation: Tensor
    argument: Tensor

    def __getitem__(self, images: Tensor | slice) -> Choice:
        """The choice for some of the n images."""
        return Choice(self.operation[images], self.argument[images])


def draw(n: int, *, policy: Policy, generator: Generator) -> Choice:
    """All random numbers of n images."""
    shape = (n, policy.layers)
    operation = torch.randint(len(PLAIN), shape, generator=generator)
    applied = torch.rand(shape, generator=generator) < policy.probability
    if math.isinf(policy.deviation):
        magnitude = policy.magnitude * torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        magnitude = policy.magnitude + policy.deviation * noise
    strength = magnitude.clamp(0, policy.ceiling) / _FULL
    sign = 1 - 2 * torch.randint(2, shape, generator=generator).double()
    argument = torch.zeros(shape, dtype=torch.float64)
    for index, name in enumerate(policy.operations):
        argument = torch.where(operation == index, _argument(name, strength, sign), argument)
    return Choice(torch.where(applied, operation, -1), argument)


def _argument(name: str, strength: Tensor, sign: Tensor) -> Tensor:
    """What timm's level functions make of a strength (1 is magnitude 10) and a random sign."""
    match name:
        case "Rotate":
            return sign * 30 * strength
        case "ShearX" | "ShearY":
            return sign * 0.3 * strength
        case "TranslateXRel" | "TranslateYRel":
            return sign * 0.45 * strength
        case "Posterize" | "PosterizeIncreasing":
            bits = (4 * strength).floor()
            # timm's strongest posterisation keeps no bit, which current Pillow rejects: keep one
            return (4 - bits if name == "PosterizeIncreasing" else bits).clamp(min=1)
        case "Solarize" | "SolarizeIncreasing":
            threshold = (256 * strength).floor().clamp(max=256)
            return 256 - threshold if name == "SolarizeIncreasing" else threshold
        case "SolarizeAdd":
            return (110 * strength).floor().clamp(max=128)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return 0.1 + 1.8 * strength
        case "ColorIncreasing" | "ContrastIncreasing" | "BrightnessIncreasing" | "SharpnessIncreasing":
            return (1 + sign * 0.9 * strength).clamp(min=0.1)
        case _:
            return torch.zeros_like(strength)


def apply(pixels: Tensor, choice: Choice) -> Tensor:
    """(n, 3, S, S) uint8, each image through its layers one after the other, as a new tensor.

    Every layer brings the images that it treats alike side by side.
    """
    position = torch.arange(len(pixels))  # where each image is
    for operation, argument in zip(choice.operation.unbind(1), choice.argument.unbind(1), strict=True):
        order = _PLACE[operation].argsort(stable=True)
        pixels = pixels.index_select(0, place(position[order], pixels.device))
        position = order.argsort()
        spans = _spans(operation[order], argument[order])
        for names, treat in _TREATMENTS:
            alike = [span for span in spans if span.name in names]
            if alike:
                own = pixels[alike[0].start : alike[-1].stop]
                own.copy_(treat(own, alike))
    return pixels.index_select(0, place(position, pixels.device))


@dataclass(frozen=True)
class _Span:
    """Neighbouring images start:stop that have one operation; `argument` (k,) on the CPU."""

    name: str
    start: int
    stop: int
    argument: Tensor


def _spans(operation: Tensor, argument: Tensor) -> list[_Span]:
    spans, start = [], 0
    for index, count in zip(*(part.tolist() for part in operation.unique_consecutive(return_counts=True)), strict=True):
        name = PLAIN[index] if index >= 0 else "none"
        spans.append(_Span(name, start, start + count, argument[start : start + count]))
        start += count
    return spans


def _with_images(spans: list[_Span], pixels: Tensor) -> Iterator[tuple[_Span, Tensor]]:
    """Each span with its part of `pixels`, which begin where the first span does."""
    for span in spans:
        yield span, pixels[span.start - spans[0].start : span.stop - spans[0].start]


def _map(pixels: Tensor, spans: list[_Span]) -> Tensor:
    """Replace every value by what its image's and channel's table holds for it: pixels (k, 3, S, S) uint8."""
    tables = torch.cat([_tables(span, own).expand(-1, 3, -1) for span, own in _with_images(spans, pixels)])
    first = 256 * torch.arange(3 * len(pixels), dtype=torch.int32, device=pixels.device).view(-1, 3, 1, 1)
    return tables.flatten().index_select(0, (pixels + first).flatten()).view_as(pixels)


def _tables(span: _Span, pixels: Tensor) -> Tensor:
    """(k, 3 or 1, 256) uint8"""
    if span.name == "AutoContrast":
        return _stretched(pixels)
    if span.name == "Equalize":
        return _equalised(pixels)
    value = torch.arange(256, device=pixels.device)
    argument = place(span.argument, pixels.device)[:, None, None]
    match span.name:
        case "Invert":
            table = (255 - value).expand(len(pixels), 1, 256)
        case "Posterize":
            step = 2 ** (8 - argument)
            table = (value / step).floor() * step
        case "Solarize":
            table = torch.where(value < argument, value, 255 - value)
        case "SolarizeAdd":
            table = torch.where(value < 128, (value + argument).clamp(max=255), value)
        case "Contrast":
            return _blended(_mean_grey(pixels), value, argument)
        case "Brightness":
            return _blended(torch.zeros_like(value), value, argument)
    return table.to(torch.uint8)


def _stretched(pixels: Tensor) -> Tensor:
    """Tables that take each channel's smallest value to 0 and its largest to 255; unchanged where they are equal."""
    low, high = (end.double()[..., None] for end in torch.aminmax(pixels.flatten(2), dim=2))
    value = torch.arange(256, device=pixels.device)
    # Pillow divides, multiplies, adds and truncates in this order, and so must this: a number over a tensor would be its inverse times it
    scale = low.new_full((), 255) / (high - low).clamp(min=1)
    stretched = (value * scale + -low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, value.double()).to(torch.uint8)


def _equalised(pixels: Tensor) -> Tensor:
    """Tables that spread each channel's values evenly, in Pillow's whole numbers; unchanged where there are too few of them."""
    k = len(pixels)
    value = torch.arange(256, device=pixels.device)
    bins = pixels.reshape(3 * k, -1).long()
    count = torch.zeros(3 * k, 256, dtype=torch.int64, device=pixels.device)
    count.scatter_add_(1, bins, torch.ones((), dtype=torch.int64, device=pixels.device).expand_as(bins))
    largest = count.gather(1, pixels.reshape(3 * k, -1).amax(1, keepdim=True).long())  # how often the largest value occurs
    step = (bins.shape[1] - largest) // 255
    below = count.cumsum(1) - count
    table = (step // 2 + below) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp(max=255), value).to(torch.uint8).view(k, 3, 256)


def _blend(pixels: Tensor, spans: list[_Span]) -> Tensor:
    """Away from or towards the grey or the smoothed image: pixels (k, 3, S, S) uint8."""
    blended = []
    for span, own in _with_images(spans, pixels):
        plain = _grey(own) if span.name == "Color" else _smoothed(own)
        blended.append(_blended(plain, own, place(span.argument, pixels.device)[:, None, None, None]))
    return torch.cat(blended)


def _blended(plain: Tensor, value: Tensor, factor: Tensor) -> Tensor:
    """plain + factor * (value - plain) as Pillow rounds it: in float32, then truncated. uint8."""
    plain = plain.float()
    return (plain + factor.float() * (value.float() - plain)).clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """(k, 1, S, S) int32: Pillow's luma of ITU-R BT.601 in 16-bit fixed point."""
    red, green, blue = pixels.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def _mean_grey(pixels: Tensor) -> Tensor:
    """(k, 1, 1) float64, rounded to a whole number."""
    return (_grey(pixels).flatten(1).sum(1).double() / pixels[0, 0].numel() + 0.5).floor()[:, None, None]


def _smoothed(pixels: Tensor) -> Tensor:
    """Each pixel's mean with its 8 neighbours, itself counted five times; the outermost pixels stay. (k, 3, S, S) int16."""
    x = pixels.to(torch.int16)
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    inner = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * x[..., 1:-1, 1:-1]
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = (2 * inner + 13) // 26  # rounded to the nearest; 13 is odd, so there are no ties
    return smooth


def _move_rows(pixels: Tensor, spans: list[_Span]) -> Tensor:
    """Shear or translate from left to right: pixels (k, 3, S, S) uint8."""
    size = pixels.shape[-1]
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    shift = [
        span.argument[:, None] * (middle if span.name.startswith("Shear") else torch.full_like(middle, size)) for span in spans
    ]
    return shift_rows(pixels, torch.cat(shift), _fill(pixels.device))


def _move_columns(pixels: Tensor, spans: list[_Span]) -> Tensor:
    """Shear or translate from top to bottom."""
    return _move_rows(pixels.mT.contiguous(), spans).mT


def _rotate(pixels: Tensor, spans: list[_Span]) -> Tensor:
    return rotate(pixels, spans[0].argument, _fill(pixels.device))


def _fill(device: torch.device) -> Tensor:
    return place(torch.tensor(FILL, dtype=torch.float32), device)[:, None, None]


#: What a layer treats together, and how. Images are put side by side in this order, those that are left alone at the end.
_TREATMENTS = (
    (("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd", "Contrast", "Brightness"), _map),
    (("Color", "Sharpness"), _blend),
    (("ShearX", "TranslateXRel"), _move_rows),
    (("ShearY", "TranslateYRel"), _move_columns),
    (("Rotate",), _rotate),
)
_ORDER = (*(name for names, _ in _TREATMENTS for name in names), "none")
_PLACE = torch.tensor([_ORDER.index(name) for name in (*PLAIN, "none")])  # of each operation, and last of none (-1)
