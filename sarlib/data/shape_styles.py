"""Four ways of rendering one scene of procedural shapes: object, clipart, painting, sketch.

Each style is a function from a `Scene` to colours in [0, 1]. All per-pixel arithmetic is one IEEE operation at a time (no
sine, no sum whose order could matter), so that a scene has the same bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is where, for n images of size x size pixels with up to M objects; float32 in [0, 1] unless stated otherwise.

    clutter     (n, 3, size, size)  smooth noise of several octaves
    grain       (n, 1, size, size)  independent noise per pixel
    visible     (n, M, size, size)  bool: pixels of each object that nothing covers
    depth       (n, M, size, size)  distance to the object's edge, 0 at the edge and 1 at the template's deepest point
    wave        (n, M, size, size)  the object's grating, a sine in space
    light, dark (n, M, 3)           the two colours of each object's texture
    bars        (n, size, size)     bool: pixels of the occluding bars
    bar_colour  (n, 3)
    """

    clutter: np.ndarray
    grain: np.ndarray
    visible: np.ndarray
    depth: np.ndarray
    wave: np.ndarray
    light: np.ndarray
    dark: np.ndarray
    bars: np.ndarray
    bar_colour: np.ndarray


def _flat(colour: np.ndarray) -> np.ndarray:
    """(n, 3) -> (n, 3, 1, 1)"""
    return colour[:, :, None, None]


def _paint(canvas: np.ndarray, where: np.ndarray, colour: np.ndarray) -> None:
    """Put `colour` (broadcast to (n, 3, size, size)) on the pixels `where` (n, size, size) of the canvas."""
    np.copyto(canvas, colour, where=where[:, None])


def object_style(scene: Scene) -> np.ndarray:
    """A photograph's stand-in: coloured clutter, smoothly striped objects that darken towards the rim, sensor noise."""
    canvas = np.float32(0.15) + np.float32(0.7) * scene.clutter
    shade = np.float32(0.62) + np.float32(0.38) * np.minimum(scene.depth * np.float32(2), np.float32(1))
    for j in range(scene.visible.shape[1]):
        light, dark = _flat(scene.light[:, j]), _flat(scene.dark[:, j])
        _paint(canvas, scene.visible[:, j], (dark + (light - dark) * scene.wave[:, j, None]) * shade[:, j, None])
    _paint(canvas, scene.bars, _flat(scene.bar_colour))
    canvas += (scene.grain - np.float32(0.5)) * np.float32(0.16)
    return canvas


def clipart_style(scene: Scene) -> np.ndarray:
    """Flat colours: posterised pastel clutter, hard-edged stripes, black outlines, no noise."""
    canvas = np.float32(0.6) + np.float32(0.12) * np.floor(scene.clutter * np.float32(8) - np.float32(2))
    for j in range(scene.visible.shape[1]):
        light, dark = _flat(scene.light[:, j]), _flat(scene.dark[:, j])
        _paint(canvas, scene.visible[:, j], np.where(scene.wave[:, j, None] > 0.5, light, dark))
        _paint(canvas, scene.visible[:, j] & (scene.depth[:, j] < 0.16), np.float32(0.05))
    _paint(canvas, scene.bars, _flat(scene.bar_colour))
    return canvas


def painting_style(scene: Scene) -> np.ndarray:
    """Canvas and brush: earthen colours blended with the ground, wavering contours, few tones, coarse strokes."""
    grey = (scene.clutter[:, :1] + scene.clutter[:, 1:2] + scene.clutter[:, 2:]) * np.float32(1 / 3)
    ground = np.float32(0.3) + np.float32(0.15) * grey + np.float32(0.2) * scene.clutter
    canvas = ground.copy()
    for j in range(scene.visible.shape[1]):
        light, dark = _flat(scene.light[:, j]), _flat(scene.dark[:, j])
        colour = dark + (light - dark) * scene.wave[:, j, None]
        _paint(canvas, scene.visible[:, j], np.float32(0.85) * colour + np.float32(0.15) * ground)
    _paint(canvas, scene.bars, np.float32(0.5) * _flat(scene.bar_colour) + np.float32(0.5) * ground)
    warm = np.array([1.0, 0.9, 0.72], dtype=np.float32)[:, None, None]
    canvas = canvas * warm + (scene.grain - np.float32(0.5)) * np.float32(0.14)
    return np.floor(canvas * np.float32(7) + np.float32(0.5)) * np.float32(1 / 7)


def sketch_style(scene: Scene) -> np.ndarray:
    """Pencil on paper: grey outlines, hatching instead of colour, faint scribbles as clutter."""
    lines = np.abs(scene.clutter[:, :1] - scene.clutter[:, 1:2])
    canvas = np.where(lines < 0.03, np.float32(0.6), np.float32(0.93))
    for j in range(scene.visible.shape[1]):
        hatch = np.where(scene.wave[:, j, None] > 0.72, np.float32(0.35), np.float32(0.97))
        _paint(canvas, scene.visible[:, j], hatch)
        _paint(canvas, scene.visible[:, j] & (scene.depth[:, j] < 0.16), np.float32(0.15))
    _paint(canvas, scene.bars, np.float32(1))
    canvas = canvas + (scene.grain - np.float32(0.5)) * np.float32(0.12)
    return np.broadcast_to(canvas, scene.clutter.shape)


#: name -> (renderer, amplitude of the contours' wavering in units of the image's half side)
STYLES = {
    "object": (object_style, 0.0),
    "clipart": (clipart_style, 0.0),
    "painting": (painting_style, 0.16),
    "sketch": (sketch_style, 0.1),
}
