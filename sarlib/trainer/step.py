"""Where a training is, and all that a checkpoint holds of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sarlib.config import TrainingError
from sarlib.run import Run
from sarlib.trainer import checkpoint
from sarlib.trainer.distributed import Ranks
from sarlib.trainer.objective import Objective


@dataclass
class Progress:
    """Where a training is: everything a checkpoint holds beside the tensors. `history` has one row a measurement:
    epoch, split (train or test), metric, value."""

    epoch: int = 0
    step: int = 0  # steps done within `epoch`
    seconds: float = 0.0
    waited: float = 0.0  # seconds of those in which the first process waited for its next batch
    losses: list[list[float]] = field(default_factory=list)  # (task, regularisers ...) of the steps done within `epoch`
    history: list[dict[str, Any]] = field(default_factory=list)

    def record(self, split: str, measured: dict[str, float]) -> None:
        self.history += [
            {"epoch": self.epoch, "split": split, "metric": name, "value": value} for name, value in measured.items()
        ]


@dataclass(frozen=True)
class State:
    """All that a checkpoint holds of a training."""

    run: Run
    folder: Path
    objective: Objective
    optimizer: torch.optim.Optimizer
    ema: nn.Module | None

    def save(self, progress: Progress) -> None:
        state = {
            "key": self.run.key,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "progress": vars(progress),
        }
        checkpoint.save(self.folder, state)

    def resume(self, device: torch.device, ranks: Ranks) -> Progress:
        """Puts what the checkpoint holds in place of the fresh state; a fresh `Progress` if there is none.

        The first process looks first, so that a broken checkpoint is set aside once.
        """
        state = checkpoint.load(self.folder, key=self.run.key, device=device) if ranks.first else None
        if not ranks.broadcast(state is not None):
            return Progress()
        if not ranks.first:
            state = checkpoint.load(self.folder, key=self.run.key, device=device)
        if state is None:
            raise TrainingError(
                f"process {ranks.rank} does not see the checkpoint in {self.folder}: the runs folder must be shared by all machines"
            )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        return Progress(**state["progress"])
