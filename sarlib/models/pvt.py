"""Pyramid Vision Transformer, version 1 (Wang et al., 2021, arXiv:2102.12122).

Attention to a grid of fewer keys, and learned positions in every stage. The class token joins in the last one, which has
ordinary attention.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sarlib import config
from sarlib.config import ConfigError
from sarlib.models.pyramid import Pyramid, linear_drop_path


class SpatialReductionAttention(nn.Module):
    """Attention to keys and values of `key_stride` x `key_stride` tokens each (Section 3.3): (B, grid^2, dim) -> the same."""

    def __init__(self, dim: int, *, heads: int, grid: int, key_stride: int) -> None:
        super().__init__()
        self.num_heads, self.grid = heads, (grid, grid)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.sr = nn.Conv2d(dim, dim, kernel_size=key_stride, stride=key_stride)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, y: Tensor, **_: None) -> Tensor:  # timm's Block names two masks, both None
        fewer = self.norm(self.sr(y.mT.unflatten(2, self.grid)).flatten(2).mT)
        projected = (self.q(y), *self.kv(fewer).chunk(2, dim=-1))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in projected)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def pvt(model: config.Model, *, classes: int, image_size: int) -> Pyramid:
    """An untrained PVT with the stages of `model`; stochastic depth rises linearly over all blocks.

    Raises `ConfigError` for a last stage with `key_stride`: the class token has no place in a grid that is to be reduced.
    """
    if model.key_stride != 1:
        raise ConfigError(f"the class token joins pvt in its last stage, whose key_stride must be 1, got {model.key_stride}")
    return Pyramid(
        model,
        classes=classes,
        image_size=image_size,
        convolution=lambda channels, stage: nn.Conv2d(channels, stage.dim, kernel_size=stage.stride, stride=stage.stride),
        block=_block,
        rates=linear_drop_path(model.drop_path, sum(stage.depth for stage in model.stages)),
        norm=LayerNorm(model.dim),
        positions=True,
    )


def _block(stage: config.Stage, *, grid: int, rate: float, class_token: bool) -> Block:
    block = Block(stage.dim, stage.heads, mlp_ratio=stage.mlp_ratio, qkv_bias=True, drop_path=rate)
    if stage.key_stride > 1:
        block.attn = SpatialReductionAttention(stage.dim, heads=stage.heads, grid=grid, key_stride=stage.key_stride)
    return block


def from_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' state dict (github.com/whai362/PVT, `pvt_small.pth`) by the names used here."""
    stages = max(int(name[len("pos_embed")]) for name in state if name.startswith("pos_embed"))
    renamed = {_rename(name, stages): value for name, value in state.items()}
    for name in [name for name in renamed if ".attn.q." in name]:
        if name.replace(".attn.q.", ".attn.sr.") not in renamed:  # ordinary attention: one layer for all three
            q, kv = renamed.pop(name), renamed.pop(name.replace(".attn.q.", ".attn.kv."))
            renamed[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([q, kv])
    return renamed


def _rename(name: str, stages: int) -> str:
    if name == "cls_token":
        return f"stages.{stages - 1}.cls_token"
    found = re.fullmatch(r"(patch_embed|pos_embed|block)(\d)(.*)", name)
    if found is None:
        return name
    kind, number, rest = found.groups()
    part = {"patch_embed": "", "pos_embed": ".pos_embed", "block": ".blocks"}[kind]
    return f"stages.{int(number) - 1}{part}{rest.replace('.proj.', '.patch_embed.') if kind == 'patch_embed' else rest}"
