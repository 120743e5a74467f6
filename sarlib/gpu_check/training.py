"""Training steps as `sarlib.train` runs them, with SAR and without, against timm's under the same settings; and modes of torch.compile."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import train
from sarlib.bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from sarlib.bench.waits import WAITS, waits
from sarlib.config import ConfigError, Run
from sarlib.data.augment import soft_labels
from sarlib.distributed import ALONE
from sarlib.gpu_check.parts import Found, Task
from sarlib.gpu_check.plan import Plan
from sarlib.throughput import cost

NAME = "training step with optimizer"
STOCK = "timm"
BASELINE = "sarlib"
SAR = "sarlib + SAR"

MODES = "training step by mode of torch.compile"

#: Small, so that hundreds of steps on the same images stay finite.
LEARNING_RATE = 1e-5

#: Allowed difference between the losses of the two implementations, relative: bfloat16 on a GPU.
TOLERANCE = 1e-2


class Stock(nn.Module):
    """What a training of timm's model minimises, in the form of `sarlib.objective.Objective`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16) if pixels.is_cuda else nullcontext():
            logits = self.model(pixels)
        return F.cross_entropy(logits.float(), targets).view(1)


class Step:
    """One step of the trainer on `losses` a call: gradient, its norm and clipping, AdamW. `compiled` are torch.compile's settings."""

    def __init__(self, losses: nn.Module, run: Run, compiled: Mapping[str, Any]) -> None:
        self.weights = [run.regularizer.weight] if run.regularizer.weight else []
        self.clip = run.recipe.clip
        self.uncompiled = losses.train()
        recipe = dataclasses.replace(run.recipe, lr=LEARNING_RATE)
        self.optimizer = train.build_optimizer(losses.model, recipe)
        torch._functorch.config.donated_buffer = False  # as in the trainer
        self.losses = torch.compile(losses, **compiled)

    def __call__(self, pixels: Tensor, targets: Tensor) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        train.backward(self.losses, pixels, targets, weights=self.weights, pieces=1, ranks=ALONE, note=None)
        train.clip(self.uncompiled, self.clip)
        self.optimizer.step()


def find(task: Task) -> Iterator[Found]:
    """Steps on the same synthetic batch, in turns; then what they cost."""
    device, plan = torch.device(task.device), task.plan
    batch_size = _largest_batch(plan, device)
    batch = synthetic(plan, batch_size, device)
    stock, baseline, sar = _stock(plan, device), objective(plan, "A", device), objective(plan, "F", device)
    check = _require_equal(stock, baseline, batch)
    runs = {STOCK: plan.setting.row("A"), BASELINE: plan.setting.row("A"), SAR: plan.setting.row("F")}
    compiled = next(iter(plan.compiled.values()))
    steps = {
        name: Step(losses, runs[name], compiled)
        for name, losses in zip((STOCK, BASELINE, SAR), (stock, baseline, sar), strict=True)
    }
    sides = [Side(name=name, run=lambda step=step: step(*batch)) for name, step in steps.items()]
    settings = _settings(plan, batch_size, device)
    measured = measure(
        NAME, sides, effort=plan.training, now=clock(device), settings=settings, checks=[check], pairs=[(SAR, BASELINE)]
    )
    yield Found(measurements=(measured,), facts=_speeds(measured))
    yield Found(facts=_costs(plan, runs, measured, device))
    if device.type == "cuda":
        for side in sides:
            yield Found(facts=_memory_and_waits(side, device, {**settings, "side": side.name}))


def find_modes(task: Task) -> Iterator[Found]:
    """The step with SAR by other modes of torch.compile, each against the default in turns."""
    device, plan = torch.device(task.device), task.plan
    (default, settings), *others = plan.compiled.items()
    batch = synthetic(plan, plan.fed_batch, device)

    def side(name: str, compiled: Mapping[str, Any]) -> Side:
        step = Step(objective(plan, "F", device), plan.setting.row("F"), compiled)
        return Side(name=name, run=lambda: step(*batch))

    first = side(default, settings)
    for name, other in others:
        sides = [first, side(name, other)]
        where = _settings(plan, plan.fed_batch, device)
        yield Found(measurements=(measure(MODES, sides, effort=plan.training, now=clock(device), settings=where),))


def objective(plan: Plan, row: str, device: torch.device) -> nn.Module:
    """What the trainer minimises in that row of Table 1c; the same initial weights for every row and for timm's model."""
    torch.manual_seed(0)
    return train.build_objective(plan.setting.row(row), classes=plan.classes).to(device)


def synthetic(plan: Plan, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch that is on the device already: noise (size, 3, S, S) and smoothed labels (size, classes)."""
    torch.manual_seed(1)
    side = plan.setting.baseline.data.image_size
    labels = torch.randint(plan.classes, (size,), device=device)
    smoothing = plan.setting.baseline.augmentation.label_smoothing
    return torch.randn(size, 3, side, side, device=device), soft_labels(labels, classes=plan.classes, smoothing=smoothing)


def _stock(plan: Plan, device: torch.device) -> Stock:
    """timm's own `vit_small_patch16_224`, at the sizes of the plan."""
    run = plan.setting.baseline
    sizes = {
        "embed_dim": run.model.dim,
        "depth": run.model.depth,
        "num_heads": run.model.heads,
        "mlp_ratio": run.model.mlp_ratio,
    }
    sizes |= {"img_size": run.data.image_size, "patch_size": run.model.patch_size, "num_classes": plan.classes}
    torch.manual_seed(0)
    return Stock(timm.create_model("vit_small_patch16_224", drop_path_rate=run.model.drop_path, **sizes)).to(device)


def _largest_batch(plan: Plan, device: torch.device) -> int:
    """The first of the plan's sizes at which timm's step, not compiled, finds enough memory; compiled ones need less."""
    for size in plan.batches:
        try:
            Step(_stock(plan, device), plan.setting.baseline, {"disable": True})(*synthetic(plan, size, device))
            return size
        except torch.OutOfMemoryError:
            pass
        finally:  # nothing of the trial may lie about when the next begins
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    raise ConfigError(f"not even batches of {plan.batches[-1]} images fit into the memory of this device")


def _require_equal(stock: nn.Module, baseline: nn.Module, batch: tuple[Tensor, Tensor]) -> Check:
    """Both give the same loss with timm's weights, or `Unequal` is raised."""
    baseline.model.load_state_dict(stock.model.state_dict())
    few = [tensor[:8] for tensor in batch]
    with torch.no_grad():
        found, reference = (losses.eval()(*few) for losses in (baseline, stock))
    return require_equal(BASELINE, STOCK, what="loss", found=found, reference=reference, tolerance=TOLERANCE)


def _settings(plan: Plan, batch_size: int, device: torch.device) -> dict[str, Any]:
    run = plan.setting.baseline
    precision = "bfloat16" if device.type == "cuda" else "float32"
    return {"model": plan.setting.dataset, "B": batch_size, "pixels": run.data.image_size, "precision": precision}


def _speeds(measured: Measurement) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            name="speed",
            settings={**measured.settings, "side": timing.name},
            value=measured.settings["B"] / timing.median,
            unit="images/s",
        )
        for timing in measured.timings
    )


def _costs(plan: Plan, runs: Mapping[str, Run], measured: Measurement, device: torch.device) -> tuple[Fact, ...]:
    """Executed FLOPs of an image and, where the device's peak is known, the share of it that is reached."""
    facts = []
    for fact in _speeds(measured):
        if (side := fact.settings["side"]) != STOCK:
            spent = cost(runs[side], classes=plan.classes, images_per_second=fact.value, device=device, processes=1)
            facts += [
                Fact(name=name, settings=fact.settings, value=value, unit="FLOP" if name == "flops_per_image" else "of peak")
                for name, value in spent.items()
            ]
    return tuple(facts)


def _memory_and_waits(side: Side, device: torch.device, settings: dict[str, Any]) -> tuple[Fact, ...]:
    """Memory that a step needs beside all models and optimizers, and how often the host waits in it."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    side.run()
    peak = torch.cuda.max_memory_allocated(device) - before
    return (
        Fact(name="peak memory of a training step", settings=settings, value=peak / 2**20, unit="MiB"),
        Fact(name=f"{WAITS} of a training step", settings=settings, value=waits(side.run), unit="a call"),
    )
