"""Architectures by name. Each is built for a number of classes and an image size, and answers `sarlib.last_block.forward`.

Importing this package gives timm the published ones under their names (`sarlib.models.published`).
"""

from sarlib.models.architectures import ARCHITECTURES, create
from sarlib.models.published import CVT_13, PVT_SMALL, T2T_VIT_14

__all__ = ["ARCHITECTURES", "CVT_13", "PVT_SMALL", "T2T_VIT_14", "create"]
