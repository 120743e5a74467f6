"""Where images come from: `load` turns a declaration into a training and a test set."""

from __future__ import annotations

from pathlib import Path

from sarlib import config
from sarlib.data import digits, shapes
from sarlib.data.images import Images
from sarlib.data.shape_styles import STYLES

SHAPES = tuple(f"shapes-{style}" for style in STYLES)

__all__ = ["SHAPES", "Images", "load"]


def load(spec: config.Data, *, seed: int, root: Path | None = None) -> tuple[Images, Images]:
    """The training and the test set of a declaration.

    `seed` draws the training subset (or, for procedural shapes, the training images); the test set never depends on it. Raises `ConfigError`.
    """
    if spec.name in SHAPES:
        return shapes.load(spec, seed=seed)
    if spec.name == "digits":
        return digits.load(spec, seed=seed)
    raise config.ConfigError(f"unknown data set {spec.name!r}; known: {', '.join((*SHAPES, 'digits'))}")
