"""Spatial entropy as an inductive bias for Vision Transformers: the loss, the architectures, the trainer and the paper's
tables.

In your own training loop:

    sar = sarlib.SAR(model)                                  # any timm ViT
    loss = criterion(model(images), labels) + sar.loss()

or, with similarity maps of your own, `sarlib.spatial_entropy(maps)` and `sarlib.components(maps)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarlib.entropy import components, spatial_entropy
    from sarlib.plugin import SAR

__all__ = ["SAR", "components", "spatial_entropy"]

_HOME = {"SAR": "sarlib.plugin", "components": "sarlib.entropy", "spatial_entropy": "sarlib.entropy"}


def __getattr__(name: str) -> Any:
    """Import torch and timm when one of the names is first used, not with the package: `python -m sarlib --help`
    stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
