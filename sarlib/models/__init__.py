"""Architectures by name. Each is built for a number of classes and an image size, and answers `sarlib.last_block.forward`.

Torch and timm are imported with `create`; `import sarlib.models.architectures` gives timm the published ones under their names.
"""

from __future__ import annotations

import importlib
from typing import Any

from sarlib.models.sizes import CVT_13, PVT_SMALL, T2T_VIT_14

__all__ = ["ARCHITECTURES", "CVT_13", "PVT_SMALL", "T2T_VIT_14", "create"]


def __getattr__(name: str) -> Any:
    if name not in ("ARCHITECTURES", "create"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("sarlib.models.architectures"), name)
