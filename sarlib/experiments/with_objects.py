"""Images that show several objects: which sets of them there are, and the trainings of Table 4 that runs on them start from."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from sarlib.config import Data, require
from sarlib.experiments import table4
from sarlib.experiments.declaration import Setting
from sarlib.experiments.presets import Training
from sarlib.experiments.settings import Sets

#: The real set below DATA whose networks those on other photographs start from.
PHOTOGRAPHS = "imagenette"


def settings(
    sets: Sets, training: Training, wanted: tuple[str, ...], others: tuple[str, ...] = (), *, larger: int = 1
) -> list[tuple[Setting, Setting]]:
    """Settings, each after the one of Table 4 that it starts from: the preset's `training`, and for every folder at or below
    DATA the first of the `wanted` sets that is there, and the first of the `others`.

    A real set is trained on for as many images as the embedded one, in images `larger` than those of the networks.
    `ConfigError` where networks that saw photographs are missing.
    """
    first, *real = table4.settings(sets)
    found = [(first, sets.setting(training))]
    names = [*_there(sets, wanted), *_there(sets, others)]
    parent = next((each for each in real if each.baseline.data.name == PHOTOGRAPHS), None)
    lacking = f"{', '.join(names)}: networks are fine-tuned there that were trained on {PHOTOGRAPHS}, which is not below DATA"
    require(not names or parent is not None, lacking)
    return found + [(parent, _as_long(sets, training, name, parent, larger)) for name in names]


def _there(sets: Sets, wanted: tuple[str, ...]) -> list[str]:
    """Of each folder the first of the `wanted` sets that lies in it, by its name below DATA."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sets.with_objects():
        place, slash, own = name.rpartition("/")
        found[place + slash].append(own)
    chosen = {place: next((each for each in wanted if each in own), None) for place, own in found.items()}
    return [place + own for place, own in chosen.items() if own is not None]


def _as_long(sets: Sets, training: Training, name: str, parent: Setting, larger: int) -> Setting:
    available, _, fingerprint, *_ = sets.inspect(name)
    require(available > 0, f"the records do not say how many images {name} has: say DATA=<folder that holds it>")
    run = parent.baseline
    data = Data(name=name, image_size=larger * run.data.image_size, fingerprint=fingerprint)
    own = dataclasses.replace(training, data=data, label=f"{name}, {available} images", patch_size=run.model.patch_size)
    return sets.setting(own).stretched(training.data.train_size / available)
