"""A finished run as measures see it: its network or task with the trained weights, and the images that it is shown."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarlib import config, data, last_block, models, tasks
from sarlib.config import require
from sarlib.data.images import Images, in_memory
from sarlib.data.loader import evaluation_batches
from sarlib.run import Measurement, Run

if TYPE_CHECKING:
    from sarlib.tasks.task import Task


@dataclass(frozen=True)
class Finished:
    """A run, the weights that it left, the folder of real data sets, and where it is measured."""

    run: Run
    weights: Mapping[str, Tensor]
    root: Path | None = None
    device: torch.device = torch.device("cpu")

    def network(self, image_size: int | None = None) -> nn.Module:
        """The network, without classifier if the weights have none, in evaluation mode, for images of the run's own size or of
        another one in pixels."""
        own, architecture = self.run.data.image_size, self.run.model
        model = models.create(architecture, classes=len(self.weights.get("head.weight", ())), image_size=own)
        model.load_state_dict(self.weights)
        if image_size not in (None, own):
            require(hasattr(model, "set_input_size"), f"{architecture.name} is measured at its own {own} px only")
            model.set_input_size((image_size, image_size))
        return model.eval().to(self.device)

    def task(self, *, classes: int) -> Task:
        """The task, heads and all, in evaluation mode."""
        task = tasks.create(self.run, classes)
        task.load_state_dict(self.weights)
        return task.eval().to(self.device)

    def shown(self, wanted: Measurement) -> dict[str, Any]:
        """How images are shown: what `evaluation_batches` takes beside them."""
        size, batch = wanted.data.image_size, self.run.recipe.evaluation_batch_size
        return {"image_size": size, "batch_size": batch, "device": self.device}

    def sets(self, wanted: Measurement) -> tuple[Images, Images]:
        """The training images that the run's seed draws of a set, and the first of its test images."""
        train, test = data.load(wanted.data, seed=self.run.seed, root=self.root)
        return train, test.subset(range(min(wanted.images or len(test), len(test))))

    def images(self, wanted: Measurement) -> Images:
        """The first of the test images, in memory."""
        return first_images(wanted.data, wanted.images, root=self.root)

    def similarity(self, wanted: Measurement) -> Tensor:
        """S of these images, of clips frame by frame, (n, H, k, k)."""
        batch_size = self.run.recipe.evaluation_batch_size
        return similarity(self.network(wanted.data.image_size), self.images(wanted).by_frame(), batch_size=batch_size)


@functools.lru_cache(maxsize=4)  # a process measures one run after the other on the same few sets
def first_images(spec: config.Data, count: int | None = None, *, root: Path | None = None) -> Images:
    """The first `count` test images of a set (None: all), in memory at the declared size; the same whatever the seed of a run.

    `root` is the folder of real data sets. `ConfigError` as from `sarlib.data.load`, and for less than one image.
    """
    require(count is None or count > 0, f"maps are of one image or more, got {count}")
    _, test = data.load(spec, seed=0, root=root)
    shown = test.subset(range(min(count or len(test), len(test))))
    if shown.files is None:
        return shown
    return dataclasses.replace(in_memory(shown, spec.image_size), crop=shown.crop and 1.0)  # None, the whole image, stays


def outputs(
    model: nn.Module, images: Images, *, image_size: int, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, last_block.Output]]:
    """By batches the pixels, normalised and on the device, the images' indices, and what a network in evaluation mode finds."""
    workers = (os.cpu_count() or 1) if device.type == "cuda" else 0  # which decode images that are files
    shown = {"image_size": image_size, "batch_size": batch_size, "device": device, "data_workers": workers}
    for pixels, index in evaluation_batches(images, **shown):
        with torch.no_grad():
            found = last_block.forward(model, pixels)
        yield pixels, index, found


def similarity(model: nn.Module, images: Images, *, batch_size: int) -> Tensor:
    """Equation 4 of a network in evaluation mode: (n, H, k, k) float32 on the CPU; row 0 is the top of the image."""
    shown = {"image_size": images.image_size[0], "batch_size": batch_size, "device": next(model.parameters()).device}
    return torch.cat([found.similarity.cpu() for *_, found in outputs(model, images, **shown)])
