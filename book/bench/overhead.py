"""What each regulariser adds to a training step, for every architecture. Section 5.2 of the paper says +2.9 % for SAR, on average.

Steps are the trainer's own, on one batch of noise: gradient of the weighted losses, and AdamW, without clipping.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.plan import Plan
from sarlib.config import Data, Model, Regularizer
from sarlib.experiments.architectures import architectures
from sarlib.experiments.presets import PRESETS, Preset
from sarlib.run import Run
from sarlib.trainer.distributed import ALONE
from sarlib.trainer.loop import backward, build_objective, build_optimizer

NAME = "training step with each regulariser"
NONE = "none"
BLOCK = "SAR's block"
SAR = "SAR"
DRLOC_ALONE = "DRLoc"
BOTH = "SAR + DRLoc"

#: The losses that could stand in SAR's place: the name of a side, and of the regulariser.
RIVALS = {
    "total variation": "total_variation",
    "disagreement": "disagreement",
    "softmax entropy": "softmax_entropy",
    "pixel entropy": "pixel_entropy",
}

CLASSES = 100

#: Small, so that hundreds of steps on the same images stay finite.
LEARNING_RATE = 1e-5

#: Allowed difference of cross entropies, relative. With DRLoc the last block is computed for all tokens, which rounds differently.
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}


class Step:
    """One training step of `run` a call, always on the batch (`pixels`, `targets`). Steps whose runs have the same architecture start
    from the same weights."""

    def __init__(self, run: Run, pixels: Tensor, targets: Tensor) -> None:
        torch.manual_seed(run.seed)
        self.batch = pixels, targets
        self.weights = [part.weight for part in run.regularizers]
        self.objective = build_objective(run, classes=targets.shape[1]).to(pixels.device).train()
        beside = self.objective.regularizers.parameters()
        self.optimizer = build_optimizer(self.objective.model, run.recipe, beside=beside)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()

    def backward(self) -> Tensor:
        """Leaves the gradient of the weighted losses in the parameters; returns the losses, the cross entropy first."""
        return backward(self.objective, *self.batch, weights=self.weights, pieces=1, ranks=ALONE, note=None)


def measure_overhead(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """One measurement an architecture, at the size of `plan.overhead_preset`. Ratios are over the step without regulariser; SAR's
    also over the step with its block alone, which lacks a LayerNorm and a skip."""
    preset = PRESETS[plan.overhead_preset]
    return [_measure(name, model, preset=preset, plan=plan, device=device) for name, model in architectures(preset).items()], []


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
    """What is timed, the step without regulariser first. DRLoc alone has the stock last block, as Liu et al. trained it; SAR and what
    could stand in its place have row C's of Table 1c."""
    recipe = dataclasses.replace(preset.recipe, lr=LEARNING_RATE)
    unseen = Data(name="digits", image_size=image_size)  # the batch is noise
    setting = preset.setting("noise", unseen, patch_size=model.patch_size, recipe=recipe).with_model(model)
    row_f = setting.row("F")
    return {
        NONE: setting.row("A"),
        BLOCK: setting.row("C"),
        SAR: row_f,
        DRLOC_ALONE: setting.drloc(),
        **{
            side: dataclasses.replace(row_f, regularizer=_in_its_place(preset.regularizer, rival))
            for side, rival in RIVALS.items()
        },
        BOTH: setting.drloc(with_sar=True),
    }


def require_equal_cross_entropies(steps: dict[str, Step], declared: dict[str, Run]) -> list[Check]:
    """Every side has the cross entropy of the side without regulariser that has the same last block. Raises `Unequal` where not."""
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
        return step.objective(*step.batch)[0]


def _in_its_place(regularizer: Regularizer, name: str) -> Regularizer:
    return dataclasses.replace(regularizer, name=name)


def _batch(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, side, side) and targets (B, classes), the same for every architecture."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(plan.overhead_batch, 3, plan.overhead_pixels, plan.overhead_pixels, generator=generator)
    labels = torch.randint(CLASSES, (plan.overhead_batch,), generator=generator)
    return pixels.to(device), F.one_hot(labels, CLASSES).float().to(device)
