"""Table 10: four architectures on many images, IN-1K in the paper, without SAR and with it, each under its own recipe."""

from __future__ import annotations

import dataclasses

from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Setting, Table
from sarlib.experiments.presets import VIT
from sarlib.experiments.settings import Sets
from sarlib.experiments.table9 import by_architecture, compared


def declare(sets: Sets) -> Table:
    """The largest subset of each real set joins. The contrasts set ViT + SAR beside each hybrid without it."""
    whole = [sets.setting(sets.preset.many_images), *(subsets[-1] for subsets in sets.real())]
    settings = [{name: _own_recipe(sets, one) for name, one in by_architecture(sets, each).items()} for each in whole]
    hybrids = [(name, each.dataset) for models in settings for name, each in models.items() if name != VIT]
    contrasts = (difference(f"{VIT} + SAR", name, table="table10", dataset=dataset) for name, dataset in hybrids)
    note = "the gains are tested; that they are smaller than Table 9's, and 'comparable', are for the reader to judge"
    table = compared("table10", settings, claim="t10", title="Other architectures on many images", note=note)
    return dataclasses.replace(table, contrasts=tuple(contrasts))


def _own_recipe(sets: Sets, setting: Setting) -> Setting:
    """The setting under the recipe that the preset has for its architecture alone, if it has one."""
    protocol = sets.preset.protocols.get(setting.baseline.model.name)
    if protocol is None:
        return setting
    model = dataclasses.replace(setting.baseline.model, drop_path=protocol.drop_path)
    return setting.with_parts(model=model, recipe=protocol.recipe, augmentation=protocol.augmentation)
