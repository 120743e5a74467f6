"""What a run can learn: a file each, with its target, its loss and what is measured of it. Importing this imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sarlib.run import Run
    from sarlib.tasks.task import Task

#: By `config.Task.name`, which is also the name of the file: the class in it.
TASKS = {
    "classification": "Classification",
    "detection": "Detection",
    "multilabel": "MultiLabel",
    "segmentation": "Segmentation",
    "dino": "DINO",
    "moco": "MoCo",
}


def create(run: Run, classes: int) -> Task:
    """The untrained task of `run`, drawn from torch's global random state: the network first, then the regularizers."""
    module = importlib.import_module(f"sarlib.tasks.{run.task.name}")
    return getattr(module, TASKS[run.task.name]).of(run, classes)
