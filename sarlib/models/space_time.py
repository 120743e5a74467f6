"""A ViT for clips: the patches of all frames are one sequence, and the class token's query meets the keys of all of them."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


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
