"""What each regularizer adds to a training step, for every architecture. The paper, section 5.2: +2.9 % for SAR on average.

A step is the gradient of the weighted losses that a training minimises, on one batch of noise, and AdamW; without clipping.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.plan import Plan
from sarlib import tasks
from sarlib.config import Data, Model
from sarlib.experiments.presets import PRESETS, Preset, Training
from sarlib.experiments.settings import Sets
from sarlib.run import Run

NAME = "training step with each regulariser"
NONE = "none"
BLOCK = "SAR's block"
SAR = "SAR"
DRLOC_ALONE = "DRLoc"
BOTH = "SAR + DRLoc"

#: The losses that could stand in SAR's place: the name of a side, and of the regularizer.
BASELINES = {
    "total variation": "total_variation",
    "disagreement": "disagreement",
    "softmax entropy": "softmax_entropy",
    "pixel entropy": "pixel_entropy",
}

CLASSES = 100

#: Small, so that hundreds of steps on the same images stay finite.
LEARNING_RATE = 1e-5

#: Allowed relative difference of cross entropies. With DRLoc the last block is computed for all tokens and rounds differently.
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}


class Step:
    """One training step of `run` a call, always on the batch (`pixels`, `targets`).

    Steps whose runs have the same architecture start from the same weights.
    """

    def __init__(self, run: Run, pixels: Tensor, targets: Tensor) -> None:
        torch.manual_seed(run.seed)
        self.batch = pixels, targets
        self.task = tasks.create(run, targets.shape[1]).to(pixels.device).train()
        self.weights = torch.tensor([1.0, *(each.weight for each in run.regularizers)], device=pixels.device)
        settings = {"lr": LEARNING_RATE, "betas": run.recipe.betas, "weight_decay": run.recipe.weight_decay}
        self.optimizer = torch.optim.AdamW(self.task.parameters(), fused=True, **settings)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()

    def backward(self) -> None:
        """Leaves the gradient of the weighted losses in the parameters."""
        (self.task(*self.batch) @ self.weights).backward()


def measure_overhead(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """One measurement an architecture, at the size of `plan.overhead_preset`.

    Ratios are over the step without regularizer; SAR's also over that with its block alone, which lacks a LayerNorm and a skip.
    """
    preset = PRESETS[plan.overhead_preset]
    models = preset.architectures()
    return [_measure(name, model, preset=preset, plan=plan, device=device) for name, model in models.items()], []


def _measure(name: str, model: Model, *, preset: Preset, plan: Plan, device: torch.device) -> Measurement:
    batch = _batch(plan, device)
    declared = sides(model, preset=preset, image_size=plan.overhead_pixels)
    steps = {side: Step(run, *batch) for side, run in declared.items()}
    checks = require_equal_cross_entropies(steps, declared)
    settings = {
        "architecture": name,
        "dim": model.dim,
        "depth": model.depth,
        "B": plan.overhead_batch,
        "pixels": plan.overhead_pixels,
        "compiled": False,
        "precision": "bfloat16" if device.type == "cuda" else "float32",
        "threads": torch.get_num_threads(),
    }
    timed = [Side(name=side, run=step) for side, step in steps.items()]
    return measure(NAME, timed, effort=plan.overhead, now=clock(device), settings=settings, checks=checks, pairs=[(SAR, BLOCK)])


def sides(model: Model, *, preset: Preset, image_size: int) -> dict[str, Run]:
    """What is timed, the step without regularizer first.

    DRLoc alone has the stock last block, as Liu et al. trained it; SAR and its baselines have that of row C of Table 1c.
    """
    unseen = Data(name="digits", image_size=image_size)  # the batch is noise
    noise = Training(data=unseen, label="noise", patch_size=model.patch_size)
    setting = Sets(preset, None).setting(noise).with_model(model)
    sar, drloc = setting.regularizer, setting.drloc
    in_its_place = {side: setting.regularized(dataclasses.replace(sar, name=name)) for side, name in BASELINES.items()}
    return {
        NONE: setting.row("A"),
        BLOCK: setting.row("C"),
        SAR: setting.regularized(sar),
        DRLOC_ALONE: dataclasses.replace(setting.row("A"), regularizers=(drloc,)),
        **in_its_place,
        BOTH: setting.regularized(sar, drloc),
    }


def require_equal_cross_entropies(steps: dict[str, Step], declared: dict[str, Run]) -> list[Check]:
    """Every side has the cross entropy of the one without regularizer on the same last block. Raises `Unequal` where not."""
    plain = {declared[name].model.variant: name for name in (NONE, BLOCK)}
    found = {name: _cross_entropy(step) for name, step in steps.items()}
    tolerance = TOLERANCE[steps[NONE].batch[0].device.type]
    checks = []
    for name, run in declared.items():
        against = plain[run.model.variant]
        if name != against:
            terms = {"found": found[name], "reference": found[against], "tolerance": tolerance}
            checks.append(require_equal(name, against, what="cross entropy", **terms))
    return checks


def _cross_entropy(step: Step) -> Tensor:
    torch.manual_seed(0)  # the same branches are dropped from each model
    with torch.no_grad():
        return step.task(*step.batch)[0]


def _batch(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, side, side) and targets (B, classes), the same for every architecture."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(plan.overhead_batch, 3, plan.overhead_pixels, plan.overhead_pixels, generator=generator)
    labels = torch.randint(CLASSES, (plan.overhead_batch,), generator=generator)
    return pixels.to(device), F.one_hot(labels, CLASSES).float().to(device)
