"""The last block: Equations 1-3 and 10-11, rows A-D of Table 1c, and its class-token row.

Only the [CLS] row of the last block reaches the classifier, and the similarity map S of Equation 4 is that row before its
softmax. `forward` therefore computes just that row unless the caller wants patch tokens. Both ways give the same numbers, but
the row alone needs neither the keys (`sarlib.scores`) nor the values of the other tokens.

A model without class token averages its patch tokens before the head. There the mean of their queries stands in for the class
token's (what section 5.2 leaves to future work), and the block is computed for all tokens, since all of them reach the head.

A model is timm's VisionTransformer (T2T is one), or has `embed` and `key_grid` as a `sarlib.models.pyramid.Pyramid` has them;
all end in timm's `Block`s. Their attention is timm's, or a layer with a method `attend` that says what the class token takes
from it (CvT).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sarlib.config import ConfigError, require_known
from sarlib.scores import is_plain, projection, projections, scores


@dataclass(frozen=True)
class Row:
    """Which parts of Equations 1-2 a last block keeps. The stochastic depth of a skip goes with the skip."""

    msa_skip: bool = True
    norm: bool = True
    mlp_skip: bool = True


#: Table 1c. Rows E and F are the architectures of A and C, trained with the loss.
ROWS = {
    "A": Row(),
    "B": Row(msa_skip=False),
    "C": Row(msa_skip=False, norm=False),
    "D": Row(msa_skip=False, norm=False, mlp_skip=False),
}


class Output(NamedTuple):
    """What `forward` finds.

    logits: (B, classes).
    similarity: (B, H, h, w), float32, scaled, before softmax; of clips (B, H, T, h, w).
    tokens: the final patch tokens (B, n, dim), or None where they were not asked for.
    heads: what the query of S takes from each head of the last block, before the output projection: (B, H, head_dim).
    """

    logits: Tensor
    similarity: Tensor
    tokens: Tensor | None
    heads: Tensor


class ClassRow(NamedTuple):
    """The class token's part in an attention layer: `scores` (B, H, N), see `sarlib.scores`, and `heads` as in `Output`."""

    scores: Tensor
    heads: Tensor


class LastBlock(nn.Module):
    """timm's Block less the parts that `row` leaves out (Equations 10-11); parameters keep their names.

    LayerScale, where the block has it, scales the attention output whether or not a skip is added to it.
    """

    def __init__(self, block: Block, row: Row) -> None:
        super().__init__()
        self.row, self.msa_skip, self.mlp_skip = row, row.msa_skip, row.mlp_skip
        self.norm1, self.attn, self.ls1 = block.norm1, block.attn, block.ls1
        self.drop_path1 = block.drop_path1 if row.msa_skip else nn.Identity()
        self.norm2 = block.norm2 if row.norm else nn.Identity()
        self.mlp, self.ls2 = block.mlp, block.ls2
        self.drop_path2 = block.drop_path2 if row.mlp_skip else nn.Identity()
        self.train(block.training)
        self.register_load_state_dict_pre_hook(_forget_removed_norm)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.finish(x, self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:  # a method with plain attributes, as torch.jit.script needs it
        """Everything after the attention layer, whose output is `attended`: Equations 10-11. Both (B, N, dim)."""
        update = self.ls1(attended)
        z = x + self.drop_path1(update) if self.msa_skip else update
        update = self.ls2(self.mlp(self.norm2(z)))
        return z + self.drop_path2(update) if self.mlp_skip else update


def set_variant(model: nn.Module, variant: str) -> nn.Module:
    """Turns the last block of `model` into row A, B, C or D of Table 1c in place; returns the model. A changes nothing.

    The final LayerNorm stays. A stock state dict still loads strictly; in C and D its last `norm2` is passed over.
    Build the optimizer afterwards, since C and D give up that layer's two parameters.
    Raises `ConfigError` for an unknown variant, or a model whose last block is not timm's pre-norm `Block`.
    """
    require_known("last-block variant", variant, ROWS)
    row, last = ROWS[variant], model.blocks[-1]
    if _row(last) == row or (variant == "A" and not isinstance(last, LastBlock)):
        return model
    if type(last) is not Block:
        raise ConfigError(f"variant {variant} is made from timm's stock Block, not {type(last).__name__}")
    model.blocks[-1] = LastBlock(last, row)
    return model


def forward(model: nn.Module, images: Tensor, *, tokens: bool = False) -> Output:
    """Logits and similarity maps of `images` (B, 3, H, W), and with `tokens=True` the final patch tokens.

    The last block is computed for the class token alone unless `tokens` is set or the head reads more than that token; the
    logits, S and all gradients are the same (only dropout, where a model has it, draws other numbers).
    Raises `ConfigError` for a model whose attention is of another kind, and for randomly dropped patches.
    """
    (*earlier, last), prefix = model.blocks, model.num_prefix_tokens
    _require_global_attention(model)
    x, key_grid = _embed(model, images)
    if model.grad_checkpointing and earlier:
        x = checkpoint_seq(earlier, x)
    else:
        for block in earlier:
            x = block(x)
    full = tokens or model.global_pool != "token" or hasattr(model, "head_dist")
    if has_class_token(model):
        attended, row = _attend(last.attn, last.norm1(x), tokens=full)
        row = row._replace(scores=row.scores[..., prefix:])
    else:
        y = last.norm1(x)
        attended, row = last.attn(y), query_row(last.attn, y, skip=prefix, class_token=False)
    x = model.norm(_finish(last, x if full else x[:, :1], attended))
    similarity = on_grid(row.scores, key_grid)
    return Output(model.forward_head(x), similarity, x[:, prefix:] if tokens else None, row.heads)


def has_class_token(model: nn.Module) -> bool:
    """Whether S is of the class token's query: timm's models without one average their patch tokens."""
    return getattr(model, "cls_token", None) is not None or hasattr(model, "key_grid")


def _embed(model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The tokens (B, N, dim) that enter `model.blocks`, and the grid of the last block's keys."""
    if hasattr(model, "key_grid"):
        return model.embed(images), model.key_grid
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    return x, model.patch_embed.dynamic_feat_size(images.shape[-2:])


def _attend(attn: nn.Module, y: Tensor, *, tokens: bool) -> tuple[Tensor, ClassRow]:
    """The layer's output for all tokens (B, N, dim) or the class token alone (B, 1, dim), and that token's part in it."""
    if not isinstance(attn, Attention):
        return attn.attend(y, tokens=tokens)
    return (attn(y), query_row(attn, y)) if tokens else class_attention(attn, y)


def class_attention(attn: Attention, y: Tensor) -> tuple[Tensor, ClassRow]:
    """Equation 3 for the [CLS] query alone: the layer's output (B, 1, dim) for that token, and its part in the layer."""
    row = query_row(attn, y)
    out = attn.norm(row.heads.flatten(1).unsqueeze(1))
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(y[:, :1]).sigmoid()
    return attn.proj_drop(attn.proj(out)), row


def query_row(attn: nn.Module, y: Tensor, values: Tensor | None = None, *, skip: int = 0, class_token: bool = True) -> ClassRow:
    """Attention of one query, the [CLS] token's or the mean one, before the output projection.

    y: what the layer projects keys from (B, N, dim), class token first; values: what it projects values from, `y` if None; skip
    and class_token as in `scores`. The tokens' values are never formed: sum_j p_j v_j = W_v (sum_j p_j y_j) + b_v sum_j p_j.
    """
    values = y[:, skip:] if values is None else values
    row = scores(attn, y, skip=skip, class_token=class_token)
    p = attn.attn_drop(row.softmax(-1)).to(y.dtype)
    w_v, b_v = projection(attn, "v", attn.proj.weight.dtype)
    # Dropout leaves p with another sum than 1, hence the bias times that sum.
    return ClassRow(row, torch.einsum("bhc,hdc->bhd", p @ values, w_v) + b_v * p.sum(-1, keepdim=True))


def query_key_gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """Gradient of `loss` on the last block's query and key weights, where cross entropy and regulariser meet: (2 dim, dim).

    Keeps the graph of `loss`, and leaves `.grad` alone.
    """
    weights = [layer.weight for layer in projections(model.blocks[-1].attn)]
    gradient = torch.cat(torch.autograd.grad(loss, weights[:2], retain_graph=True))
    return gradient[: 2 * gradient.shape[1]]  # where one layer makes the values too, without these


def _finish(block: Block | LastBlock, x: Tensor, attended: Tensor) -> Tensor:
    """`LastBlock.finish`, or Equations 1-2 for timm's own block."""
    if isinstance(block, LastBlock):
        return block.finish(x, attended)
    z = x + block.drop_path1(block.ls1(attended))
    return z + block.drop_path2(block.ls2(block.mlp(block.norm2(z))))


def _row(block: nn.Module) -> Row | None:
    if isinstance(block, LastBlock):
        return block.row
    return ROWS["A"] if type(block) is Block else None


def on_grid(row: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Patch columns (B, H, n) -> (B, H, h, w); patches are numbered row by row, as timm's PatchEmbed flattens them. Those of
    clips, frame by frame, -> (B, H, T, h, w)."""
    if row.shape[-1] != math.prod(grid):
        sides = " x ".join(map(str, grid))
        raise ConfigError(f"{row.shape[-1]} patch tokens do not fill the {sides} grid: turn patch dropout off")
    return row.unflatten(-1, grid)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every part of `module` is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _require_global_attention(model: nn.Module) -> None:
    if not (isinstance(model, VisionTransformer) or hasattr(model, "key_grid")):
        raise ConfigError(f"{type(model).__name__} has no known tokens for Equation 4: use a timm VisionTransformer")
    last = model.blocks[-1]
    if _row(last) is None or not (type(last.attn) is Attention or hasattr(last.attn, "attend")):
        raise ConfigError(f"the last block ({type(last).__name__}) is not timm's pre-norm Block with its standard attention")
    for layer in projections(last.attn):
        if not is_plain(layer):
            raise ConfigError(f"the weights of a wrapped layer ({type(layer).__name__}) cannot be read: train with sarlib.SAR")


def _forget_removed_norm(block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A stock state dict has a `norm2` that rows C and D do not."""
    if not block.row.norm:
        for name in [name for name in state if name.startswith(f"{prefix}norm2.")]:
            del state[name]
