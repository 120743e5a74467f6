"""Windows of byte images resized to the whole image with Pillow's bicubic filter (a = -0.5), in bytes as Pillow does it.

Two ways to the same pixels, but for a level or two where the rounding differs: a CPU has a vectorised kernel for one image at a time, a
GPU wants one product for the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sarlib.data.placement import place

_CUBIC = -0.5


def resize_windows(pixels: Tensor, window: Tensor, flip: Tensor | None = None) -> Tensor:
    """(n, 3, S, S) uint8, of each image its window of (n, 4) x, y, width, height, mirrored left to right where `flip` (n,) says so; window
    and flip lie on the CPU -> (n, 3, S, S) uint8."""
    flip = torch.zeros(len(window), dtype=torch.bool) if flip is None else flip
    return one_by_one(pixels, window, flip) if pixels.device.type == "cpu" else all_together(pixels, window, flip)


def one_by_one(pixels: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    size = pixels.shape[-1]
    resized = torch.empty_like(pixels)
    drawn = zip(window.tolist(), flip.tolist(), strict=True)
    for image, target, ((x, y, width, height), mirrored) in zip(pixels.split(1), resized.split(1), drawn, strict=True):
        part = image[:, :, y : y + height, x : x + width]
        part = part.flip(3) if mirrored else part
        target.copy_(F.interpolate(part, size=(size, size), mode="bicubic", antialias=True))
    return resized


def all_together(pixels: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    x, y, width, height = place(window.float(), pixels.device).unbind(1)
    size = pixels.shape[-1]
    across = _weights(x, width, size)
    across = torch.where(place(flip, pixels.device)[:, None, None], across.flip(1), across)
    wide = pixels.float() @ across.mT[:, None]
    # Pillow keeps bytes between the two directions too
    return _to_bytes(_weights(y, height, size)[:, None] @ _to_bytes(wide).float())


def _weights(start: Tensor, extent: Tensor, size: int) -> Tensor:
    """(n, size, size): what each of the `size` pixels of a side takes from each pixel of the source's, the window being (n,) `extent`
    pixels from (n,) `start`; nothing from outside the window."""
    at = torch.arange(size, device=start.device) + 0.5
    centre = start[:, None] + at * (extent / size)[:, None]
    distance = (at - centre[:, :, None]).abs()
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
    weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    within = (at > start[:, None]) & (at < (start + extent)[:, None])
    weight = weight * within[:, None]
    return weight / weight.sum(-1, keepdim=True)


def _to_bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)
