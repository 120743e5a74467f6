"""The published sizes of Tables 9 and 10, and their names in timm: `timm.create_model("cvt_13")` after `import sarlib.models`.

No weights come with them: `from_released` of the architecture's module renames those of the authors' checkpoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from timm.models import register_model
from torch import nn

from sarlib.config import ConfigError, Model, Stage
from sarlib.models.architectures import create

#: Yuan et al. (2021), Table 1.
T2T_VIT_14 = Model(name="t2t", dim=384, depth=14, heads=6, mlp_ratio=3.0)

#: Wang et al. (2021), Table 1.
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

#: Wu et al. (2021), Table 2.
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


@register_model
def t2t_vit_14(pretrained: bool = False, **settings: Any) -> nn.Module:
    """T2T-ViT-14 with the Performer as T2T transformer: 21.5 M parameters, 4.8 GMACs at 224 px."""
    return _published(T2T_VIT_14, pretrained, **settings)


@register_model
def pvt_small(pretrained: bool = False, **settings: Any) -> nn.Module:
    """PVT-Small, version 1: 24.5 M parameters, 3.8 GMACs at 224 px."""
    return _published(PVT_SMALL, pretrained, **settings)


@register_model
def cvt_13(pretrained: bool = False, **settings: Any) -> nn.Module:
    """CvT-13: 20.0 M parameters, 4.5 GMACs at 224 px."""
    return _published(CVT_13, pretrained, **settings)


def _published(
    model: Model,
    pretrained: bool,
    *,
    num_classes: int = 1000,
    img_size: int = 224,
    drop_path_rate: float = 0.0,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,
) -> nn.Module:
    """`model` by timm's names for its settings; the last three say where timm finds weights, of which there are none."""
    if pretrained:
        raise ConfigError(f"no weights come with {model.name}: build it without, then load the authors' through from_released")
    return create(dataclasses.replace(model, drop_path=drop_path_rate), classes=num_classes, image_size=img_size)
