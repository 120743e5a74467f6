"""What trainings that round differently, on any processor, can be compared by."""

from __future__ import annotations

import torch
from torch import Tensor


def without_key_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, without the biases of the keys. A shift of all keys changes neither the softmax nor S less its mean:
    their gradient is rounding alone, of which AdamW makes steps of up to the learning rate."""
    biases = {name: tensor.chunk(3) for name, tensor in weights.items() if name.endswith("attn.qkv.bias")}
    return weights | {name: torch.cat([queries, values]) for name, (queries, _, values) in biases.items()}
