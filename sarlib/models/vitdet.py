"""ViTDet's backbone (Li et al., 2022, arXiv:2203.16527): a plain ViT's blocks, and a simple pyramid on their last map.

Made from a ViT of ours, whose tensors keep their names, so that a trained network's weights go where they were. The class token
and the final norm have no place in it; relative positions and pyramid are new. The relative positions are 0 at the start: where
windows do not cut the map, the blocks compute what they did, less the class token.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention, LayerNorm2d
from torch import Tensor, nn

from sarlib import config
from sarlib.config import require
from sarlib.models.architectures import create


class ViTDet(nn.Module):
    """Images (B, 3, H, W) -> the levels of the pyramid, (B, channels, h, w) each, by name, the finest first.

    p2 to p5 are a quarter, a half, one and two tokens apart, p6 four: strides 4 to 64 px for tokens of 16 px.
    """

    def __init__(self, model: config.Model, task: config.Task, *, image_size: int) -> None:
        """Untrained, for images of `image_size` px, drawn from torch's global random state: the ViT first, whose parts it takes
        over. Of `task` counts what it says of windows, blocks and channels."""
        super().__init__()
        vit = create(model, classes=0, image_size=image_size)
        before, depth = set(vit.state_dict()), len(vit.blocks)
        self.patch_embed, self.pos_embed = vit.patch_embed, vit.pos_embed
        self.blocks = vit.blocks[: depth - task.blocks_left_out]
        self.side = side = math.isqrt(vit.patch_embed.num_patches)
        spread = min(task.global_blocks, depth)
        everywhere = {(i + 1) * depth // spread - 1 for i in range(spread)}  # evenly, the last one among them
        for index, block in enumerate(self.blocks):
            block.attn = GridAttention(block.attn, side=side, window=side if index in everywhere else task.window)
        self.pyramid = Pyramid(vit.embed_dim, task.channels)
        last = f"blocks.{depth - 1}." if task.blocks_left_out else f"blocks.{depth - 1}.norm2."
        #: How the names begin of tensors that may be only in a trained network, or only here (`start_from`).
        self.may_differ = ("head.", last, *sorted(before ^ set(self.state_dict())))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # The class token's position stays in `pos_embed`, unread, so that it has a trained network's shape.
        x = self.patch_embed(images) + self.pos_embed[:, -(self.side**2) :]
        for block in self.blocks:
            x = block(x)
        return self.pyramid(x.mT.unflatten(2, (self.side, self.side)))


class GridAttention(nn.Module):
    """timm's attention among the tokens of a grid of `side` x `side`, or of each window of it, with decomposed relative
    positions (Li et al., 2022, arXiv:2112.01526, Equation 4).

    Windows that reach beyond the grid are padded, and no token attends to the padding. (In the authors' code they do.)
    """

    def __init__(self, attention: Attention, *, side: int, window: int) -> None:
        super().__init__()
        require(type(attention) is Attention, f"ViTDet is made from timm's own attention, not {type(attention).__name__}")
        self.num_heads, self.qkv, self.proj = attention.num_heads, attention.qkv, attention.proj
        self.side, self.window = side, min(window, side)
        offsets = 2 * self.window - 1
        self.relative_rows, self.relative_columns = (nn.Parameter(torch.zeros(offsets, attention.head_dim)) for _ in range(2))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, side^2, dim) -> the same; the other arguments are of timm's attention, and its block leaves them alone."""
        side, window, dim = self.side, self.window, x.shape[-1]
        across = -(-side // window)  # windows a side
        padding = across * window - side
        x = F.pad(x.unflatten(1, (side, side)), (0, 0, 0, padding, 0, padding))
        x = x.view(-1, across, window, across, window, dim).transpose(2, 3).reshape(-1, window**2, dim)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self._relative(q)
        if padding:
            real = (torch.arange(across * window, device=x.device) < side).view(across, window)
            real = (real[:, None, :, None] & real[None, :, None, :]).view(across**2, 1, 1, window**2)
            bias = bias.unflatten(0, (-1, across**2)).masked_fill(~real, -torch.inf).flatten(0, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
        x = x.reshape(-1, across, across, window, window, dim).transpose(2, 3)
        x = x.reshape(-1, across * window, across * window, dim)[:, :side, :side]
        return self.proj(x.flatten(1, 2))

    def _relative(self, q: Tensor) -> Tensor:
        """q.(r of the row's offset + r of the column's) for each pair of tokens: (B, H, n, head_dim) -> (B, H, n, n)."""
        at = torch.arange(self.window, device=q.device)
        offset = at[:, None] - at + self.window - 1  # (from, to)
        q = q.unflatten(2, (self.window, self.window))
        down = torch.einsum("bhyxd,ykd->bhyxk", q, self.relative_rows[offset])
        across = torch.einsum("bhyxd,xkd->bhyxk", q, self.relative_columns[offset])
        return (down[..., :, None] + across[..., None, :]).flatten(4).flatten(2, 3).to(q.dtype)


class Pyramid(nn.Module):
    """The simple feature pyramid of one map (B, dim, h, w): transposed convolutions up, pooling down, nothing added across."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        half, quarter = dim // 2, dim // 4
        up = nn.ConvTranspose2d(dim, half, 2, 2)
        up_twice = (nn.ConvTranspose2d(dim, half, 2, 2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2))
        self.p2 = nn.Sequential(*up_twice, *_to_channels(quarter, channels))
        self.p3 = nn.Sequential(up, *_to_channels(half, channels))
        self.p4 = nn.Sequential(*_to_channels(dim, channels))
        self.p5 = nn.Sequential(nn.MaxPool2d(2), *_to_channels(dim, channels))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = {name: level(x) for name, level in self.named_children()}
        return levels | {"p6": F.max_pool2d(levels["p5"], 1, stride=2)}


def _to_channels(dim: int, channels: int) -> tuple[nn.Module, ...]:
    one, three = nn.Conv2d(dim, channels, 1, bias=False), nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return one, LayerNorm2d(channels), three, LayerNorm2d(channels)


def layer_groups(module: nn.Module, *, blocks: int, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups of everything trainable in `module`, a ViT of so many `blocks` and what is built on it.

    `lr_scale` is decay^(blocks + 1 - layer): patches and positions are layer 0, the blocks 1, 2, …, and all else has the whole
    rate. Norms, biases and positions of tokens have no weight decay. (As in ViTDet's released code.)
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            block = re.search(r"(?:^|\.)blocks\.(\d+)\.", name)
            first = re.search(r"(?:^|\.)(?:patch_embed|pos_embed)(?:\.|$)", name)
            layer = int(block[1]) + 1 if block else 0 if first else blocks + 1
            groups[layer, parameter.ndim > 1 and not name.endswith("pos_embed")].append(parameter)
    return [
        {"params": each, "weight_decay": weight_decay * decayed, "lr_scale": decay ** (blocks + 1 - layer)}
        for (layer, decayed), each in sorted(groups.items(), key=lambda group: group[0])
    ]
