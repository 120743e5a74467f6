"""A training step of a ViT: timm's own, with the last block computed for the class token alone, and with the paper's method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.device import WAITS, peak_bytes, waits
from bench.interleaved import Check, Fact, Measurement, Side, clock, measure, require_equal
from bench.plan import Plan
from sarlib import last_block
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

#: Allowed difference of loss and gradients in float32, relative to the largest value of each tensor.
TOLERANCE = 1e-3

#: The same between the compiled and the eager loss, which round differently to bfloat16.
COMPILED_TOLERANCE = 1e-2

Objective = Callable[[Tensor, Tensor], Tensor]


def measure_step(plan: Plan, device: torch.device) -> tuple[list[Measurement], list[Fact]]:
    """Forward, backward and AdamW step of all sides, eager and compiled as the plan says.

    On a GPU in bfloat16, and with the peak memory and the host's waits of each side.
    """
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
        sides, compilations = [], []
        for name, (model, objective) in _sides(stock).items():
            if compiled and name == PLUGIN:
                continue  # its hooks are made for compiled models, not for losses that are compiled with the model
            if compiled:
                objective, check = _compiled(name, objective, images, labels)
                compilations.append(check)
            sides.append(Side(name=name, run=_step(model, objective, images, labels)))
        timing = {"effort": plan.step, "now": clock(device), "pairs": [(METHOD, WITHOUT_SKIP)]}
        measurements.append(measure(NAME, sides, settings=settings, checks=checks + compilations, **timing))
        if device.type == "cuda":
            facts += [fact for side in sides for fact in _facts(side, device, {**settings, "side": side.name})]
    return measurements, facts


def require_equal_steps(stock: nn.Module, images: Tensor, labels: Tensor) -> list[Check]:
    """In float32: loss and gradients with the class token's row alone are those of timm's forward, and with the last block of C
    and the entropy those of the full block. Raises `Unequal` where they are not; returns the checks of loss and worst gradient.
    """
    row_c = _row_c(stock)
    class_row, method, full = _ours(stock), _ours(row_c, entropy=True), _ours(row_c, entropy=True, tokens=True)
    return [
        *_require_equal_pass(CLASS_ROW, class_row, STOCK, _timm(stock), stock, images, labels),
        *_require_equal_pass(METHOD, method, "full last block of C + SAR", full, row_c, images, labels),
    ]


def _require_equal_pass(
    name: str, objective: Objective, against: str, reference: Objective, model: nn.Module, images: Tensor, labels: Tensor
) -> list[Check]:
    ours, theirs = (_loss_and_gradients(each, model, images, labels) for each in (objective, reference))
    checks = [
        require_equal(name, against, what=what, found=found, reference=theirs[what], tolerance=TOLERANCE)
        for what, found in ours.items()
    ]
    return [checks[0], max(checks[1:], key=lambda check: check.difference)]


def _compiled(name: str, objective: Objective, images: Tensor, labels: Tensor) -> tuple[Objective, Check]:
    """The compiled objective, and the check that its loss is that of the eager one."""
    compiled = torch.compile(objective)
    with _autocast(images):
        found, reference = compiled(images, labels), objective(images, labels)
    settings = {"what": "loss", "tolerance": COMPILED_TOLERANCE}
    return compiled, require_equal(f"{name}, compiled", name, found=found, reference=reference, **settings)


def _loss_and_gradients(objective: Objective, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss = objective(images, labels)
    gradients = torch.autograd.grad(loss, parameters)
    return {"loss": loss, **{f"gradient of {name}": gradient for name, gradient in zip(names, gradients, strict=True)}}


def _sides(stock: nn.Module) -> dict[str, tuple[nn.Module, Objective]]:
    """Model and objective of each side; all start from the same weights, and each has its own."""
    models = {
        STOCK: (copy.deepcopy(stock), _timm),
        CLASS_ROW: (copy.deepcopy(stock), _ours),
        WITHOUT_SKIP: (_row_c(stock), _ours),
        METHOD: (_row_c(stock), lambda model: _ours(model, entropy=True)),
        PLUGIN: (copy.deepcopy(stock), _plugin),
    }
    return {name: (model, objective(model)) for name, (model, objective) in models.items()}


def _row_c(stock: nn.Module) -> nn.Module:
    """Row C of Table 1c, whose last block the method (row F) has."""
    return last_block.set_variant(copy.deepcopy(stock), "C")


def _timm(model: nn.Module) -> Objective:
    return lambda images, labels: F.cross_entropy(model(images).float(), labels)


def _ours(model: nn.Module, *, entropy: bool = False, tokens: bool = False) -> Objective:
    """Cross entropy, with `entropy` SAR's loss too; the last block for the class token alone, with `tokens` for all of them."""

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        output = last_block.forward(model, images, tokens=tokens)
        loss = F.cross_entropy(output.logits.float(), labels)
        return loss + WEIGHT * spatial_entropy(output.similarity) if entropy else loss

    return objective


def _plugin(model: nn.Module) -> Objective:
    sar = SAR(model, weight=WEIGHT)
    return lambda images, labels: F.cross_entropy(model(images).float(), labels) + sar.loss()


def _step(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with _autocast(images):
            loss = objective(images, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _autocast(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.device.type == "cuda")


def _facts(side: Side, device: torch.device, settings: dict[str, Any]) -> list[Fact]:
    """Waits of the host in a step, and the memory it needs beside what lives between steps: all models and optimizers."""
    peak = peak_bytes(side.run, device) / 2**20
    return [
        Fact(name="peak memory of a training step", settings=settings, value=peak, unit="MiB"),
        Fact(name=f"{WAITS} of a training step", settings=settings, value=waits(side.run), unit="a call"),
    ]
