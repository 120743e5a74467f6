"""From the data sets of a preset, and real ones below DATA, to the settings of a table."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sarlib import data as datasets
from sarlib.config import Augmentation, ConfigError, Data
from sarlib.data import Inspected, clips, voc
from sarlib.experiments import doses
from sarlib.experiments.declaration import Setting
from sarlib.experiments.presets import Preset, Training
from sarlib.run import Run
from sarlib.runner import published
from sarlib.runner.store import Store

#: Images of these sets are this small: a larger model input would only be an enlargement.
NATIVE_SIZE = {"cifar10": 32, "cifar100": 32}


@dataclass(frozen=True)
class Sets:
    """The data sets of a preset, and those below the folder `root`; without one those that are `known`, as by `recorded`."""

    preset: Preset
    root: Path | None
    known: dict[str, Inspected] = field(default_factory=dict)  # and, of those below `root`, what has been inspected

    def inspect(self, name: str) -> Inspected:
        """What a set holds that is not embedded, however often it is asked listed once. `ConfigError` if it is absent."""
        if name not in self.known:
            self.known[name] = datasets.inspect(name, root=self.root)
        return self.known[name]

    def identified(self, data: Data) -> Data:
        """The same with its fingerprint, by which other images under an old name are another run. `ConfigError` if absent."""
        known = data.fingerprint or datasets.is_embedded(data.name)
        return data if known else dataclasses.replace(data, fingerprint=self.inspect(data.name).fingerprint)

    def setting(self, chosen: Training) -> Setting:
        """The baseline's run on the set, and SAR's loss and DRLoc for it. `ConfigError` if it is absent."""
        preset, data, recipe = self.preset, chosen.data, chosen.recipe or self.preset.recipe
        augmentation = chosen.augmentation or preset.augmentation
        losses = {"regularizer": preset.regularizer, "drloc": preset.drloc}
        if chosen.epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=chosen.epochs, evaluations=min(chosen.epochs, recipe.evaluations))
        if chosen.warmup_epochs is not None:
            recipe = dataclasses.replace(recipe, warmup_epochs=chosen.warmup_epochs)
            losses = {name: dataclasses.replace(loss, warmup_epochs=chosen.warmup_epochs) for name, loss in losses.items()}
        baseline = Run(
            data=dataclasses.replace(self.identified(data), test_crop=preset.test_crop, crop_from=preset.crop_from),
            model=dataclasses.replace(
                preset.model, patch_size=chosen.patch_size or preset.model.patch_size, frames=data.frames
            ),
            recipe=recipe,
            augmentation=augmentation if data.frames == 1 else _of_clips(augmentation),
            task=chosen.task,
        )
        label = chosen.label or f"{data.name}, {data.train_size} images"
        return Setting(dataset=label, baseline=baseline, **losses, dose=doses.matched(data.name, preset.doses))

    def published(self, setting: Setting) -> dict[str, Run]:
        """By row the preset's published networks, untouched, as far as their files lie below `root` (`runner.published`)."""
        recipe = dataclasses.replace(setting.baseline.recipe, epochs=0, evaluations=0)
        found = {row: published.named(name, root=self.root) for row, name in self.preset.published.items()}
        return {row: dataclasses.replace(setting.baseline, recipe=recipe, pretrained=one) for row, one in found.items() if one}

    def real(self) -> list[list[Setting]]:
        """For every set below `root`, in alphabetical order, a setting for each of the preset's subsets that it can fill, the
        smallest first; for a set smaller than all of them, one for all of it. Empty at presets whose data are all real."""
        if self.preset.real is None:
            return []
        known = [name for name in sorted(self.known) if not (voc.known(name) or name in clips.LAYOUTS)]
        names = datasets.discover(self.root) if self.root else known
        return [[self.setting(subset) for subset in self._subsets(name)] for name in names]

    def with_objects(self) -> tuple[str, ...]:
        """Names of the sets below `root` whose images have boxes or masks; empty at presets whose data are all real."""
        if self.preset.real is None:
            return ()
        return voc.discover(self.root) if self.root else tuple(filter(voc.known, sorted(self.known)))

    def _subsets(self, name: str) -> list[Training]:
        real = self.preset.real
        available, tested, fingerprint, *_ = self.inspect(name)
        test_size = None if real.test_images is None or real.test_images >= tested else real.test_images
        # The smallest input not below the images' own size, with patches of a power of two, which every architecture can take.
        patch = 2 ** math.ceil(math.log2(NATIVE_SIZE.get(name, real.pixels) / real.tokens))
        data = Data(name=name, image_size=patch * real.tokens, test_size=test_size, fingerprint=fingerprint)
        fitting = [subset for subset in real.subsets if subset[0] <= available] or [(available, *real.subsets[0][1:])]
        return [
            Training(data=dataclasses.replace(data, train_size=size), patch_size=patch, epochs=epochs, warmup_epochs=warmup)
            for size, epochs, warmup in fitting
        ]


def recorded(keys: Iterable[str], store: Store) -> dict[str, Inspected]:
    """Of the real sets that these runs were trained and measured on, and those that they start from: what their records in the
    `store` tell a declaration, the images gone or not. Records that cannot be read tell nothing."""
    known: dict[str, Inspected] = {}
    for folder in (store.root / key for key in keys):
        for file in folder.glob("measured/*.json"):  # on a part of a set, or all of it
            _note(known, _read(file).get("measurement", {}).get("data", {}) | {"train_size": None, "test_size": None})
        config = _read(folder / "config.json")
        while config.get("data"):
            _note(known, config["data"], *_read(folder / "result.json").get("provenance", {}).get("images") or (0, 0))
            config = config.get("pretrained") or {}
            with contextlib.suppress(ConfigError):  # as it is in records of other versions
                folder = store.folder(Run.from_dict(config))
    return known


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _note(known: dict[str, Inspected], data: dict[str, Any], train: int = 0, test: int = 0) -> None:
    """A set has at least as many images as were taken of it, and more test images where some of them were chosen."""
    name, mark = data.get("name", ""), data.get("fingerprint", "")
    if name and not datasets.is_embedded(name):
        before = known.get(name, Inspected(0, 0, mark))
        test = test if data["test_size"] is None else data["test_size"] + 1
        known[name] = Inspected(max(before.train, data["train_size"] or train), max(before.test, test), mark)


def _of_clips(augmentation: Augmentation) -> Augmentation:
    """What may happen to all frames of a clip alike. Mirrored, a motion is another one."""
    return dataclasses.replace(augmentation, flip=0.0, color_jitter=0.0, rand_augment=None, erasing=0.0)
