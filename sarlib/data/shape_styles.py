"""The outlines of the ten procedural classes, and four ways of rendering a scene of them: object, clipart, painting, sketch.

Each style is a function from a `Scene` to colours in [0, 1]. All per-pixel arithmetic is one IEEE operation at a time (no
sine, no sum whose order could matter), so that a scene has the same bits on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SIDE = 128  # side of a rasterised outline, in cells
WINDOW = 1.6  # a template spans [-WINDOW, WINDOW] in units of the object's radius
_AREA = 2.0  # of every shape, in radius^2: size is no class cue

#: class -> is (x, y) inside its shape? y points down as in an image.
_INSIDE = {
    "disc": lambda x, y: np.hypot(x, y) < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 1,
    "triangle": lambda x, y: (y < 0.6) & (abs(x) * np.sqrt(3) - y < 1.2),
    "star": lambda x, y: np.hypot(x, y) < 1.3 - 1.6 * abs((np.arctan2(x, -y) / (2 * np.pi) * 5 + 0.5) % 1 - 0.5),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.34) & (np.maximum(abs(x), abs(y)) < 1.1),
    "ring": lambda x, y: (np.hypot(x, y) < 1.1) & (np.hypot(x, y) > 0.55),
    "heart": lambda x, y: (x**2 + (0.35 - y * 1.15) ** 2 - 1) ** 3 < x**2 * (0.35 - y * 1.15) ** 3,
    "crescent": lambda x, y: (np.hypot(x, y) < 1.2) & (np.hypot(x - 0.55, y) > 0.85),
    "capsule": lambda x, y: np.hypot(np.maximum(abs(x) - 0.8, 0), y) < 0.42,
    "arrow": lambda x, y: np.where(y < 0, abs(x) < (y + 1.2) * 0.9, (y < 1.1) & (abs(x) < 0.36)),
}
CLASSES = tuple(_INSIDE)


@functools.cache
def templates() -> np.ndarray:
    """(classes, 128, 128) uint8, flat: 0 outside the shape, else 1 + depth; every shape covers _AREA radius^2."""
    stack = []
    for inside in _INSIDE.values():
        grid = (np.arange(4 * SIDE) + 0.5) / (4 * SIDE) * 4 - 2
        area = np.mean(inside(*np.meshgrid(grid, grid))) * 16
        cells = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * WINDOW * np.sqrt(area / _AREA)
        shape = np.pad(inside(*np.meshgrid(cells, cells))[1:-1, 1:-1], 1)
        deep = ndimage.distance_transform_edt(shape) * (2 * WINDOW / SIDE)  # in radii
        stack.append(np.where(shape, 1 + np.minimum(254, np.round(deep * 318)), 0).astype(np.uint8))
    return np.stack(stack).ravel()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is where, for n images of S x S pixels with up to M objects; float32 in [0, 1] unless stated otherwise."""

    clutter: np.ndarray  # (n, 3, S, S) smooth noise of several octaves
    grain: np.ndarray  # (n, 1, S, S) independent noise per pixel
    visible: np.ndarray  # (n, M, S, S) bool, pixels of each object that nothing covers
    depth: np.ndarray  # (n, M, S, S) distance to the object's edge, 0 at the edge and 1 at the template's deepest point
    wave: np.ndarray  # (n, M, S, S) the object's grating, a sine in space
    light: np.ndarray  # (n, M, 3, 1, 1) one colour of each object's texture
    dark: np.ndarray  # (n, M, 3, 1, 1) the other
    bars: np.ndarray  # (n, S, S) bool, pixels of the occluding bars
    bar_colour: np.ndarray  # (n, 3, 1, 1)

    def striped(self, j: int) -> np.ndarray:
        """(n, 3, S, S): object j's texture, smooth between its colours."""
        return self.dark[:, j] + (self.light[:, j] - self.dark[:, j]) * self.wave[:, j, None]

    def paint(
        self, canvas: np.ndarray, colour: Callable[[int], np.ndarray], bar: np.ndarray, outline: float | None = None
    ) -> None:
        """Put `colour` of each object on its pixels, `outline` on those near its edge, and `bar` on the bars."""
        for j in range(self.visible.shape[1]):
            np.copyto(canvas, colour(j), where=self.visible[:, j, None])
            if outline is not None:
                np.copyto(canvas, np.float32(outline), where=(self.visible[:, j] & (self.depth[:, j] < 0.16))[:, None])
        np.copyto(canvas, bar, where=self.bars[:, None])


def object_style(scene: Scene) -> np.ndarray:
    """A photograph's stand-in: coloured clutter, smoothly striped objects that darken towards the rim, sensor noise."""
    canvas = np.float32(0.15) + np.float32(0.7) * scene.clutter
    shade = np.float32(0.62) + np.float32(0.38) * np.minimum(scene.depth * np.float32(2), np.float32(1))
    scene.paint(canvas, lambda j: scene.striped(j) * shade[:, j, None], scene.bar_colour)
    return canvas + (scene.grain - np.float32(0.5)) * np.float32(0.16)


def clipart_style(scene: Scene) -> np.ndarray:
    """Flat colours: posterised pastel clutter, hard-edged stripes, black outlines, no noise."""
    canvas = np.float32(0.6) + np.float32(0.12) * np.floor(scene.clutter * np.float32(8) - np.float32(2))
    stripes = np.where(scene.wave[:, :, None] > 0.5, scene.light, scene.dark)
    scene.paint(canvas, lambda j: stripes[:, j], scene.bar_colour, outline=0.05)
    return canvas


def painting_style(scene: Scene) -> np.ndarray:
    """Canvas and brush: earthen colours blended with the ground, wavering contours, few tones, coarse strokes."""
    grey = (scene.clutter[:, :1] + scene.clutter[:, 1:2] + scene.clutter[:, 2:]) * np.float32(1 / 3)
    ground = np.float32(0.3) + np.float32(0.15) * grey + np.float32(0.2) * scene.clutter
    canvas, bar = ground.copy(), np.float32(0.5) * scene.bar_colour + np.float32(0.5) * ground
    scene.paint(canvas, lambda j: np.float32(0.85) * scene.striped(j) + np.float32(0.15) * ground, bar)
    warm = np.array([1.0, 0.9, 0.72], dtype=np.float32)[:, None, None]
    canvas = canvas * warm + (scene.grain - np.float32(0.5)) * np.float32(0.14)
    return np.floor(canvas * np.float32(7) + np.float32(0.5)) * np.float32(1 / 7)


def sketch_style(scene: Scene) -> np.ndarray:
    """Pencil on paper: grey outlines, hatching instead of colour, faint scribbles as clutter."""
    lines = np.abs(scene.clutter[:, :1] - scene.clutter[:, 1:2])
    canvas = np.where(lines < 0.03, np.float32(0.6), np.float32(0.93))
    hatched = np.where(scene.wave > 0.72, np.float32(0.35), np.float32(0.97))
    scene.paint(canvas, lambda j: hatched[:, j, None], np.float32(1), outline=0.15)
    canvas = canvas + (scene.grain - np.float32(0.5)) * np.float32(0.12)
    return np.broadcast_to(canvas, scene.clutter.shape)


#: name -> (renderer, amplitude of the contours' wavering in units of the image's half side)
STYLES = {
    "object": (object_style, 0.0),
    "clipart": (clipart_style, 0.0),
    "painting": (painting_style, 0.16),
    "sketch": (sketch_style, 0.1),
}
