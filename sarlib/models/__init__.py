"""Architectures by name, and the published sizes of those of Tables 9 and 10.

Each is built for a number of classes and an image size, and answers `sarlib.last_block.forward`. Torch and timm are imported
with `create`; `import sarlib.models.architectures` gives timm the published ones under their names.
"""

from __future__ import annotations

import importlib
from typing import Any

from sarlib.config import Model, Stage

__all__ = ["ARCHITECTURES", "CVT_13", "PUBLISHED", "PVT_SMALL", "T2T_VIT_14", "create"]

#: Yuan et al. (2021), Table 1, with the Performer as T2T transformer: 21.5 M parameters, 4.8 GMACs at 224 px.
T2T_VIT_14 = Model(name="t2t", dim=384, depth=14, heads=6, mlp_ratio=3.0)

#: Wang et al. (2021), Table 1, version 1: 24.5 M parameters, 3.8 GMACs at 224 px.
PVT_SMALL = Model(
    name="pvt",
    patch_size=32,
    dim=512,
    depth=3,
    heads=8,
    stages=(
        Stage(dim=64, depth=3, heads=1, stride=4, mlp_ratio=8.0, key_stride=8),
        Stage(dim=128, depth=4, heads=2, stride=2, mlp_ratio=8.0, key_stride=4),
        Stage(dim=320, depth=6, heads=5, stride=2, key_stride=2),
        Stage(dim=512, depth=3, heads=8, stride=2),
    ),
)

#: Wu et al. (2021), Table 2: 20.0 M parameters, 4.5 GMACs at 224 px.
CVT_13 = Model(
    name="cvt",
    dim=384,
    depth=10,
    heads=6,
    stages=(
        Stage(dim=64, depth=1, heads=1, stride=4, key_stride=2),
        Stage(dim=192, depth=2, heads=3, stride=2, key_stride=2),
        Stage(dim=384, depth=10, heads=6, stride=2, key_stride=2),
    ),
)

#: By their names in timm, once `sarlib.models.architectures` is imported.
PUBLISHED = {"t2t_vit_14": T2T_VIT_14, "pvt_small": PVT_SMALL, "cvt_13": CVT_13}


def __getattr__(name: str) -> Any:
    if name not in ("ARCHITECTURES", "create"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("sarlib.models.architectures"), name)
