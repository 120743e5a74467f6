"""A training step of a ViT: timm's own, with the class-token row of the last block alone, and with the paper's method on top."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import last_block
from sarlib.bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from sarlib.bench.plan import Plan
from sarlib.entropy import spatial_entropy
from sarlib.plugin import SAR

NAME = "training step"
STOCK = "timm"
CLASS_ROW = "CLS-only last block"
WITHOUT_SKIP = "CLS-only last block of C"
METHOD = "CLS-only last block of C + SAR"
PLUGIN = "timm + SAR plug-in"

#: The loss's weight. Its value does not matter for the time.
WEIGHT = 0.01

#: Small, so that hundreds of steps on the same images stay finite.
LEARNING_RATE = 1e-5

#: Allowed difference of logits, loss and gradients in float32, relative to the largest value of each tensor.
TOLERANCE = 1e-3

Objective = Callable[[Tensor, Tensor], Tensor]


def measure_step(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """Forward, backward and AdamW step of all sides, eager and compiled as the plan says; on a GPU in bfloat16 with peak memory."""
    torch.manual_seed(0)
    stock = timm.create_model(plan.model, **plan.overrides).to(device).train()
    images = torch.randn(plan.step_batch, 3, plan.image_size, plan.image_size, device=device)
    labels = torch.randint(stock.num_classes, (plan.step_batch,), device=device)
    checks = require_equal_steps(stock, images[: plan.check_batch], labels[: plan.check_batch])
    measurements, facts = [], []
    for compiled in plan.compiled:
        settings = {
            "model": plan.model,
            "B": plan.step_batch,
            "pixels": plan.image_size,
            "compiled": compiled,
            "precision": "bfloat16" if device.type == "cuda" else "float32",
            "threads": torch.get_num_threads(),
        }
        sides = [
            Side(name=name, run=_step(model, torch.compile(objective) if compiled else objective, images, labels))
            for name, model, objective in _sides(stock)
            if not (compiled and name == PLUGIN)  # its hooks are made for compiled models, not for compiled losses
        ]
        pairs = [(METHOD, WITHOUT_SKIP)]
        measurements.append(measure(NAME, sides, effort=plan.step, now=clock(device), settings=settings, checks=checks, pairs=pairs))
        if device.type == "cuda":
            facts += [_peak_memory(side, device, settings) for side in sides]
    return measurements, facts


def require_equal_steps(stock: nn.Module, images: Tensor, labels: Tensor) -> list[Check]:
    """In float32: logits, loss and gradients of the class-token row are those of timm's forward, and in row C, with the entropy, those
    of the full last block. Raises `Unequal` where they are not."""
    row_c = _row_c(stock)
    return [
        *_require_equal_pass(CLASS_ROW, _class_row(stock), STOCK, _timm(stock), stock, images, labels),
        *_require_equal_pass(METHOD, _method(row_c), "full last block of C + SAR", _full_block(row_c), row_c, images, labels),
    ]


def _require_equal_pass(
    name: str, objective: Objective, against: str, reference: Objective, model: nn.Module, images: Tensor, labels: Tensor
) -> list[Check]:
    ours, theirs = (_loss_and_gradients(each, model, images, labels) for each in (objective, reference))
    checks = [
        require_equal(name, against, what=what, ours=ours[what], theirs=theirs[what], tolerance=TOLERANCE) for what in theirs
    ]
    return [checks[0], max(checks[1:], key=lambda check: check.difference)]


def _loss_and_gradients(objective: Objective, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = objective(images, labels)
    gradients = torch.autograd.grad(loss, parameters)
    return {"loss": loss, **{f"gradient of {name}": gradient for name, gradient in zip(names, gradients, strict=True)}}


def _sides(stock: nn.Module) -> list[tuple[str, nn.Module, Objective]]:
    """Name, model and objective of each side; all start from the same weights, and each has its own."""
    models: dict[str, tuple[nn.Module, Callable[[Any], Objective]]] = {
        STOCK: (copy.deepcopy(stock), _timm),
        CLASS_ROW: (copy.deepcopy(stock), _class_row),
        WITHOUT_SKIP: (_row_c(stock), _class_row),
        METHOD: (_row_c(stock), _method),
        PLUGIN: (copy.deepcopy(stock), _plugin),
    }
    return [(name, model, objective(model)) for name, (model, objective) in models.items()]


def _row_c(stock: nn.Module) -> nn.Module:
    """Row C of Table 1c, whose last block the method (row F) has."""
    return last_block.remove_skip(copy.deepcopy(stock), "C")


def _timm(model: nn.Module) -> Objective:
    return lambda images, labels: F.cross_entropy(model(images).float(), labels)


def _class_row(model: nn.Module) -> Objective:
    return lambda images, labels: F.cross_entropy(last_block.forward(model, images).logits.float(), labels)


def _method(model: nn.Module) -> Objective:
    return _with_entropy(model, tokens=False)


def _full_block(model: nn.Module) -> Objective:
    return _with_entropy(model, tokens=True)


def _with_entropy(model: nn.Module, *, tokens: bool) -> Objective:
    def objective(images: Tensor, labels: Tensor) -> Tensor:
        output = last_block.forward(model, images, tokens=tokens)
        return F.cross_entropy(output.logits.float(), labels) + WEIGHT * spatial_entropy(output.similarity)

    return objective


def _plugin(model: nn.Module) -> Objective:
    sar = SAR(model, weight=WEIGHT)
    return lambda images, labels: F.cross_entropy(model(images).float(), labels) + sar.loss()


def _step(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.device.type == "cuda"):
            loss = objective(images, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _peak_memory(side: Side, device: torch.device, settings: dict[str, Any]) -> Fact:
    """What the step needs beside all that lives between steps: the models and optimizers of all sides."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    side.run()
    peak = torch.cuda.max_memory_allocated(device) - before
    return Fact(name="peak memory of a training step", settings={**settings, "side": side.name}, value=peak / 2**20, unit="MiB")
