"""What DINO and MoCo-v3 share: a student, a teacher that follows it, views without labels, and a word for a collapse."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import models
from sarlib.data.images import Images
from sarlib.data.views import ViewBatches
from sarlib.run import Run
from sarlib.tasks.masks import map_metrics
from sarlib.tasks.task import Task

#: A training is given so many steps, and more than twice the epochs of its warm-up, before it can be called collapsed: all
#: start with the loss of a guess.
PATIENCE = 500


class SelfSupervised(Task):
    """A student (the network without classifier, and a `head`) learns from a teacher of the same build, its moving average.

    A task defines `add_heads`, `forward`, and `chance`, the loss of a guess. The regularizers see the student's global views
    alone. Metrics are `map_metrics`; what the features are worth is measured of the finished run (`measures/features.py`).
    """

    #: timm's name for how the network is initialised.
    weight_init = ""

    @classmethod
    def network(cls, run: Run, classes: int) -> nn.Module:
        settings = {"dynamic_img_size": True, "weight_init": cls.weight_init}
        return models.create(run.model, classes=0, image_size=run.data.image_size, **settings)

    @classmethod
    def of(cls, run: Run, classes: int) -> Self:
        """As for any task, and then the heads."""
        task = super().of(run, classes)
        task.settings, task.recipe, task.rank, task.processes = run.task.self_supervision, run.recipe, 0, 1
        task.local_size = task.settings.local_tokens * run.model.patch_size
        task.add_heads(run.model.dim)
        task.teacher = copy.deepcopy(nn.ModuleList([task.model, task.head])).requires_grad_(False).eval()
        task.register_buffer("spread", torch.ones(()))
        return task

    def add_heads(self, dim: int) -> None:
        """Adds `head`, from `dim` to `settings.out_dim`, the buffer `seen` (`observe`), and what else is trained beside."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """The teacher has no stochastic depth."""
        super().train(mode)
        self.teacher.eval()
        return self

    def batches(self, images: Images, run: Run, **placement: Any) -> ViewBatches:
        """Batches of views. The heads' statistics and the keys are of all processes that share them from now on."""
        self.rank, processes = placement.get("rank", 0), placement.get("world_size", 1)
        for module in self.modules():
            if hasattr(module, "processes"):
                module.processes = processes
        settings = {"views": self.settings, "local_size": self.local_size, "batch_size": run.recipe.batch_size}
        return ViewBatches(images, **settings, image_size=run.data.image_size, seed=run.seed, **placement)

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, ...]:
        shapes = [(images, 2, 3, image_size, image_size)]
        if self.settings.local_crops:
            shapes.append((images, self.settings.local_crops, 3, self.local_size, self.local_size))
        return tuple(map(torch.rand, shapes))

    @torch.no_grad()
    def teach(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features (2B, dim) and head (2B, out_dim) of views (B, 2, 3, H, W), float32."""
        model, head = self.teacher
        features = self.output(views.flatten(0, 1), model=model).logits.float()
        return features, head(features)

    def observe(self, *rows: Tensor) -> None:
        """Adds the means of rows (n, ·), the teacher's unit features first, to what this step has `seen`: a buffer of the sums
        over micro-batches, and how many."""
        self.seen += torch.cat([*(each.detach().mean(0) for each in rows), self.seen.new_ones(1)])

    def after_step(self, progress: float) -> None:
        momentum = half_cosine(self.settings.momentum, 1.0, progress)
        student = [*self.model.parameters(), *self.head.parameters()]
        with torch.no_grad():
            torch._foreach_lerp_(list(self.teacher.parameters()), student, 1 - momentum)
            if self.processes > 1:
                torch.distributed.all_reduce(self.seen)
            self.settle(self.seen[:-1] / self.seen[-1].clamp(min=1), progress)
            self.seen.zero_()

    def settle(self, seen: Tensor, progress: float) -> None:
        """What else moves after a step; seen: the means that the batch's `observe` were given, over all processes."""
        self.spread.copy_(1 - seen[: self.model.embed_dim].square().sum())

    def failure(self, loss: float, epochs: int, steps: int) -> str:
        if steps < PATIENCE or epochs <= 2 * self.recipe.warmup_epochs:
            return ""
        advice = "lower the teacher's temperature or the learning rate"
        if self.spread < 1e-4:
            return f"it has collapsed, all features are the same (spread {self.spread:.1e} of 1): {advice}"
        if loss >= 0.999 * self.chance():
            return f"it has collapsed, the {self.own_loss} is {loss:.4g}, and {self.chance():.4g} that of a guess: {advice}"
        return ""

    def chance(self) -> float:
        """The task's loss where the student's guess is flat."""
        raise NotImplementedError

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        return map_metrics(self.output(pixels, model=self.measured()).similarity, images, indices)

    def measured(self) -> nn.Module:
        """The network that is measured and stored."""
        return self.model

    def kept(self) -> dict[str, Tensor]:
        return self.measured().state_dict()


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at 0 to `end` at 1, in half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)
