"""From a declaration to an untrained network; and those of published size by their names in timm.

No weights come with these: `from_released` of each architecture's module renames the weights of the authors' checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sarlib import config
from sarlib.config import ConfigError
from sarlib.last_block import set_variant
from sarlib.models import PUBLISHED
from sarlib.models.cvt import cvt
from sarlib.models.pvt import pvt
from sarlib.models.t2t import T2T


def create(model: config.Model, *, classes: int, image_size: int, **settings: Any) -> nn.Module:
    """An untrained network, initialised from torch's global random state; `image_size` in pixels, without classifier for 0
    `classes`. A vit takes the `settings` of timm's VisionTransformer.

    Raises `ConfigError` for an image that `model` cannot be built for (`Model.require_size`).
    """
    model.require_size(image_size)
    return set_variant(ARCHITECTURES[model.name](model, classes=classes, image_size=image_size, **settings), model.variant)


def vit(model: config.Model, *, classes: int, image_size: int, **settings: Any) -> VisionTransformer:
    """timm's ViT with its own initialisation; 384 wide, 12 deep, 6 heads is its `vit_small_patch16_224`.

    Without class token the head reads the average of the normed patch tokens: the norm stays where it is with one.
    """
    pooled = {"class_token": False, "global_pool": "avg", "fc_norm": False} if model.pool == "avg" else {}
    build = functools.partial(SpaceTimeViT, frames=model.frames) if model.frames > 1 else VisionTransformer
    return build(**model.of_timm(classes=classes, image_size=image_size), **pooled, **settings)


class SpaceTimeViT(VisionTransformer):
    """timm's ViT for clips (B, 3 T, H, W), three channels a frame, in the order of time; returns logits (B, classes).

    Attention is joint over space and time, as in the first of the models of Arnab et al. (2021, arXiv:2103.15691). A token is
    made of a patch and of what changed in it since the frame before (their tubelets see several frames too: a small network
    does not learn from few clips what moves where without that). It has a position in space, which frames share, plus one in
    time. `sarlib.last_block` reads `embed` and `key_grid`.
    """

    def __init__(self, *, frames: int, **settings: Any) -> None:
        """settings: of timm's VisionTransformer, with a class token."""
        super().__init__(in_chans=6, **settings)
        self.frames = frames
        self.time_embed = nn.Parameter(trunc_normal_(torch.zeros(1, frames, 1, self.embed_dim), std=0.02))

    @property
    def key_grid(self) -> tuple[int, ...]:
        """T, h, w."""
        return (self.frames, *self.patch_embed.grid_size)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter `blocks`: (B, 1 + T h w, dim), class token first, then frame by frame."""
        frames = images.unflatten(1, (self.frames, -1))
        frames = torch.cat([frames, frames.diff(dim=1, prepend=frames[:, :1])], dim=2)
        patches = self.patch_embed(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        first, space = self.pos_embed[:, :1], self.pos_embed[:, None, 1:]
        token = (self.cls_token + first).expand(len(images), -1, -1)
        return torch.cat([token, (patches + space + self.time_embed).flatten(1, 2)], dim=1)

    def forward_features(self, images: Tensor, **_: None) -> Tensor:
        return self.norm(self.blocks(self.embed(images)))

    def no_weight_decay(self) -> set[str]:
        return {*super().no_weight_decay(), "time_embed"}


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"vit": vit, "t2t": T2T, "pvt": pvt, "cvt": cvt}


def _register(name: str, model: config.Model) -> None:
    """Makes `timm.create_model(name)` build `model`."""

    def build(
        pretrained: bool = False,
        *,
        num_classes: int = 1000,
        img_size: int = 224,
        drop_path_rate: float = 0.0,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
    ) -> nn.Module:
        """By timm's names for its settings; the last three say where timm finds weights, of which there are none."""
        if pretrained:
            raise ConfigError(f"no weights come with {name}: build it without, then load the authors' through from_released")
        return create(dataclasses.replace(model, drop_path=drop_path_rate), classes=num_classes, image_size=img_size)

    build.__name__ = name
    register_model(build)


for _name, _model in PUBLISHED.items():
    _register(_name, _model)
