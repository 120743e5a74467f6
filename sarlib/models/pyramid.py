"""What PVT and CvT have in common: stages of ever fewer, wider tokens, and a class token that joins in the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from sarlib import config


class Stage(nn.Module):
    """Tokens of one resolution: a convolution makes them, blocks work on them.

    patch_embed: (B, C, H, W) -> (B, dim, grid, grid).
    blocks: (B, [1 +] grid^2, dim) -> the same shape.
    class_token: a token before the patches; positions: learned position embeddings, added to all tokens.
    """

    def __init__(
        self, patch_embed: nn.Conv2d, blocks: Iterable[nn.Module], *, grid: int, class_token: bool, positions: bool
    ) -> None:
        super().__init__()
        dim = patch_embed.out_channels
        self.grid = (grid, grid)
        self.patch_embed, self.norm, self.blocks = patch_embed, nn.LayerNorm(dim), nn.Sequential(*blocks)
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
        return self.blocks(self.embed(x)).mT.unflatten(2, self.grid)


class Pyramid(nn.Module):
    """Stages, a norm and a linear head on the class token; images (B, 3, H, W) -> logits (B, classes).

    `convolution(channels, stage)` makes a stage's tokens, `block(stage, grid=, rate=, class_token=)` one of its blocks; `rates`
    are those of stochastic depth, one a block, over all stages. `sarlib.last_block` reads the attributes: `blocks` are the last
    stage's, `key_grid` is where its last block's keys lie, rows and columns.
    """

    num_prefix_tokens = 1
    global_pool = "token"
    grad_checkpointing = False

    def __init__(
        self,
        model: config.Model,
        *,
        classes: int,
        image_size: int,
        convolution: Callable[[int, config.Stage], nn.Conv2d],
        block: Callable[..., nn.Module],
        rates: Iterable[float],
        norm: nn.Module,
        positions: bool,
    ) -> None:
        super().__init__()
        grids, rates, channels = model.stage_grids(image_size), iter(rates), 3
        self.stages = nn.ModuleList()
        for stage, grid in zip(model.stages, grids, strict=True):
            last = stage is model.stages[-1]
            patch_embed = convolution(channels, stage)
            blocks = [block(stage, grid=grid, rate=next(rates), class_token=last) for _ in range(stage.depth)]
            self.stages.append(Stage(patch_embed, blocks, grid=grid, class_token=last, positions=positions))
            channels = stage.dim
        self.norm, self.num_classes = norm, classes
        self.key_grid = (grids[-1] // model.key_stride, grids[-1] // model.key_stride)
        self.head = nn.Linear(model.dim, classes) if classes else nn.Identity()
        self._initialise()

    @property
    def blocks(self) -> nn.Sequential:
        return self.stages[-1].blocks

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter `blocks`: (B, 1 + n, dim), class token first."""
        *earlier, last = self.stages
        for stage in earlier:
            images = stage(images)
        return last.embed(images)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(images)))

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


def linear_drop_path(rate: float, depth: int) -> list[float]:
    """Stochastic depth of `depth` blocks: from 0 in the first to `rate` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
