"""Masks and objects pixel by pixel, for tests that count without cells."""

from __future__ import annotations

import torch
from torch import Tensor

from sarlib.data.images import Objects
from sarlib.data.voc import VOID


def upsample(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbours: (..., h, w) -> (..., H, W), `size` in pixels; every pixel takes the value of its token's cell."""
    rows, columns = (torch.arange(pixels) * cells // pixels for pixels, cells in zip(size, mask.shape[-2:], strict=True))
    return mask[..., rows[:, None], columns]


def class_map(objects: Objects) -> Tensor:
    """(H, W) int64: 0 background, 1 + label of the object that a pixel belongs to, 255 void."""
    of_objects = (objects.masks * (1 + objects.mask_labels)[:, None, None]).sum(0)
    return of_objects.masked_fill(objects.void, VOID)
