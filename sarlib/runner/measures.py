"""What can be measured of a finished run: functions of its trained network and of test images, by the name of a
`Measurement`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sarlib import config, data, last_block, models
from sarlib.config import ConfigError, require
from sarlib.data.images import Images, to_bytes
from sarlib.data.loader import evaluation_batches
from sarlib.entropy import component_counts, excess, map_entropy
from sarlib.regularizers import attention
from sarlib.run import Measurement, Run
from sarlib.tasks.masks import jaccard_references, map_metrics


def take(
    run: Run, measurement: Measurement, *, weights: dict[str, Tensor], root: Path | None, device: str | torch.device
) -> dict[str, Any]:
    """{"metrics": {name: number}, "arrays": {name: nested list}} of the network that `run` left with these `weights`.

    In evaluation mode and float32 whatever the device; weights at the end of training, not their average. `ConfigError` for an
    unknown measurement, images that are not there, or of another size than the architecture can take.
    """
    require(measurement.name in MEASURES, f"unknown measurement {measurement.name!r}; choose from {', '.join(MEASURES)}")
    images = first_images(measurement.data, measurement.images, root=root)
    model = network(run, weights, image_size=measurement.data.image_size).to(device)
    return MEASURES[measurement.name](model, images, batch_size=run.recipe.evaluation_batch_size)


def network(run: Run, weights: dict[str, Tensor], *, image_size: int | None = None) -> nn.Module:
    """The network of `run` with these weights, in evaluation mode, for images of its own size or of another one in pixels."""
    model = models.create(run.model, classes=len(weights["head.weight"]), image_size=run.data.image_size)
    model.load_state_dict(weights)
    if image_size not in (None, run.data.image_size):
        require(hasattr(model, "set_input_size"), f"{run.model.name} is measured at its own {run.data.image_size} px only")
        model.set_input_size((image_size, image_size))
    return model.eval()


@functools.lru_cache(maxsize=1)  # a process measures one run after the other on the same images
def first_images(spec: config.Data, count: int | None = None, *, root: Path | None = None) -> Images:
    """The first `count` test images of a set (None: all), in memory at the declared size; the same whatever the seed of a run.

    `root` is the folder of real data sets. `ConfigError` as from `sarlib.data.load`, and for less than one image.
    """
    if count is not None and count < 1:
        raise ConfigError(f"maps are of one image or more, got {count}")
    _, test = data.load(spec, seed=0, root=root)
    shown = test.subset(range(min(count or len(test), len(test))))
    if shown.files is None:
        return shown
    pixels = torch.stack([to_bytes(shown.view(index, spec.image_size)) for index in range(len(shown))])
    return Images(labels=shown.labels, classes=shown.classes, pixels=pixels)


def similarity(model: nn.Module, images: Images, *, batch_size: int) -> Tensor:
    """Equation 4 of a network in evaluation mode: (n, H, k, k) float32 on the CPU; row 0 is the top of the image."""
    device = next(model.parameters()).device
    batches = evaluation_batches(images, batch_size=batch_size, image_size=images.image_size[0], device=device)
    with torch.no_grad():
        return torch.cat([last_block.forward(model, pixels).similarity.cpu() for pixels, _ in batches])


def collapse(similarity: Tensor) -> dict[str, float]:
    """How collapsed maps S (n, H, k, k) are (section 4.3), as means over images and heads.

    peak: largest value of softmax(S); 1 / k^2 for a flat map, at most 1.
    single: share of the maps, in %, whose softmax exceeds its mean in one token only: one component of one token.
    tokens: in how many tokens the softmax exceeds its mean.
    softmax_entropy: Equation 7 of softmax(S), nats; what the cheating network minimises.
    entropy: Equation 7 of S itself, nats; not changed by the scale of S.
    spread: standard deviation of S over the tokens of a map: how far the scores have grown.
    """
    shares = attention(similarity)
    tokens = (excess(shares) > 0).sum((-2, -1))
    each = {
        "peak": shares.amax((-2, -1)),
        "single": 100.0 * (tokens == 1),
        "tokens": tokens,
        "softmax_entropy": map_entropy(shares),
        "entropy": map_entropy(similarity),
        "spread": similarity.std((-2, -1), correction=0),
    }
    return {name: values.double().mean().item() for name, values in each.items()}


def _collapse(model: nn.Module, images: Images, *, batch_size: int) -> dict[str, Any]:
    return {"metrics": collapse(similarity(model, images, batch_size=batch_size)), "arrays": {}}


def _maps(model: nn.Module, images: Images, *, batch_size: int) -> dict[str, Any]:
    """softmax(S) of every head (n, H, k, k), to 4 digits, for pages that draw the maps without the weights."""
    shares = attention(similarity(model, images, batch_size=batch_size)).double()
    return {"metrics": {}, "arrays": {"attention": shares.round(decimals=4).tolist()}}


def _clips(model: nn.Module, images: Images, *, batch_size: int) -> dict[str, Any]:
    """`map_metrics` of clips by a network for images, which sees one frame at a time; what masks score that look at no model;
    and the volumes once more whose frames come from different clips: what is lower in order is due to time."""
    maps = similarity(model, images.by_frame(), batch_size=batch_size)
    volumes = maps.unflatten(0, (-1, images.frames)).transpose(1, 2)
    apart = [each.roll(frame * len(volumes) // images.frames, 0) for frame, each in enumerate(volumes.unbind(2))]
    mixed = torch.stack(apart, 2)
    measured = map_metrics(volumes, images, torch.arange(len(images)))
    measured |= {"mixed_entropy": map_entropy(mixed, axes=3), "mixed_components": component_counts(mixed, axes=3)}
    metrics = {name: rows[~rows.isnan()].double().mean().item() for name, rows in measured.items()}
    return {"metrics": metrics | jaccard_references(images, maps.shape[-2:], heads=maps.shape[1]), "arrays": {}}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"collapse": _collapse, "maps": _maps, "clips": _clips}
