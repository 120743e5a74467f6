"""Table 8 as measurements: the accuracy on natural adversarial images or cue conflicts, and the errors on corrupted images."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from timm.data import ImageNetInfo
from torch import nn

from sarlib import data
from sarlib.config import Data, require
from sarlib.data import corruptions
from sarlib.data.folders import read_classes
from sarlib.data.images import Images, from_split
from sarlib.data.released import ALEXNET, CLEAN, IMAGENET_A, IMAGENET_C, listed, mce, places
from sarlib.measures.finished import Finished, outputs
from sarlib.run import Measurement


def natural(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """Top-1 in % among the classes of these images alone."""
    if wanted.data.name == IMAGENET_A:
        ((_, images),) = _released(finished, wanted.data)
        images = dataclasses.replace(images, crop=wanted.data.test_crop)
    else:
        images = finished.images(wanted)
    wrong = error(finished.network(wanted.data.image_size), images, **finished.shown(wanted))
    return {"metrics": {"natural": 100 - wrong}, "arrays": {}}


def corrupted(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """The mean error in % over corruptions and severities; mce too where they are ImageNet-C's. The arrays are each one's
    errors by ascending severity, and CLEAN's where it is among them."""
    if wanted.data.name == IMAGENET_C:
        sets = ((place.split("/")[1], images) for place, images in _released(finished, wanted.data))
    else:
        sets = corruptions.each(finished.images(wanted))
    model, errors = finished.network(wanted.data.image_size), defaultdict(list)
    for name, images in sets:
        errors[name].append(error(model, images, **finished.shown(wanted)))
    worse = {name: found for name, found in errors.items() if name != CLEAN}
    metrics = {"corrupted": fmean(map(fmean, worse.values()))}
    metrics |= {"mce": mce(worse)} if worse.keys() == ALEXNET.keys() else {}
    return {"metrics": metrics, "arrays": dict(errors)}


def error(model: nn.Module, images: Images, **shown: Any) -> float:
    """Of how many of the images, in %, another class of theirs gets the largest logit than their own; in float32. They are
    `shown` as by `outputs`."""
    right = 0
    for _, index, found in outputs(model, images, **shown):
        chosen = found.logits[:, columns(images.classes, outputs=found.logits.shape[1])].argmax(1)
        right += (chosen.cpu() == images.labels[index]).sum().item()
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


def _released(finished: Finished, spec: Data) -> Iterator[tuple[str, Images]]:
    """The images of a released test set, folder by folder. `ConfigError` if they are missing or not those declared."""
    split = listed(spec.name, root=finished.root)
    data.require_declared(spec, split, split, root=finished.root)
    return ((place, from_split(read_classes(finished.root / place))) for place in places(spec.name))
