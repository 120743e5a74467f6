"""From a declaration to an untrained network."""

from __future__ import annotations

from collections.abc import Callable

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sarlib import config
from sarlib.config import ConfigError
from sarlib.last_block import set_variant
from sarlib.models.cvt import cvt
from sarlib.models.pvt import pvt
from sarlib.models.t2t import T2T


def create(model: config.Model, *, classes: int, image_size: int) -> nn.Module:
    """An untrained network, initialised from torch's global random state; `image_size` in pixels.

    Raises `ConfigError` for a name without architecture, for an image that the patches or the keys of a stage do not tile, and
    for one whose similarity map would be a single key.
    """
    if model.name not in ARCHITECTURES:
        raise ConfigError(f"unknown model {model.name!r}; choose from {', '.join(ARCHITECTURES)}")
    if image_size % model.patch_size:
        raise ConfigError(f"an image of {image_size} px cannot be cut into patches of {model.patch_size} px")
    token = model.patch_size * model.key_stride
    if image_size < 2 * token:
        raise ConfigError(
            f"an image of {image_size} px leaves {model.name} a similarity map of one key ({token} px a side): "
            f"choose one of at least {2 * token} px"
        )
    return set_variant(ARCHITECTURES[model.name](model, classes=classes, image_size=image_size), model.variant)


def vit(model: config.Model, *, classes: int, image_size: int) -> VisionTransformer:
    """timm's ViT with its own initialisation; 384 wide, 12 deep, 6 heads is its `vit_small_patch16_224`."""
    return VisionTransformer(
        img_size=image_size,
        patch_size=model.patch_size,
        num_classes=classes,
        embed_dim=model.dim,
        depth=model.depth,
        num_heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        drop_path_rate=model.drop_path,
    )


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"vit": vit, "t2t": T2T, "pvt": pvt, "cvt": cvt}
