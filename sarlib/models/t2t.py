"""Tokens-to-Token ViT (Yuan et al., 2021, arXiv:2101.11986) with the Performer as T2T transformer.

Overlapping windows of pixels, then of tokens, become the tokens of a ViT, whose blocks are timm's.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from timm.layers import Mlp, trunc_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sarlib import config

#: Strides of the three soft splits by the pixels a side of a final token: 16 is published, smaller ones give up later splits.
SOFT_SPLITS = {16: (4, 2, 2), 8: (4, 2, 1), 4: (4, 1, 1)}
#: Width of the tokens inside the module, as published; a model less than twice as wide takes half its own width.
TOKEN_DIM = 64


class T2T(VisionTransformer):
    """timm's ViT less the biases of q, k and v, behind a Tokens-to-Token module, with fixed sine and cosine positions."""

    def __init__(self, model: config.Model, *, classes: int, image_size: int) -> None:
        sizes = model.of_timm(classes=classes, image_size=image_size)
        super().__init__(**sizes, qkv_bias=False, norm_layer=nn.LayerNorm, embed_layer=TokensToToken)
        self.pos_embed = nn.Parameter(sinusoids(1 + self.patch_embed.num_patches, model.dim), requires_grad=False)
        trunc_normal_(self.cls_token, std=0.02)


class TokensToToken(nn.Module):
    """Section 3.1: (B, 3, H, W) -> tokens (B, h*w, embed_dim): three soft splits, a Performer after the first and the second.

    Made by timm's VisionTransformer, which also names settings of its own patch embedding.
    """

    def __init__(self, *, img_size: int, patch_size: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        self.patch_size, self.num_patches = patch_size, (img_size // patch_size) ** 2
        self.strides = SOFT_SPLITS[patch_size]
        dim = min(TOKEN_DIM, embed_dim // 2)
        self.attention1 = Performer(3 * 7 * 7, dim)
        self.attention2 = Performer(dim * 3 * 3, dim)
        self.project = nn.Linear(dim * 3 * 3, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        first, second, third = self.strides
        x = self.attention1(soft_split(images, kernel=7, stride=first))
        h, w = (side // first for side in images.shape[-2:])
        x = self.attention2(soft_split(x.mT.unflatten(2, (h, w)), kernel=3, stride=second))
        return self.project(soft_split(x.mT.unflatten(2, (h // second, w // second)), kernel=3, stride=third))

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens of an image of `img_size` (height, width)."""
        return img_size[0] // self.patch_size, img_size[1] // self.patch_size


def soft_split(x: Tensor, *, kernel: int, stride: int) -> Tensor:
    """Overlapping windows as tokens: (B, C, H, W) -> (B, H/stride * W/stride, C * kernel^2)."""
    return nn.functional.unfold(x, kernel, stride=stride, padding=(kernel - stride + 1) // 2).mT


class Performer(nn.Module):
    """One transformer layer with linear attention (Choromanski et al., 2021, arXiv:2009.14794): (B, N, in_dim) -> (B, N, dim).

    One head; the skip starts at the values, as the input is wider than the output. Dropout 0.1 after attention and MLP, as in
    the authors' code.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(in_dim), nn.LayerNorm(dim)
        self.kqv = nn.Linear(in_dim, 3 * dim)
        self.proj, self.drop = nn.Linear(dim, dim), nn.Dropout(0.1)
        self.mlp = Mlp(dim, dim, drop=(0.0, 0.1))
        features = dim // 2
        self.w = nn.Parameter(nn.init.orthogonal_(torch.empty(features, dim)) * math.sqrt(features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.drop(self.proj(self._linear_attention(q, k, v)))
        return x + self.mlp(self.norm2(x))

    def _linear_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k') v approximated without its N x N matrix; in float32 whatever the autocast, for the exponentials."""
        with torch.autocast(q.device.type, enabled=False):
            exact = torch.promote_types(q.dtype, torch.float32)
            q, k = self._features(q.to(exact)), self._features(k.to(exact))
            total = q @ k.sum(1, keepdim=True).mT  # (B, N, 1)
            return q @ (k.mT @ v.to(exact)) / (total + 1e-8)

    def _features(self, x: Tensor) -> Tensor:
        """Positive random features of the softmax kernel (Lemma 1 there): (B, N, dim) -> (B, N, dim / 2)."""
        return (x @ self.w.to(x.dtype).mT - x.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(len(self.w))


def sinusoids(positions: int, dim: int) -> Tensor:
    """Fixed position embeddings (Vaswani et al., 2017, Section 3.5), sines and cosines in turn: (1, positions, dim)."""
    frequency = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float().unsqueeze(0)


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict (github.com/yitu-opensource/T2T-ViT, `state_dict_ema` of `81.5_T2T_ViT_14.pth.tar`) by the names
    used here."""
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("module.").replace("tokens_to_token.", "patch_embed.")
        name = re.sub(r"(attention\d\.mlp)\.0\.", r"\1.fc1.", name)
        renamed[re.sub(r"(attention\d\.mlp)\.2\.", r"\1.fc2.", name)] = value
    return renamed
