"""Scaled dot products of one query with the keys (Equation 4) from the layer that computes them, on timm's attention layers.

Only one query is needed, so its side can take the projection of the keys: q.k_j = (W_k' q).y_j + q.b_k, with y the layer's
input. No key is ever formed, unless a norm or a rotary embedding stands between projection and product.
"""

from __future__ import annotations

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn


def scores(attn: nn.Module, y: Tensor, *, skip: int = 0, class_token: bool = True, rope: Tensor | None = None) -> Tensor:
    """One query against the keys of all tokens after the first `skip`: (B, H, N - skip), scaled, before bias and softmax.

    attn: one of timm's attention layers; y: its input (B, N, dim).
    class_token: the query is the first token's, as in the paper; False takes the mean query of the other tokens named.
    rope: the rotary embedding of the tokens after the first `skip`, where the layer gets one.
    Float32 whatever the autocast (float64 stays): bfloat16 products move tokens across the mean of Equation 5.
    """
    exact = torch.promote_types(y.dtype, torch.float32)
    with torch.autocast(y.device.type, enabled=False):
        y = y.to(exact)
        w_k, b_k = projection(attn, "k", exact)
        query = _heads(y[:, :1] if class_token else y[:, skip:], *projection(attn, "q", exact), _norm(attn, "q"))
        if rope is not None and not class_token:
            query = _rotate(attn, query, rope)
        query = query.mean(2) * attn.scale  # (B, H, d)
        if _norm(attn, "k") is None and rope is None:
            return torch.einsum("bhd,hdc->bhc", query, w_k) @ y[:, skip:].mT + (query * b_k).sum(-1, keepdim=True)
        keys = _heads(y[:, skip:], w_k, b_k, _norm(attn, "k"))
        if rope is not None:
            keys = _rotate(attn, keys, rope)
        return torch.einsum("bhd,bhnd->bhn", query, keys)


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
    return projected if norm is None else norm(projected)


def _norm(attn: nn.Module, which: str) -> nn.Module | None:
    norm = getattr(attn, f"{which}_norm", None)
    return None if isinstance(norm, nn.Identity) else norm


def _rotate(attn: nn.Module, x: Tensor, rope: Tensor) -> Tensor:
    return apply_rot_embed_cat(x, rope.to(x.dtype), half=getattr(attn, "rotate_half", False))
