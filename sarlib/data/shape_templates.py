"""The outlines of the ten procedural classes, rasterised once."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

CLASSES = ("disc", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "capsule", "arrow")
SIDE = 128  # side of a rasterised shape, in cells
WINDOW = 1.6  # a template spans [-WINDOW, WINDOW] in units of the object's radius
_AREA = 2.0  # of every shape, in radius^2: size is no class cue


@functools.cache
def templates() -> np.ndarray:
    """(classes, 128, 128) uint8, flat: 0 outside the shape, else 1 + depth; every shape covers _AREA radius^2."""
    stack = []
    for name in CLASSES:
        grid = (np.arange(4 * SIDE) + 0.5) / (4 * SIDE) * 4 - 2
        area = np.mean(_inside(name, *np.meshgrid(grid, grid))) * 16
        cells = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * WINDOW * np.sqrt(area / _AREA)
        shape = np.pad(_inside(name, *np.meshgrid(cells, cells))[1:-1, 1:-1], 1)
        deep = ndimage.distance_transform_edt(shape) * (2 * WINDOW / SIDE)  # in radii
        stack.append(np.where(shape, 1 + np.minimum(254, np.round(deep * 318)), 0).astype(np.uint8))
    return np.stack(stack).ravel()


def _inside(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Is (x, y) inside the shape? y points down as in an image."""
    r, angle = np.hypot(x, y), np.arctan2(x, -y)
    match name:
        case "disc":
            return r < 1
        case "square":
            return np.maximum(abs(x), abs(y)) < 1
        case "triangle":
            return (y < 0.6) & (abs(x) * np.sqrt(3) - y < 1.2)
        case "star":
            fold = abs((angle / (2 * np.pi) * 5 + 0.5) % 1 - 0.5) * 2  # 0 at a tip, 1 between two
            return r < 1.3 - 0.8 * fold
        case "cross":
            return (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1.1)
        case "ring":
            return (r < 1.1) & (r > 0.55)
        case "heart":
            up = 0.35 - y * 1.15
            return (x**2 + up**2 - 1) ** 3 < x**2 * up**3
        case "crescent":
            return (r < 1.2) & (np.hypot(x - 0.55, y) > 0.85)
        case "capsule":
            return np.hypot(np.maximum(abs(x) - 0.8, 0), y) < 0.42
        case "arrow":
            return np.where(y < 0, abs(x) < (y + 1.2) * 0.9, (y < 1.1) & (abs(x) < 0.36))
