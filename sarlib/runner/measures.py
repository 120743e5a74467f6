"""What can be measured of a finished run: functions of its trained network and of test images, by the name of a
`Measurement`."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarlib import config, data, last_block, models, tasks
from sarlib.config import ConfigError, require
from sarlib.data import corruptions, released
from sarlib.data.folders import read_classes
from sarlib.data.images import Images, from_split, to_bytes
from sarlib.data.loader import evaluation_batches
from sarlib.entropy import component_counts, excess, map_entropy
from sarlib.regularizers import attention
from sarlib.run import Measurement, Run
from sarlib.runner import shifted
from sarlib.runner.features import probe
from sarlib.tasks.masks import (
    jaccard,
    jaccard_references,
    map_metrics,
    mass_mask,
    mean_over_objects,
    read_object_cells,
    references,
)
from sarlib.trainer.step import untrained

if TYPE_CHECKING:
    from sarlib.tasks.detection import Detection
    from sarlib.tasks.segmentation import Segmentation
    from sarlib.tasks.task import Task


def take(
    run: Run, measurement: Measurement, *, weights: dict[str, Tensor], root: Path | None, device: str | torch.device
) -> dict[str, Any]:
    """{"metrics": {name: number}, "arrays": {name: nested list}} of the network that `run` left with these `weights`.

    In evaluation mode and float32 whatever the device; weights at the end of training, not their average. `ConfigError` for an
    unknown measurement, images that are not there, or of another size than the architecture can take.
    """
    if measurement.name == "floors":
        from sarlib.runner.floors import floors

        return floors(run, network(run, weights).to(device), root=root)
    known = (*MEASURES, *PROBED, "floors")
    require(measurement.name in known, f"unknown measurement {measurement.name!r}; choose from {', '.join(known)}")
    if measurement.name in PROBED:
        return _probed(run, measurement, weights=weights, root=root, device=torch.device(device))
    images, settings = shown(measurement, root=root), {"batch_size": run.recipe.evaluation_batch_size}
    if measurement.name in shifted.MEASURES:
        settings["image_size"] = measurement.data.image_size
    if run.task.name in config.ON_VITDET:
        model = trained(run, weights, classes=len(images.classes)).to(device)
    else:
        model = network(run, weights, image_size=measurement.data.image_size).to(device)
    return MEASURES[measurement.name](model, images, **settings)


def shown(measurement: Measurement, *, root: Path | None) -> Images | Iterator[tuple[str, Images]]:
    """What is looked at: the first images of a set, in memory; of a released test set its files; and where they are corrupted,
    corruption and images, by ascending severity."""
    spec = measurement.data
    if spec.name == released.IMAGENET_A:
        return dataclasses.replace(from_split(read_classes(root / spec.name)), crop=spec.test_crop)
    if spec.name == released.IMAGENET_C:
        return ((place.split("/")[1], from_split(read_classes(root / place))) for place in released.places(spec.name))
    images = first_images(spec, measurement.images, root=root)
    return corruptions.each(images) if measurement.name == "corrupted" else images


def trained(run: Run, weights: dict[str, Tensor], *, classes: int) -> Task:
    """The task of `run`, heads and all, with these weights, in evaluation mode."""
    task = tasks.create(run, classes)
    task.load_state_dict(weights)
    return task.eval()


def network(run: Run, weights: dict[str, Tensor], *, image_size: int | None = None) -> nn.Module:
    """The network of `run` with these weights, without classifier if they have none, in evaluation mode, for images of its own
    size or of another one in pixels."""
    model = models.create(run.model, classes=len(weights.get("head.weight", ())), image_size=run.data.image_size)
    model.load_state_dict(weights)
    if image_size not in (None, run.data.image_size):
        require(hasattr(model, "set_input_size"), f"{run.model.name} is measured at its own {run.data.image_size} px only")
        model.set_input_size((image_size, image_size))
    return model.eval()


@functools.lru_cache(maxsize=4)  # a process measures one run after the other on the same few sets
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
    return dataclasses.replace(shown, files=None, pixels=pixels, crop=shown.crop and 1.0)  # None, the whole image, stays


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


def _heads(model: nn.Module, images: Images, *, batch_size: int) -> dict[str, Any]:
    """S of every head (n, H, k, k), to 4 digits, and the images as PNG in base64: all that a figure of them needs."""
    maps = similarity(model, images, batch_size=batch_size)
    means = {"entropy": map_entropy(maps), "components": component_counts(maps)}
    arrays = {"similarity": maps.double().round(decimals=4).tolist(), "pictures": [_png(images, i) for i in range(len(images))]}
    return {"metrics": {name: each.double().mean().item() for name, each in means.items()}, "arrays": arrays}


def _png(images: Images, index: int) -> str:
    file = io.BytesIO()
    images.picture(index).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _objects(model: nn.Module, images: Images, *, batch_size: int) -> dict[str, Any]:
    """Table 11: do the maps, cut to 60 % of their mass, lie on objects? Of every head, at the size of the images.

    jaccard: void pixels left out; jaccard_released: void pixels as background. jaccard_gain: `jaccard` above random cells.
    kept: share of the tokens in the masks. entropy and components of S, and what white noise has on the same grid.
    """
    maps = similarity(model, images, batch_size=batch_size)
    heads, grid = mass_mask(maps), tuple(maps.shape[-2:])
    cells, released = object_cells_of(images, grid)
    noise = torch.randn(1000, *grid, generator=torch.Generator().manual_seed(0))
    found = references(cells, heads=maps.shape[1]) | {"kept": heads.double().mean().item()}
    for name, counted in (("jaccard", cells), ("jaccard_released", released)):
        found[name] = mean_over_objects(jaccard(heads, counted).double())
    found["jaccard_gain"] = found["jaccard"] - found["jaccard_random"]
    for end, own in (("", maps), ("_noise", noise)):
        found["entropy" + end] = map_entropy(own).double().mean().item()
        found["components" + end] = component_counts(own).double().mean().item()
    return {"metrics": found, "arrays": {}}


def _segments(task: Segmentation, images: Images, *, batch_size: int) -> dict[str, Any]:
    """The class that each pixel of a square view is given, (n, S, S), 0 the background, for pages that draw them without the
    weights."""
    size, device = images.image_size[0], next(task.parameters()).device
    shown = evaluation_batches(images, batch_size=batch_size, image_size=size, device=device)
    with torch.no_grad():
        found = torch.cat([task.logits(pixels).argmax(1) for pixels, _ in shown])
    return {"metrics": {}, "arrays": {"classes": found.tolist()}}


def _boxes(task: Detection, images: Images, *, batch_size: int) -> dict[str, Any]:
    """The boxes found in each image, [x0, y0, x1, y1, score, class], the best first, for pages that draw them without the
    weights."""
    size, device = images.image_size[0], next(task.parameters()).device
    found = task.measure(images, batch_size=batch_size, image_size=size, device=device)["detections"].round(decimals=2)
    return {"metrics": {}, "arrays": {"boxes": [[row.tolist() for row in image if row[5] >= 0] for image in found]}}


#: For the same sets as `first_images`, whose answers are the same objects as long as they are held.
object_cells_of = functools.lru_cache(maxsize=4)(read_object_cells)
MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "collapse": _collapse,
    "maps": _maps,
    "heads": _heads,
    "objects": _objects,
    "segments": _segments,
    "boxes": _boxes,
    "clips": _clips,
    **shifted.MEASURES,
}
#: Whose features are probed: of the finished run, of the same network before its training, or the pixels themselves.
PROBED = ("features", "untrained_features", "pixels")


def _probed(
    run: Run, measurement: Measurement, *, weights: dict[str, Tensor], root: Path | None, device: torch.device
) -> dict[str, Any]:
    """`probe` on the run's own training images, or those of another set that its seed draws."""
    spec, model = measurement.data, None
    train, test = data.load(spec, seed=run.seed, root=root)
    if measurement.name == "untrained_features":
        weights = untrained(run, classes=len(train.classes), device=device).kept()
    if measurement.name != "pixels":
        model = network(run, weights, image_size=spec.image_size).to(device)
    shown = test.subset(range(min(measurement.images or len(test), len(test))))
    sizes = {"image_size": spec.image_size, "batch_size": run.recipe.evaluation_batch_size}
    return probe(model, train, shown, **sizes, device=device)
