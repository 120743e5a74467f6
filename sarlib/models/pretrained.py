"""A network that starts from another one's weights."""

from __future__ import annotations

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from sarlib.config import ConfigError


def start_from(model: nn.Module, weights: dict[str, Tensor], *, grid: tuple[int, int] | None = None) -> tuple[str, ...]:
    """Puts `weights` into `model`, all but the head's; returns the names of what is new in `model`.

    `grid` is the token grid (h, w) of the network that the weights are from; positions are resampled to the model's. Only the head and
    the last block's norm2 may be new or left out: `ConfigError` for anything else that does not fit.
    """
    free = ("head.", f"blocks.{len(model.blocks) - 1}.norm2.")
    own = model.state_dict()
    taken = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    if "pos_embed" in taken and grid is not None:
        size = list(model.patch_embed.grid_size)
        taken["pos_embed"] = resample_abs_pos_embed(taken["pos_embed"], size, old_size=list(grid), num_prefix_tokens=1)
    odd = [name for name in {*own} ^ {*taken} if not name.startswith(free)]
    odd += [name for name in {*own} & {*taken} if own[name].shape != taken[name].shape]
    if odd:
        raise ConfigError(f"the network cannot start from these weights: {', '.join(sorted(odd)[:3])} do not fit")
    model.load_state_dict(own | {name: tensor for name, tensor in taken.items() if name in own})
    return tuple(sorted({*own} - {*taken}))
