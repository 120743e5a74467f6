"""Similarity maps that break weak component labelling or weak arithmetic, for any grid h x w."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter


def _spiral(h: int, w: int) -> np.ndarray:
    """One path that winds inwards and touches itself nowhere: the longest way between two pixels of one component."""
    mask = np.zeros((h, w), dtype=bool)
    top, left, bottom, right = 0, 0, h - 1, w - 1
    mask[0, :] = True
    while True:
        mask[top : bottom + 1, right] = True
        mask[bottom, left : right + 1] = True
        if bottom - top < 4 or right - left < 4:
            return mask
        mask[top + 2 : bottom + 1, left] = True
        mask[top + 2, left : right - 1] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2


def _snake(h: int, w: int) -> np.ndarray:
    """Every other row, joined at alternating ends."""
    mask = np.zeros((h, w), dtype=bool)
    mask[::2] = True
    mask[1:-1:4, -1] = True
    mask[3:-1:4, 0] = True
    return mask


def _comb(h: int, w: int) -> np.ndarray:
    """Teeth that meet only in the last row: labels that merge late."""
    mask = np.zeros((h, w), dtype=bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def _rings(h: int, w: int) -> np.ndarray:
    row, column = np.indices((h, w))
    depth = np.minimum(np.minimum(row, h - 1 - row), np.minimum(column, w - 1 - column))
    return depth % 2 == 0


def _indexed(rule: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[int, int], np.ndarray]:
    return lambda h, w: rule(*np.indices((h, w)))


MASKS = {
    "spiral": _spiral,
    "snake": _snake,
    "comb": _comb,
    "rings": _rings,
    "checkerboard": _indexed(lambda r, c: (r + c) % 2 == 0),
    "dots": _indexed(lambda r, c: (r % 2 == 0) & (c % 2 == 0)),
    "diagonals": _indexed(lambda r, c: (r - c) % 3 == 0),
    "steep diagonals": _indexed(lambda r, c: (2 * r - c) % 5 == 0),
    "stripes": _indexed(lambda r, c: c % 2 == 0),
    "one pixel": _indexed(lambda r, c: (r == r.max() // 2) & (c == c.max() // 3)),
    "corners": _indexed(lambda r, c: np.isin(r, (0, r.max())) & np.isin(c, (0, c.max()))),
    "wrapped edge": _indexed(lambda r, c: ((c == 0) & (r % 2 == 0)) | ((c == c.max()) & (r % 2 == 1))),
}


def masks(h: int, w: int) -> np.ndarray:
    """Foregrounds (N, h, w): every kind, mirrored both ways and inverted; the trivial ones left out."""
    kinds = [kind(h, w) for kind in MASKS.values()]
    kinds += [np.ascontiguousarray(mask[::-1]) for mask in kinds] + [np.ascontiguousarray(mask[:, ::-1]) for mask in kinds]
    kinds += [~mask for mask in kinds]
    return np.stack([mask for mask in kinds if mask.any() and not mask.all()])


def adversarial(h: int, w: int, *, seed: int = 0) -> np.ndarray:
    """float32 maps (N, h, w) whose foreground S > mean is exactly `masks(h, w)`, with differing values on it."""
    foreground = masks(h, w)
    noise = np.random.default_rng(seed).uniform(0, 1, foreground.shape)
    # Off the mask values are in [-1, 0], on it between 1 and 2 times what lifts them over the mean whatever the mask's share.
    return np.where(foreground, 2 + noise, -noise).astype(np.float32)


def degenerate(h: int, w: int) -> dict[str, np.ndarray]:
    """Maps (h, w) with zero or one component, or hardly any contrast, by name. The entropy of each is exactly 0."""
    row, column = np.indices((h, w))
    one_pixel = ((row == h // 2) & (column == w // 3)).astype(np.float32)
    return {
        "zero": np.zeros((h, w), np.float32),
        "equal": np.full((h, w), 0.1, np.float32),
        "equal, large": np.full((h, w), -3e30, np.float32),
        "one pixel": one_pixel,
        "all but the first pixel": ((row > 0) | (column > 0)).astype(np.float32),
        "half": (row >= h // 2).astype(np.float32) if h > 1 else (column >= w // 2).astype(np.float32),
        "ramp": (0.1 * row + 0.1 * column).astype(np.float32),
        "one pixel, offset": 1000 + one_pixel,
        "one pixel, subnormal": (1e-42 * one_pixel).astype(np.float32),
    }


def random_maps(n: int, h: int, w: int, *, seed: int = 0) -> np.ndarray:
    """float32 maps (n, h, w): white, smooth, coarsely quantised and offset noise in turn."""
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((n, h, w))
    maps[1::4] = gaussian_filter(maps[1::4], sigma=(0, 1.2, 1.2))
    maps[2::4] = np.round(maps[2::4])
    maps[3::4] = 0.02 * maps[3::4] + 5
    return maps.astype(np.float32)
