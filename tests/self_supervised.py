"""The smallest runs of both hosts."""

from __future__ import annotations

import dataclasses

from smallest import SMALLEST

from sarlib.config import Augmentation, SelfSupervision, Task
from sarlib.run import Run

VIEWS = SelfSupervision(out_dim=12, hidden=16, bottleneck=8, temperature=0.1, momentum=0.9, local_crops=2, local_tokens=2)
_SMALLER = dataclasses.replace(SMALLEST, augmentation=Augmentation())
DINO = dataclasses.replace(_SMALLER, task=Task(name="dino", self_supervision=VIEWS))
MOCO = dataclasses.replace(
    _SMALLER, task=Task(name="moco", self_supervision=dataclasses.replace(VIEWS, local_crops=0, temperature=0.2))
)


def with_views(run: Run, **changes: object) -> Run:
    return dataclasses.replace(
        run, task=dataclasses.replace(run.task, self_supervision=dataclasses.replace(run.task.self_supervision, **changes))
    )
