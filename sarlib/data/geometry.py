"""Moving the pixels of byte images as Pillow does: bicubic, cut off to bytes, a fill colour where nothing lies.

Shearing and translating move rows (or columns) as a whole: four neighbours decide a pixel. Rotating needs sixteen.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sarlib.data.placement import place

_ROUNDING = 3e-4  # of an interpolated value, so that 100 - 1e-5 is 100 when it is cut off


def shift_rows(pixels: Tensor, shift: Tensor, fill: Tensor) -> Tensor:
    """Row y of image i shows at x what was at x + shift[i, y]: pixels (k, 3, S, S) uint8, shift (k, S) in pixels on the CPU, fill (3, 1, 1).

    Cubic with Pillow's a = -1 over the row, which goes on with its outermost pixels.
    """
    k, channels, size, _ = pixels.shape
    shift = shift.clamp(-size, size)  # beyond that all is fill
    margin = math.ceil(shift.abs().max().item()) + 2
    left, right = (edge.expand(-1, -1, -1, margin) for edge in (pixels[..., :1], pixels[..., -1:]))
    windows = torch.cat([left, pixels, right], dim=3).unfold(3, size + 3, 1)  # (k, 3, S, starts, S + 3)
    whole = shift.floor()
    start = place((whole.long() + margin - 1)[:, None], pixels.device)
    images, planes, rows = (torch.arange(n, device=pixels.device) for n in (k, channels, size))
    row = windows[images[:, None, None], planes[:, None], rows, start].float()
    shift, part = (place(x.float()[:, None, :, None], pixels.device) for x in (shift, shift - whole))
    weights = _cubic(part)
    moved = row[..., :size] * weights[0]
    for tap in (1, 2, 3):
        moved.addcmul_(row[..., tap : tap + size], weights[tap])
    at = rows + 0.5 + shift
    return _cut(moved.sub_(fill), (at >= 0) & (at < size), fill)


def _cubic(part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the pixels at -1, 0, 1 and 2 for a point at `part`, 0 to 1."""
    square, cube = part**2, part**3
    return 2 * square - cube - part, 1 - 2 * square + cube, part + square - cube, cube - square


def rotate(pixels: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Turned counter-clockwise about the centre: pixels (k, 3, S, S) uint8, degrees (k,) on the CPU, fill (3, 1, 1).

    torch's cubic (a = -0.75) is a little softer than Pillow's (a = -1).
    """
    size = pixels.shape[-1]
    angle = degrees.deg2rad()[:, None, None]
    cos, sin = (place(part.float(), pixels.device) for part in (angle.cos(), angle.sin()))
    x = torch.arange(size, device=pixels.device) + 0.5 - size / 2
    y = x[:, None]
    across, down = cos * x - sin * y, sin * x + cos * y
    inside = (across.abs() < size / 2) & (down.abs() < size / 2)
    grid = torch.stack([across, down], dim=-1).mul_(2 / size)
    moved = F.grid_sample(pixels - fill, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return _cut(moved, inside[:, None], fill)


def _cut(beside_fill: Tensor, inside: Tensor, fill: Tensor) -> Tensor:
    """uint8 of values given as differences from `fill`, which stays alone outside."""
    return beside_fill.mul_(inside.float()).add_(fill + _ROUNDING).clamp_(0, 255).to(torch.uint8)
