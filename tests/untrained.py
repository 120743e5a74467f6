"""Runs in a store without training: networks with the weights they were initialised with, or as a test changes those."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sarlib import models
from sarlib.run import Run
from sarlib.runner.store import Record, Store

CLASSES = 10


def keep(run: Run, *, store: Store, change: Callable[[nn.Module], object] = lambda model: None) -> nn.Module:
    """Writes a finished record of `run` whose weights `change` has had its way with; returns the network, in
    evaluation mode."""
    torch.manual_seed(run.seed)
    model = models.create(run.model, classes=CLASSES, image_size=run.data.image_size).eval()
    with torch.no_grad():
        change(model)
    store.write(run, record=Record(run=run, metrics={}, provenance={}), history=[], weights=model.state_dict())
    return model


def scale_scores(factor: float) -> Callable[[nn.Module], object]:
    """Makes S of the last block `factor` times as large: by the queries."""

    def change(model: nn.Module) -> None:
        attn = model.blocks[-1].attn
        dim = attn.qkv.in_features
        attn.qkv.weight[:dim] *= factor
        attn.qkv.bias[:dim] *= factor

    return change
