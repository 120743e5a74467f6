"""How much is done: on a GPU for figures, or in a rehearsal on a CPU to see that every part works."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sarlib.bench import plan as bench_plan
from sarlib.bench.interleaved import Effort
from sarlib.config import Data, Model, Run
from sarlib.experiments.declaration import Setting
from sarlib.experiments.presets import PAPER
from sarlib.recipes import DEIT_AUGMENTATION, DEIT_RECIPE, DRLOC


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and efforts.

    Kernel: `images` maps a head with `heads` heads, for each of `grids` and `kinds`. Training: `setting` with so many `classes`, at the
    largest of `batches` that fits; `compiled` are the settings of torch.compile by name, the first of which is the trainer's own.
    Feeding: batches of `fed_batch` from `pictures` images. `tables` at `preset` with `seeds` (None: the preset's).
    """

    trial: bool
    grids: tuple[int, ...]
    kinds: tuple[str, ...]
    images: int
    heads: int
    benchmark: bench_plan.Plan
    setting: Setting
    classes: int
    batches: tuple[int, ...]
    compiled: Mapping[str, Mapping[str, Any]]
    training: Effort
    fed_batch: int
    pictures: int
    feeding: Effort
    tables: tuple[str, ...]
    preset: str
    seeds: int | None


def full() -> Plan:
    """Figures, in eight minutes on one H100, and then tables."""
    benchmark = dataclasses.replace(
        bench_plan.full(torch.device("cuda")), compiled=(True,), loss=Effort(seconds=2.0, rounds=(3, 60))
    )
    return Plan(
        trial=False,
        grids=(7, 14, 16, 28),
        kinds=("random", "smooth", "adversarial"),
        images=64,
        heads=6,
        benchmark=benchmark,
        setting=_setting("ViT-S/16", PAPER.model, image_size=224),
        classes=1000,
        batches=(1024, 512, 256),
        compiled={
            "default": {},
            "reduce-overhead": {"mode": "reduce-overhead"},
            "max-autotune-no-cudagraphs": {"mode": "max-autotune-no-cudagraphs"},
        },
        training=Effort(seconds=30.0, rounds=(9, 300), sample_seconds=0.25),
        fed_batch=256,
        pictures=8192,
        # Long samples: a side that reads ahead begins each of its turns with two batches that were made in the others' time.
        feeding=Effort(seconds=64.0, rounds=(6, 60), sample_seconds=2.0),
        tables=("table2", "table4"),
        preset="gpu",
        seeds=None,
    )


def rehearsal() -> Plan:
    """Everything once, at sizes at which times mean nothing."""
    effort = Effort(seconds=0.0, rounds=(2, 2), sample_seconds=0.0)
    return Plan(
        trial=True,
        grids=(7, 14),
        kinds=("random", "adversarial"),
        images=2,
        heads=2,
        benchmark=dataclasses.replace(bench_plan.trial(), batches=(4,), grids=(7,), kinds=("random",), rival_grid=7),
        setting=_setting("a small ViT", Model(patch_size=8, dim=24, depth=2, heads=2, drop_path=0.1), image_size=32),
        classes=10,
        batches=(4,),
        compiled={"not compiled": {"disable": True}, "aot_eager": {"backend": "aot_eager"}},
        training=effort,
        fed_batch=4,
        pictures=12,
        feeding=effort,
        tables=("table4",),
        preset="tiny",
        seeds=1,
    )


def _setting(name: str, model: Model, *, image_size: int) -> Setting:
    """`model` under DeiT's recipe; the images are made where it is measured."""
    run = Run(data=Data(name=name, image_size=image_size), model=model, recipe=DEIT_RECIPE, augmentation=DEIT_AUGMENTATION)
    return Setting(dataset=name, baseline=run, regularizer=PAPER.regularizer, rival=DRLOC[model.name])
