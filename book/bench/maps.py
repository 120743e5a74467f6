"""Similarity maps to measure on: noise, blobs as attention has them, and the shapes that are hardest to label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

#: Width of a blob of the smooth maps, in tokens (standard deviation of the Gaussian).
SMOOTHNESS = 1.5

#: No pixel is nearer to its map's mean than this, in standard deviations. A pixel that close is foreground or not depending on
#: how the mean is rounded, and the 1e-9 that the released algorithm adds to it would show: the sides would rightly differ.
MARGIN = 1e-4


def similarity_maps(kind: str, *, images: int, heads: int, grid: int, seed: int = 0) -> Tensor:
    """Maps (images, heads, grid, grid), float32, of one kind in `KINDS`, the same for the same seed."""
    rng = np.random.default_rng([seed, *kind.encode()])
    wanted, maps = images * heads, np.empty((0, grid, grid))
    while len(maps) < wanted:
        drawn = KINDS[kind](rng, wanted - len(maps), grid)
        distance = np.abs(drawn - drawn.mean(axis=(1, 2), keepdims=True)).min(axis=(1, 2))
        maps = np.concatenate([maps, drawn[distance > MARGIN * drawn.std(axis=(1, 2))]])
    return torch.from_numpy(maps.astype(np.float32)).view(images, heads, grid, grid)


def _random(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    return rng.standard_normal((n, k, k))


def _smooth(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    maps = gaussian_filter(rng.standard_normal((n, k, k)), sigma=(0, SMOOTHNESS, SMOOTHNESS))
    return maps / maps.std()


def _adversarial(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """The foregrounds below in turn, turned at random, with differing values on them and around them."""
    upright = [shape(k) for shape in (spiral, comb, snake, checkerboard, dots, diagonals)]
    shapes = [np.rot90(shape, quarter) for shape in upright for quarter in range(4)]
    foreground = np.stack([shapes[i] for i in rng.integers(len(shapes), size=n)])
    return np.where(foreground, 2 + rng.uniform(0, 1, foreground.shape), -rng.uniform(0, 1, foreground.shape))


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "random": _random,
    "smooth": _smooth,
    "adversarial": _adversarial,
}


def spiral(k: int) -> np.ndarray:
    """One path that winds inwards and comes near itself nowhere: a label has about k * k / 2 pixels to go. (k, k) bool."""
    trail, (down, right) = [(0, 0)], (0, 1)
    while _free(trail, k, down, right):
        while _free(trail, k, down, right):
            trail.append((trail[-1][0] + down, trail[-1][1] + right))
        down, right = right, -down
    path = np.zeros((k, k), dtype=bool)
    path[tuple(zip(*trail, strict=True))] = True
    return path


def _free(trail: list[tuple[int, int]], k: int, down: int, right: int) -> bool:
    """Whether the path may go on by one pixel: inside the grid, and in touch only with its last two."""
    row, column = trail[-1][0] + down, trail[-1][1] + right
    inside = 0 <= row < k and 0 <= column < k
    return inside and not any(abs(row - r) <= 1 and abs(column - c) <= 1 for r, c in trail[:-2])


def comb(k: int) -> np.ndarray:
    """Teeth that meet in the last row only. (k, k) bool, as all shapes here."""
    return (np.arange(k) % 2 == 0)[None, :] | (np.arange(k) == k - 1)[:, None]


def snake(k: int) -> np.ndarray:
    """Every other row, joined at alternating ends."""
    row, column = np.indices((k, k))
    return (row % 2 == 0) | ((row % 4 == 1) & (column == k - 1)) | ((row % 4 == 3) & (column == 0))


def checkerboard(k: int) -> np.ndarray:
    """Pixels that touch at corners only, so that 8-connectivity makes them one component."""
    return np.indices((k, k)).sum(0) % 2 == 0


def dots(k: int) -> np.ndarray:
    """As many components as a grid can have."""
    row, column = np.indices((k, k))
    return (row % 2 == 0) & (column % 2 == 0)


def diagonals(k: int) -> np.ndarray:
    row, column = np.indices((k, k))
    return (row - column) % 3 == 0
