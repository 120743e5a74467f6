"""MoCo-v3 (Chen et al. 2021): each view's query is to find the teacher's key of the other view among those of the batch.

There is no queue: the keys are those of the batch in all processes. Their number, and the statistics of the heads' batch norms,
are the batch's, which therefore cannot be taken in micro_batches.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor, nn

from sarlib.data.images import Images
from sarlib.data.views import ViewBatches
from sarlib.run import Run
from sarlib.tasks.self_supervision import SelfSupervised, unit


class MoCo(SelfSupervised):
    """The student's network is the one that is measured and stored. Its patch projection keeps its random weights, its
    positions are fixed sines and cosines."""

    own_loss = "contrastive loss"
    divisible = False
    weight_init = "moco"

    def add_heads(self, dim: int) -> None:
        hidden, out_dim = self.settings.hidden, self.settings.out_dim
        self.head = perceptron(dim, hidden, hidden, out_dim)
        self.predictor = perceptron(out_dim, hidden, out_dim)
        self.register_buffer("seen", torch.zeros(dim + 1), persistent=False)
        projection, positions = self.model.patch_embed.proj, self.model.pos_embed
        nn.init.xavier_uniform_(projection.weight.data.flatten(1))
        nn.init.zeros_(projection.bias)
        grid = build_sincos2d_pos_embed(self.model.patch_embed.grid_size, dim)
        positions.data = F.pad(grid, (0, 0, 1, 0))[None]  # the class token has no position
        for fixed in (positions, *projection.parameters()):
            fixed.requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """views (B, 2, 3, H, W) -> losses (1 + regularizers,). Batch norms see one view at a time, as in the released code."""
        output = self.output(views.flatten(0, 1), tokens=self.tokens)
        first, second = (
            self.predictor(self.head(each)) for each in output.logits.float().unflatten(0, views.shape[:2]).unbind(1)
        )
        with torch.no_grad():
            features = self.output(views.flatten(0, 1), model=self.teacher[0]).logits.float()
            keys = [self.teacher[1](each) for each in features.unflatten(0, views.shape[:2]).unbind(1)]
        self.observe(unit(features))
        own = sum(self.contrast(query, key) for query, key in zip((first, second), reversed(keys), strict=True))
        return self.with_regularizers(own, output)

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """2 tau times the cross entropy of finding a query's own key among those of all processes: (B, out_dim) each."""
        held = [torch.empty_like(keys) for _ in range(self.processes)]
        if self.processes > 1:
            torch.distributed.all_gather(held, keys.contiguous())
            keys = torch.cat(held)
        own = self.rank * len(queries) + torch.arange(len(queries), device=queries.device)
        tau = self.settings.temperature
        return 2 * tau * F.cross_entropy(unit(queries) @ unit(keys).T / tau, own)

    def batches(self, images: Images, run: Run, **placement: Any) -> ViewBatches:
        self.keys = min(run.recipe.batch_size, len(images))
        return super().batches(images, run, **placement)

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """As released: weight decay on everything that is trained."""
        return [{"params": [each for each in self.parameters() if each.requires_grad], "weight_decay": weight_decay}]

    def chance(self) -> float:
        return 4 * self.settings.temperature * math.log(self.keys)


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers without bias, batch norm after each, ReLU between; the last norm without scale and shift."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.ReLU()]
    layers[-2:] = [BatchNorm(widths[-1], affine=False)]
    return nn.Sequential(*layers)


class BatchNorm(nn.BatchNorm1d):
    """Of the batch in all `processes`, in evaluation mode too; on any device, as torch's SyncBatchNorm is on GPUs alone."""

    processes = 1

    def __init__(self, width: int, *, affine: bool = True) -> None:
        super().__init__(width, affine=affine, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.processes == 1:
            return super().forward(x)
        mean = Sum.apply(x.mean(0)) / self.processes
        variance = Sum.apply((x - mean).square().mean(0)) / self.processes
        normed = (x - mean) * (variance + self.eps).rsqrt()
        return normed if self.weight is None else normed * self.weight + self.bias


class Sum(torch.autograd.Function):
    """Over processes, of the gradient too."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return Sum.forward(context, gradient)
