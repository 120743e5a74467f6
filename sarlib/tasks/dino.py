"""DINO (Caron et al. 2021): the student's views are to say what the teacher, centred and sharpened, says of other views."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sarlib.tasks.self_supervision import SelfSupervised, half_cosine, unit

CENTRE_MOMENTUM = 0.9


class DINO(SelfSupervised):
    """The teacher's network is the one that is measured and stored. Each parameter's gradient is clipped by itself."""

    own_loss = "cross entropy between views"
    clips_each = True

    def add_heads(self, dim: int) -> None:
        self.head = Head(dim, self.settings.hidden, self.settings.bottleneck, self.settings.out_dim)
        self.register_buffer("centre", torch.zeros(self.settings.out_dim))
        self.register_buffer("temperature", torch.tensor(self.settings.teacher_temperatures[0]))
        self.register_buffer("seen", torch.zeros(dim + self.settings.out_dim + 1), persistent=False)

    def forward(self, views: Tensor, small: Tensor | None = None) -> Tensor:
        """views (B, 2, 3, H, W), small (B, local_crops, 3, h, w) -> losses (1 + regularizers,)."""
        output = self.output(views.flatten(0, 1), tokens=self.tokens)
        seen = [self.head(output.logits.float()).unflatten(0, views.shape[:2])]
        if small is not None:
            features = self.output(small.flatten(0, 1)).logits.float()
            seen.append(self.head(features).unflatten(0, small.shape[:2]))
        features, taught = self.teach(views)
        self.observe(unit(features), taught)
        sharp = (taught - self.centre) / self.temperature
        own = cross_entropy(torch.cat(seen, 1) / self.settings.temperature, sharp.unflatten(0, views.shape[:2]))
        return self.with_regularizers(own, output)

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """As released: weight decay on all but norms and biases, position embeddings and the class token included."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decayed, others = ([each for each in trained if (each.ndim > 1) == matrix] for matrix in (True, False))
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

    def before_step(self, groups: list[dict[str, Any]], progress: float) -> None:
        """The decay of this step; the last layer stands still in the first epochs."""
        if self.settings.final_weight_decay is not None:
            groups[0]["weight_decay"] = half_cosine(self.recipe.weight_decay, self.settings.final_weight_decay, progress)
        if progress < self.settings.frozen_epochs / self.recipe.epochs:
            for parameter in self.head.last.parameters():
                parameter.grad = None

    def settle(self, seen: Tensor, progress: float) -> None:
        super().settle(seen, progress)
        self.centre.lerp_(seen[self.model.embed_dim :], 1 - CENTRE_MOMENTUM)
        (start, end), sharpening = self.settings.teacher_temperatures, self.settings.sharpening
        self.temperature.fill_(start + (end - start) * min(1.0, progress / sharpening if sharpening else 1.0))

    def chance(self) -> float:
        return math.log(self.settings.out_dim)

    def measured(self) -> nn.Module:
        return self.teacher[0]


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over images, and over pairs of different views, of -sum_k softmax(teacher)_k log softmax(student)_k: logits
    (B, V, K) of all views, and (B, 2, K) of the first two, both divided by their temperatures."""
    pairs = -torch.einsum("buk,bvk->uv", teacher.softmax(-1), student.log_softmax(-1)) / len(student)
    return (pairs.sum() - pairs.diagonal().sum()) / (pairs.numel() - len(pairs))


class Head(nn.Module):
    """(n, dim) -> (n, out_dim): a perceptron of three layers, its output made a unit vector, its cosine with each prototype."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, out_dim: int) -> None:
        super().__init__()
        widths = (dim, hidden, hidden, bottleneck)
        layers = [layer for pair in zip(widths, widths[1:]) for layer in (nn.Linear(*pair), nn.GELU())]
        self.perceptron = nn.Sequential(*layers[:-1])
        for layer in self.perceptron[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last = weight_norm(nn.Linear(bottleneck, out_dim, bias=False))
        norms = self.last.parametrizations.weight.original0
        nn.init.ones_(norms).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(unit(self.perceptron(features)))
