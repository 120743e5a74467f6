"""What a training minimises: the cross entropy and the regularisers of one batch, as one module that DDP and torch.compile can take whole."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import last_block


class Objective(nn.Module):
    """`model` with the `regularizers` of its run; those may have parameters of their own, as DRLoc has.

    Calling it gives the losses (1 + number of regularisers,) float32, unweighted, the cross entropy first. In bfloat16 where the batch is on a
    GPU; every regulariser calculates in float32.
    """

    def __init__(self, model: nn.Module, regularizers: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.model, self.regularizers = model, nn.ModuleList(regularizers)
        self.tokens = any(regularizer.needs_tokens for regularizer in self.regularizers)

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """pixels (B, 3, H, W), targets (B, classes) that sum to 1."""
        with torch.autocast("cuda", dtype=torch.bfloat16) if pixels.is_cuda else nullcontext():
            output = last_block.forward(self.model, pixels, tokens=self.tokens)
        task = F.cross_entropy(output.logits.float(), targets)
        return torch.stack([task, *(regularizer(output).float() for regularizer in self.regularizers)])
