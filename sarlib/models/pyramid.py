"""What PVT and CvT have in common: stages of ever fewer, wider tokens, and a class token that joins in the last one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from sarlib import config
from sarlib.config import ConfigError


class Stage(nn.Module):
    """Tokens of one resolution: a convolution makes them, blocks work on them.

    patch_embed: (B, C, H, W) -> (B, dim, grid, grid).
    blocks: (B, [1 +] grid^2, dim) -> the same shape.
    class_token: a token before the patches; positions: learned position embeddings, added to all tokens.
    """

    def __init__(
        self,
        patch_embed: nn.Conv2d,
        norm: nn.Module,
        blocks: Iterable[nn.Module],
        *,
        grid: int,
        class_token: bool,
        positions: bool,
    ) -> None:
        super().__init__()
        dim = patch_embed.out_channels
        self.grid = (grid, grid)
        self.patch_embed, self.norm, self.blocks = patch_embed, norm, nn.ModuleList(blocks)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, class_token + grid**2, dim)) if positions else None

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the tokens that enter the blocks, (B, [1 +] grid^2, dim), row by row."""
        x = self.norm(self.patch_embed(x).flatten(2).mT)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x if self.pos_embed is None else x + self.pos_embed

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, grid, grid): a stage without class token."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x.mT.unflatten(2, self.grid)


class Pyramid(nn.Module):
    """Stages, a norm and a linear head on the class token; images (B, 3, H, W) -> logits (B, classes).

    The attributes are those that `sarlib.last_block` asks for: `blocks` are those of the last stage, `key_grid` is where its last
    block's keys lie, rows and columns.
    """

    num_prefix_tokens = 1
    global_pool = "token"
    grad_checkpointing = False

    def __init__(self, stages: list[Stage], norm: nn.Module, *, classes: int, key_grid: tuple[int, int]) -> None:
        super().__init__()
        self.stages, self.norm = nn.ModuleList(stages), norm
        self.num_classes, self.key_grid = classes, key_grid
        dim = stages[-1].patch_embed.out_channels
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()
        self._initialise()

    @property
    def blocks(self) -> nn.ModuleList:
        return self.stages[-1].blocks

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter `blocks`: (B, 1 + n, dim), class token first."""
        *earlier, last = self.stages
        x = images
        for stage in earlier:
            x = stage(x)
        return last.embed(x)

    def forward_features(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(x[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def no_weight_decay(self) -> set[str]:
        """The class token alone, in both authors' code; norms and biases are the optimizer's business."""
        return {name for name, _ in self.named_parameters() if name.endswith("cls_token")}

    def _initialise(self) -> None:
        """As in the authors' code: linear weights, class token and positions normal with deviation 0.02, biases 0, convolutions
        as torch makes them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("cls_token", "pos_embed")):
                trunc_normal_(parameter, std=0.02)


def stage_grids(model: config.Model, image_size: int) -> list[int]:
    """Tokens a side at every stage. Raises `ConfigError` where the keys of a stage do not tile its tokens."""
    grids, grid = [], image_size
    for number, stage in enumerate(model.stages, start=1):
        grid //= stage.stride
        if grid % stage.key_stride:
            raise ConfigError(
                f"an image of {image_size} px gives stage {number} of {model.name} {grid} x {grid} tokens, which its keys of "
                f"{stage.key_stride} x {stage.key_stride} tokens do not tile: choose another image size or key_stride"
            )
        grids.append(grid)
    return grids


def linear_drop_path(rate: float, depth: int) -> list[float]:
    """Stochastic depth of `depth` blocks: from 0 in the first to `rate` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
