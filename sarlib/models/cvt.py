"""Convolutional vision Transformer (Wu et al., 2021, arXiv:2103.15808).

Overlapping convolutions make the tokens, depthwise ones what queries, keys and values are projected from. There are no position
embeddings; the class token joins in the last stage.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from timm.layers import QuickGELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sarlib import config
from sarlib.last_block import ClassRow, query_row
from sarlib.models.pyramid import Pyramid, linear_drop_path


class ConvolutionalAttention(nn.Module):
    """Attention with a convolution before each projection (Section 3.2): (B, [1 +] grid^2, dim) -> the same shape.

    Keys and values lie on a grid `key_stride` times smaller a side. A class token bypasses the convolutions. The scores are
    scaled by 1 / sqrt(dim), not 1 / sqrt(head_dim), as in the authors' code; S keeps that scale, being what the softmax sees.
    The projections have timm's names, for `sarlib.scores`.
    """

    def __init__(self, dim: int, *, heads: int, grid: int, key_stride: int, class_token: bool) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, dim**-0.5
        self.grid, self.prefix = (grid, grid), int(class_token)
        self.conv_proj_q = _depthwise(dim, stride=1)
        self.conv_proj_k = _depthwise(dim, stride=key_stride)
        self.conv_proj_v = _depthwise(dim, stride=key_stride)
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attn_drop = nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, y: Tensor, **_: None) -> Tensor:  # timm's Block names two masks, both None
        return self._all_tokens(y, self._convolve(self.conv_proj_k, y), self._convolve(self.conv_proj_v, y))

    def attend(self, y: Tensor, *, tokens: bool) -> tuple[Tensor, ClassRow]:
        """The layer's output for all tokens (B, N, dim) or the class token alone (B, 1, dim), and that token's part in it."""
        keys, values = self._convolve(self.conv_proj_k, y), self._convolve(self.conv_proj_v, y)
        row = query_row(self, keys, values)
        if tokens:
            return self._all_tokens(y, keys, values), row
        if self.training:
            with torch.no_grad():  # the patches' queries are not needed, their running statistics are
                self._convolve(self.conv_proj_q, y.detach())
        # What makes them gets gradients of zero, as with all tokens: weight decay and DistributedDataParallel mind None.
        nothing = 0.0 * sum(parameter.sum() for parameter in self.conv_proj_q.parameters())
        return self.proj(row.heads.flatten(1).unsqueeze(1) + nothing), row

    def _all_tokens(self, y: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = self._convolve(self.conv_proj_q, y)
        projected = (self.q_proj(queries), self.k_proj(keys), self.v_proj(values))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in projected)
        attended = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _convolve(self, convolution: nn.Module, y: Tensor) -> Tensor:
        """`convolution` over the grid of the patches; the class token stays as it is."""
        first, patches = y[:, : self.prefix], y[:, self.prefix :]
        return torch.cat([first, convolution(patches.mT.unflatten(2, self.grid)).flatten(2).mT], dim=1)


def _depthwise(dim: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(dim, dim, kernel_size=3, stride=stride, padding=1, groups=dim, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(dim)))


def cvt(model: config.Model, *, classes: int, image_size: int) -> Pyramid:
    """An untrained CvT with the stages of `model`.

    Windows overlap by all but one pixel of a stride: 7 px wide at stride 4, 3 at stride 2, as published. Stochastic depth rises
    linearly over the last stage; the others have none (the authors' configuration of CvT-13).
    """
    earlier = sum(stage.depth for stage in model.stages[:-1])
    return Pyramid(
        model,
        classes=classes,
        image_size=image_size,
        convolution=lambda channels, stage: nn.Conv2d(
            channels, stage.dim, kernel_size=2 * stage.stride - 1, stride=stage.stride, padding=stage.stride // 2
        ),
        block=_block,
        rates=[0.0] * earlier + linear_drop_path(model.drop_path, model.depth),
        norm=nn.LayerNorm(model.dim),
        positions=False,
    )


def _block(stage: config.Stage, *, grid: int, rate: float, class_token: bool) -> Block:
    settings = {"mlp_ratio": stage.mlp_ratio, "drop_path": rate, "act_layer": QuickGELU, "norm_layer": nn.LayerNorm}
    block = Block(stage.dim, stage.heads, **settings)
    block.attn = ConvolutionalAttention(
        stage.dim, heads=stage.heads, grid=grid, key_stride=stage.key_stride, class_token=class_token
    )
    return block


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict (github.com/microsoft/CvT, `CvT-13-224x224-IN-1k.pth`) by the names used here."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^stage(\d)\.", r"stages.\1.", name)
        name = name.replace(".patch_embed.proj.", ".patch_embed.").replace(".patch_embed.norm.", ".norm.")
        renamed[re.sub(r"\.attn\.proj_([qkv])\.", r".attn.\1_proj.", name)] = value
    return renamed
