"""What detection and segmentation have in common: ViTDet's backbone, and smaller learning rates for earlier layers."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from sarlib.models.vitdet import ViTDet, layer_groups
from sarlib.run import Run
from sarlib.tasks.task import Task


class OnViTDet(Task):
    """A task whose `model` is a `ViTDet`, on which it builds heads for so many `classes`. It has no regularizers."""

    def __init__(self, run: Run, classes: int) -> None:
        super().__init__(ViTDet(run.model, run.task, image_size=run.data.image_size))
        self.blocks, self.layer_decay = run.model.depth, run.task.layer_decay

    @classmethod
    def of(cls, run: Run, classes: int) -> Self:
        return cls(run, classes)

    def levels(self, pixels: Tensor) -> dict[str, Tensor]:
        """The pyramid of pixels (B, 3, H, W), float32; on a GPU the backbone works in bfloat16."""
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=pixels.is_cuda):
            levels = self.model(pixels)
        return {name: level.float() for name, level in levels.items()}

    def param_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return layer_groups(self, blocks=self.blocks, decay=self.layer_decay, weight_decay=weight_decay)

    def kept(self) -> dict[str, Tensor]:
        """Backbone and heads, by the names of the task's own state dict."""
        return self.state_dict()
