"""What the attention maps are like: how collapsed, how they look, whether they lie on objects (Table 11), and how they hang
together in time."""

from __future__ import annotations

import base64
import functools
import io
from typing import Any

import torch
from torch import Tensor

from sarlib.data.images import Images
from sarlib.entropy import component_counts, excess, map_entropy
from sarlib.measures.finished import Finished
from sarlib.regularizers import attention
from sarlib.run import Measurement
from sarlib.tasks.masks import (
    jaccard,
    jaccard_references,
    map_metrics,
    mass_mask,
    mean_over_objects,
    read_object_cells,
    references,
)

#: For the same sets as `first_images`, whose answers are the same objects as long as they are held.
_object_cells = functools.lru_cache(maxsize=4)(read_object_cells)


def collapse(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """How collapsed the maps are: `collapsed`."""
    return {"metrics": collapsed(finished.similarity(wanted)), "arrays": {}}


def maps(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """softmax(S) of every head (n, H, k, k), to 4 digits, for pages that draw the maps without the weights."""
    return {"metrics": {}, "arrays": {"attention": _rounded(attention(finished.similarity(wanted)))}}


def heads(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """S of every head (n, H, k, k), to 4 digits, and the images as PNG in base64: all that a figure of them needs."""
    images, found = finished.images(wanted), finished.similarity(wanted)
    metrics = {"entropy": mean(map_entropy(found)), "components": mean(component_counts(found))}
    pictures = [_png(images, index) for index in range(len(images))]
    return {"metrics": metrics, "arrays": {"similarity": _rounded(found), "pictures": pictures}}


def clips(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """`map_metrics` of clips by a network for images, which sees one frame at a time; what masks score that look at no model;
    and the volumes once more whose frames come from different clips: what is lower in order is due to time."""
    images, found = finished.images(wanted), finished.similarity(wanted)
    volumes = found.unflatten(0, (-1, images.frames)).transpose(1, 2)
    apart = [each.roll(frame * len(volumes) // images.frames, 0) for frame, each in enumerate(volumes.unbind(2))]
    mixed = torch.stack(apart, 2)
    measured = map_metrics(volumes, images, torch.arange(len(images)))
    measured |= {"mixed_entropy": map_entropy(mixed, axes=3), "mixed_components": component_counts(mixed, axes=3)}
    metrics = {name: mean(rows[~rows.isnan()]) for name, rows in measured.items()}
    return {"metrics": metrics | jaccard_references(images, found.shape[-2:], heads=found.shape[1]), "arrays": {}}


def objects(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """Of every head, cut to 60 % of its mass, at the size of the images: does it lie on objects?

    jaccard: void pixels left out; jaccard_released: void pixels as background. jaccard_gain: `jaccard` above random cells.
    kept: share of the tokens in the masks. entropy and components of S, and what white noise has on the same grid.
    """
    similarity = finished.similarity(wanted)
    heads, grid = mass_mask(similarity), tuple(similarity.shape[-2:])
    cells, released = _object_cells(finished.images(wanted), grid)
    noise = torch.randn(1000, *grid, generator=torch.Generator().manual_seed(0))
    found = references(cells, heads=similarity.shape[1]) | {"kept": mean(heads)}
    for name, counted in (("jaccard", cells), ("jaccard_released", released)):
        found[name] = mean_over_objects(jaccard(heads, counted).double())
    found["jaccard_gain"] = found["jaccard"] - found["jaccard_random"]
    for end, own in (("", similarity), ("_noise", noise)):
        found["entropy" + end] = mean(map_entropy(own))
        found["components" + end] = mean(component_counts(own))
    return {"metrics": found, "arrays": {}}


def collapsed(similarity: Tensor) -> dict[str, float]:
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
    return {name: mean(values) for name, values in each.items()}


def mean(values: Tensor) -> float:
    return values.double().mean().item()


def _rounded(values: Tensor) -> list[Any]:
    return values.double().round(decimals=4).tolist()


def _png(images: Images, index: int) -> str:
    file = io.BytesIO()
    images.picture(index).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
