"""Starting from the weights of a trained network: what is taken, what may differ, and what stays new."""

from __future__ import annotations

import math

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from sarlib.config import ConfigError, Published, require
from sarlib.run import Run


def start_from(model: nn.Module, weights: dict[str, Tensor], *, grid: int, heads: int) -> tuple[str, ...]:
    """Copies trained `weights` into `model`, all but the head's; returns the names of the tensors that stay new in it.

    weights: by the names of `model`'s state dict. Only the head, and the norm that rows C and D of Table 1c lack (`norm2` of
    the last block), may be missing or left over; or what a model's own `may_differ` says, by how the names begin. grid, heads:
    of the network that was trained, tokens a side and heads of its last block, as `origin` finds them. Position embeddings are
    resampled from `grid` to the model's own where the two differ.

    Raises `ConfigError` for weights of another architecture; `model` is then as before. No shape shows the number of heads.
    """
    last = next(name for name, module in model.named_modules() if module is model.blocks[-1])
    may_differ = getattr(model, "may_differ", ("head.", f"{last}.norm2."))
    wanted = model.blocks[-1].attn.num_heads
    require(heads == wanted, f"weights of a network with {heads} heads cannot start one with {wanted}: declare as many heads")
    own = model.state_dict()
    misfits = [name for name in own.keys() ^ weights.keys() if not name.startswith(may_differ)]
    taken = {name: weights[name] for name in own if name in weights and not name.startswith("head.")}
    tokens = model.stages[-1].grid[0] if hasattr(model, "stages") else math.isqrt(model.pos_embed.shape[1])
    for name in taken:
        if name.endswith("pos_embed"):
            taken[name] = _resampled(taken[name], own[name], scale=grid / tokens)
    misfits += [name for name, tensor in taken.items() if tensor.shape != own[name].shape]
    require(
        not misfits,
        f"a network cannot start from weights of another architecture: {len(misfits)} tensors do not fit, among them "
        f"{min(misfits, default='')}; only the head and the last block's norm2 may differ",
    )
    model.load_state_dict(own | taken)
    return tuple(name for name in own if name not in taken)


def origin(pretrained: Run | Published) -> dict[str, int]:
    """`grid` and `heads` of the network that a run starts from, for `start_from`: as declared, or as timm builds it."""
    if isinstance(pretrained, Run):
        return {"grid": pretrained.data.image_size // pretrained.model.patch_size, "heads": pretrained.model.heads}
    try:
        with torch.device("meta"):
            network = timm.create_model(pretrained.name.removeprefix("timm/"))
        return {"grid": network.patch_embed.grid_size[0], "heads": network.blocks[-1].attn.num_heads}
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ConfigError(f"timm knows no ViT {pretrained.name!r} to start from ({str(error).splitlines()[0]})") from error


def _resampled(positions: Tensor, own: Tensor, *, scale: float) -> Tensor:
    """Embeddings of a grid `scale` times as large a side on the grid of `own` (1, [1 +] k^2, dim); others as they are."""
    new = math.isqrt(own.shape[1])
    old, prefix = round(new * scale), own.shape[1] - new**2  # one more than the square where the class token has a position
    if positions.shape[1] != prefix + old**2:
        return positions
    return resample_abs_pos_embed(positions, (new, new), old_size=(old, old), num_prefix_tokens=prefix)
