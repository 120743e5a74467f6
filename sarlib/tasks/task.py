"""What every task has in common: a network, the run's regularizers, and how they are trained, measured and stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from sarlib import last_block, models, regularizers
from sarlib.data.images import Images
from sarlib.data.loader import TrainBatches, evaluation_batches
from sarlib.run import Run
from sarlib.tasks.masks import mean_over_objects


class Task(nn.Module):
    """One module, which DistributedDataParallel and torch.compile can take whole, and whose state dict a checkpoint holds.

    A task defines `forward(*batch)`, the losses (1 + regularizers,) of a batch, float32, unweighted, its own first, further
    `measure_batch` and `example_batch`, and of the other methods those in which it differs. A batch is a tuple of tensors with
    one row an image; the training loop knows no more of it.
    """

    #: What messages call the task's own loss.
    own_loss = "loss"
    #: What its training batches are made by.
    batch_type = TrainBatches
    #: Whether a batch may be taken in micro_batches: the mean of their losses is the batch's.
    divisible = True
    #: Whether each parameter's gradient is clipped by itself, or all of them together.
    clips_each = False

    def __init__(self, model: nn.Module, regularizers: Mapping[str, nn.Module] | None = None) -> None:
        """model: answers `sarlib.last_block.forward`. regularizers: by name; some have parameters of their own, as DRLoc."""
        super().__init__()
        named = regularizers or {}
        self.model, self.regularizers = model, nn.ModuleList(named.values())
        self.loss_names = (self.own_loss, *named)
        self.tokens = any(regularizer.needs_tokens for regularizer in self.regularizers)

    @classmethod
    def of(cls, run: Run, classes: int) -> Self:
        """The task of a run, drawn from torch's global random state: the network first, then the regularizers."""
        model, side = run.model, run.data.image_size // run.model.patch_size
        network = cls.network(run, classes)
        settings = {"dim": model.dim, "heads": model.heads, "grid": (side, side)}
        return cls(network, {part.name: regularizers.create(part, **settings) for part in run.regularizers})

    @classmethod
    def network(cls, run: Run, classes: int) -> nn.Module:
        return models.create(run.model, classes=classes, image_size=run.data.image_size)

    def output(self, pixels: Tensor, *, tokens: bool = False, model: nn.Module | None = None) -> last_block.Output:
        """The network's, or another `model`'s, of pixels (B, 3, H, W): in bfloat16 on a GPU, in float32 on a CPU."""
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=pixels.is_cuda):
            return last_block.forward(self.model if model is None else model, pixels, tokens=tokens)

    def with_regularizers(self, own: Tensor, output: last_block.Output) -> Tensor:
        """The losses of a batch (1 + regularizers,): the task's `own`, a scalar, and those of the network's `output`."""
        return torch.stack([own, *(regularizer(output).float() for regularizer in self.regularizers)])

    def batches(self, images: Images, run: Run, **placement: Any) -> TrainBatches:
        """Training batches of `run`; `placement` is what `TrainBatches` takes beside: device, data_workers, rank and
        world_size."""
        settings = {"batch_size": run.recipe.batch_size, "image_size": run.data.image_size, "seed": run.seed}
        return self.batch_type(images, augmentation=run.augmentation, **settings, **placement)

    def example_batch(self, images: int, image_size: int) -> tuple[Tensor, ...]:
        """A batch of noise of `images` images, to count operations with."""
        raise NotImplementedError

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """For the optimizer: the network's, its norms, biases and what it names itself without weight decay, and all others.

        The learning rate of a group is the schedule's times its `lr_scale`, if it has one.
        """
        groups = param_groups_weight_decay(self.model, weight_decay, no_weight_decay_list=self.model.no_weight_decay())
        of_model = set(self.model.parameters())
        if others := [each for each in self.parameters() if each.requires_grad and each not in of_model]:
            groups.append({"params": others, "weight_decay": weight_decay})
        return groups

    def before_step(self, groups: list[dict[str, Any]], progress: float) -> None:
        """Called when the gradient is there and clipped, with the optimizer's parameter groups and the share of the training
        that is done, at least 0 and below 1: what the groups' settings or single gradients are in this step."""

    def after_step(self, progress: float) -> None:
        """Called after each step of the optimizer, with the share of the training that is done, above 0 and at most 1.

        What changes here has to be a parameter or a buffer, so that it is in the checkpoint.
        """

    def failure(self, loss: float, epochs: int, steps: int) -> str:
        """Why it is no use to go on after an epoch with this mean of the task's own loss, so many `epochs` and `steps` after
        the start; else ""."""
        return ""

    def evaluate(self, images: Images, **settings: Any) -> dict[str, float]:
        """Every metric of the task on a test set, by name; `settings` are those of `measure`."""
        return self.summarize(self.measure(images, **settings))

    def measure(
        self, images: Images, *, batch_size: int, image_size: int, device: torch.device, data_workers: int = 0
    ) -> dict[str, Tensor]:
        """What `summarize` takes, a row an image, float64 on the CPU; in evaluation mode. `data_workers` decode files."""
        shown = evaluation_batches(
            images, batch_size=batch_size, image_size=image_size, device=device, data_workers=data_workers
        )
        with last_block.evaluating(self), torch.inference_mode():
            batches = [self.measure_batch(pixels, images, indices) for pixels, indices in shown]
        return {name: torch.cat([batch[name] for batch in batches]).double().cpu() for name in batches[0]}

    def measure_batch(self, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
        """One row (B, ...) for each of the images[indices], whose normalised pixels (B, 3, H, W) are on the device; by name."""
        raise NotImplementedError

    def summarize(self, measured: dict[str, Tensor]) -> dict[str, float]:
        """From the rows of all images to metrics: means over images, of `jaccard` over those that show an object."""
        return {name: mean_over_objects(rows) if name == "jaccard" else rows.mean().item() for name, rows in measured.items()}

    def kept(self) -> dict[str, Tensor]:
        """The weights that are stored with the finished run, by the names of the network's state dict."""
        return self.model.state_dict()
