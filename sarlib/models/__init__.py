"""Architectures by name. Each is built for a number of classes and an image size, and answers `sarlib.last_block.forward`."""

from __future__ import annotations

from collections.abc import Callable

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sarlib import config
from sarlib.config import ConfigError
from sarlib.last_block import remove_skip


def create(model: config.Model, *, classes: int, image_size: int) -> nn.Module:
    """An untrained network, initialised from torch's global random state; `image_size` in pixels.

    Raises `ConfigError` for a name without architecture and for an image that the patches do not tile.
    """
    if model.name not in ARCHITECTURES:
        raise ConfigError(f"unknown model {model.name!r}; choose from {', '.join(ARCHITECTURES)}")
    if image_size % model.patch_size:
        raise ConfigError(f"an image of {image_size} px cannot be cut into patches of {model.patch_size} px")
    return ARCHITECTURES[model.name](model, classes=classes, image_size=image_size)


def vit(model: config.Model, *, classes: int, image_size: int) -> VisionTransformer:
    """timm's ViT with its own initialisation; 384 wide, 12 deep, 6 heads is its `vit_small_patch16_224`."""
    network = VisionTransformer(
        img_size=image_size,
        patch_size=model.patch_size,
        num_classes=classes,
        embed_dim=model.dim,
        depth=model.depth,
        num_heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        drop_path_rate=model.drop_path,
    )
    return remove_skip(network, model.variant)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"vit": vit}
