"""Scaled dot products of one query with the keys (Equation 4) from the layer that computes them, on timm's attention layers.

Only one query is needed, so its side can take the projection of the keys: q.k_j = (W_k' q).y_j + q.b_k, with y the layer's
input. No key is ever formed, unless a norm or a rotary embedding stands between projection and product. That holds where plain
linear layers make queries and keys (`absorbable`). Adapters, pruning masks, normalised, quantised and sharded weights do
something else with them: there the queries and keys that the layer itself made are taken (`products`).
"""

from __future__ import annotations

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn
from torch.func import functional_call

from sarlib.config import ConfigError


def absorbable(attn: nn.Module) -> bool:
    """Whether `scores` may read the weights: whether nothing but plain linear layers makes queries and keys of the input.

    BEiT's layer reads the weight of `qkv` and never calls it. Raises `ConfigError` where it has to be called.
    """
    beside = not hasattr(attn, "q_norm") and getattr(attn, "q_bias", None) is not None  # biases, as BEiT's
    if beside and not attn.qkv_bias_separate:
        if type(attn.qkv) is not nn.Linear:
            raise ConfigError(
                "this attention reads the weight of qkv and never calls it, as adapters and parametrisations need: set "
                "attn.qkv_bias_separate = True in the last block, which gives the same numbers"
            )
        return True
    return not hasattr(attn, "attend") and all(map(is_plain, projections(attn)))


def projections(attn: nn.Module) -> list[nn.Module]:
    """The layers that make queries, keys and values: one for all, or three."""
    return [attn.qkv] if getattr(attn, "qkv", None) is not None else [attn.q_proj, attn.k_proj, attn.v_proj]


def is_plain(layer: nn.Module) -> bool:
    """Whether `layer` multiplies by the parameter that is its weight, as nn.Linear does, and does nothing else."""
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        return False
    hooks = layer._forward_pre_hooks or layer._forward_hooks or layer._backward_pre_hooks or layer._backward_hooks
    return not (hooks or "forward" in vars(layer))


def makers(attn: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs are queries and keys, before any rotation, by what they make: q and k, or qkv."""
    if hasattr(attn, "q_norm"):  # timm calls it even where it is the identity
        return {"q": attn.q_norm, "k": attn.k_norm}
    if getattr(attn, "qkv", None) is not None:
        return {"qkv": attn.qkv}
    return {"q": attn.q_proj, "k": attn.k_proj}


def scores(attn: nn.Module, y: Tensor, *, skip: int = 0, class_token: bool = True, rope: Tensor | None = None) -> Tensor:
    """One query against the keys of all tokens after the first `skip`: (B, H, N - skip), scaled, before bias and softmax.

    attn: one of timm's attention layers, `absorbable`; y: its input (B, N, dim).
    class_token: the query is the first token's, as in the paper; False takes the mean query of the other tokens named. That is
        the query of their mean where a linear layer alone makes it.
    rope: the rotary embedding of the tokens after the first `skip`, where the layer gets one.
    Float32 whatever the autocast (float64 stays): bfloat16 products move tokens across the mean of Equation 5.
    """
    exact = torch.promote_types(y.dtype, torch.float32)
    with torch.autocast(y.device.type, enabled=False):
        y = y.to(exact)
        w_k, b_k = projection(attn, "k", exact)
        asking = y[:, :1] if class_token else y[:, skip:]
        if _norm(attn, "q") is None and rope is None:
            asking = asking.mean(1, keepdim=True)
        query = _heads(asking, *projection(attn, "q", exact), _norm(attn, "q"))
        if _norm(attn, "k") is None and rope is None:
            query = query.mean(2) * attn.scale  # (B, H, d)
            return torch.einsum("bhd,hdc->bhc", query, w_k) @ y[:, skip:].mT + (query * b_k).sum(-1, keepdim=True)
        keys = _heads(y[:, skip:], w_k, b_k, _norm(attn, "k"))
        return _dot(attn, query, keys, class_token, rope)


def products(
    attn: nn.Module, made: dict[str, Tensor], *, skip: int = 0, class_token: bool = True, rope: Tensor | None = None
) -> Tensor:
    """The same as `scores`, from what the layer's own `makers` put out: (B, H, N, d) each, or with the heads side by side.

    Queries and keys are as exact as the layer made them, the products float32 (float64 for float64).
    """
    q, k = made["qkv"].chunk(3, dim=-1)[:2] if "qkv" in made else (made["q"], made["k"])
    exact = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k = (part if part.dim() == 4 else part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (q, k))
        keys = k[:, :, skip:].to(exact)
        if keys.shape[1] < attn.num_heads:
            keys = keys.repeat_interleave(attn.num_heads // keys.shape[1], dim=1)
        return _dot(attn, (q[:, :, :1] if class_token else q[:, :, skip:]).to(exact), keys, class_token, rope)


def _dot(attn: nn.Module, query: Tensor, keys: Tensor, class_token: bool, rope: Tensor | None) -> Tensor:
    if rope is not None:
        query, keys = query if class_token else _rotate(attn, query, rope), _rotate(attn, keys, rope)
    return torch.einsum("bhd,bhnd->bhn", query.mean(2) * attn.scale, keys)


def projection(attn: nn.Module, which: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight (H, d, dim) and bias (H, d) that make queries, keys or values (`which` is q, k or v); no bias is a bias of zeros.

    timm keeps the three in one layer or in three, their biases there or beside. Grouped keys and values are repeated per head.
    """
    if getattr(attn, "qkv", None) is not None:
        part = "qkv".index(which)
        weight = attn.qkv.weight.chunk(3)[part]
        bias = attn.qkv.bias.chunk(3)[part] if attn.qkv.bias is not None else getattr(attn, f"{which}_bias", None)
    else:
        layer = getattr(attn, f"{which}_proj")
        weight, bias = layer.weight, layer.bias
    heads = attn.num_heads if which == "q" else getattr(attn, "num_kv_heads", attn.num_heads)
    weight = weight.to(dtype).unflatten(0, (heads, -1))
    bias = weight.new_zeros(weight.shape[:2]) if bias is None else bias.to(dtype).unflatten(0, (heads, -1))
    if heads < attn.num_heads:
        weight, bias = (part.repeat_interleave(attn.num_heads // heads, dim=0) for part in (weight, bias))
    return weight, bias


def _heads(y: Tensor, weight: Tensor, bias: Tensor, norm: nn.Module | None) -> Tensor:
    """(B, N, dim) -> (B, H, N, d)."""
    projected = torch.einsum("bnc,hdc->bhnd", y, weight) + bias[:, None]
    if norm is None:
        return projected
    if all(parameter.dtype == y.dtype for parameter in norm.parameters()):
        return norm(projected)
    return functional_call(norm, {name: parameter.to(y.dtype) for name, parameter in norm.named_parameters()}, projected)


def _norm(attn: nn.Module, which: str) -> nn.Module | None:
    norm = getattr(attn, f"{which}_norm", None)
    return None if isinstance(norm, nn.Identity) else norm


def _rotate(attn: nn.Module, x: Tensor, rope: Tensor) -> Tensor:
    return apply_rot_embed_cat(x, rope.to(x.dtype), half=getattr(attn, "rotate_half", False))
