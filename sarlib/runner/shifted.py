"""Table 8 as measurements: the accuracy on natural adversarial images or cue conflicts, and the errors on corrupted images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from statistics import fmean
from typing import Any

import torch
from timm.data import ImageNetInfo
from torch import nn

from sarlib import last_block
from sarlib.config import require
from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches
from sarlib.data.released import ALEXNET, CLEAN, mce


def natural(model: nn.Module, images: Images, **shown: int) -> dict[str, Any]:
    """Top-1 in % among the classes of these images alone. `shown` is the image size in pixels and the batch size."""
    return {"metrics": {"natural": 100 - error(model, images, **shown)}, "arrays": {}}


def corrupted(model: nn.Module, sets: Iterable[tuple[str, Images]], **shown: int) -> dict[str, Any]:
    """The mean error in % over corruptions and severities; mce too where they are ImageNet-C's. `sets` are corruption and
    images, by ascending severity; the arrays are each one's errors, and CLEAN's where it is among them."""
    errors: dict[str, list[float]] = {}
    for name, images in sets:
        errors.setdefault(name, []).append(error(model, images, **shown))
    worse = {name: found for name, found in errors.items() if name != CLEAN}
    metrics = {"corrupted": fmean(map(fmean, worse.values()))}
    metrics |= {"mce": mce(worse)} if worse.keys() == ALEXNET.keys() else {}
    return {"metrics": metrics, "arrays": errors}


def error(model: nn.Module, images: Images, *, image_size: int, batch_size: int) -> float:
    """Of how many of the images, in %, another class of theirs gets the largest logit than their own; in float32."""
    device, right = next(model.parameters()).device, 0
    workers = (os.cpu_count() or 1) if device.type == "cuda" else 0  # which decode images that are files
    batches = evaluation_batches(images, batch_size=batch_size, image_size=image_size, device=device, data_workers=workers)
    with torch.inference_mode():
        for pixels, index in batches:
            logits = last_block.forward(model, pixels).logits
            found = logits[:, columns(images.classes, outputs=logits.shape[1])].argmax(1)
            right += (found.cpu() == images.labels[index]).sum().item()
    return 100 * (1 - right / len(images))


def columns(classes: tuple[str, ...], *, outputs: int) -> list[int]:
    """Which outputs of a network are these classes: all of them, or of IN-1K's 1,000, which are in the order of their WordNet
    identifiers, those with their names. `ConfigError` for classes that the network does not know."""
    if len(classes) == outputs:
        return list(range(outputs))
    known = {wnid: place for place, wnid in enumerate(ImageNetInfo().label_names())}
    strange = [name for name in classes if name not in known]
    fit = outputs == len(known) and not strange
    require(fit, f"a network of {outputs} classes does not know all of {', '.join([*strange, *classes][:3])}, …")
    return [known[name] for name in classes]


MEASURES = {"natural": natural, "corrupted": corrupted}
