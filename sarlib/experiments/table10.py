"""Table 10: four architectures on many images, IN-1K in the paper, without SAR and with it, each under its own recipe."""

from __future__ import annotations

import dataclasses

from sarlib.experiments.claims import Contrast, difference, load
from sarlib.experiments.declaration import Setting, Table
from sarlib.experiments.presets import VIT
from sarlib.experiments.settings import Sets
from sarlib.experiments.table9 import by_architecture, compared

SAR = f"{VIT} + SAR"


def declare(sets: Sets) -> Table:
    """The largest subset of each real set joins; and ViT's runs of Table 9 on few images, which other tables share."""
    real = sets.real()
    whole = [sets.setting(sets.preset.many_images), *(subsets[-1] for subsets in real)]
    fewer = [sets.setting(sets.preset.in100), *(subsets[0] for subsets in real)]
    settings = [{name: _own_recipe(sets, one) for name, one in by_architecture(sets, each).items()} for each in whole]
    hybrids = [(name, each.dataset) for models in settings for name, each in models.items() if name != VIT]
    margin = load()["t10"].smallest
    comparable = [difference(SAR, name, table="table10", dataset=dataset, margin=margin) for name, dataset in hybrids]
    pairs = [(few, many) for few, many in zip(fewer, whole, strict=True) if few != many]
    note = "parts: the four gains; ViT's gain on few images less that on many, both above 0; ViT + SAR not below any hybrid by "
    note += "the smallest effect of interest"
    also = [*(_smaller(few.dataset, many.dataset) for few, many in pairs), *comparable]
    table = compared("table10", settings, claim="t10", title="Other architectures on many images", note=note, also=also)
    beside = tuple(cell for few, _ in pairs for cell in few.cells("table9", {VIT: few.row("A")} | few.sar(SAR)))
    contrasts = tuple(difference(SAR, name, table="table10", dataset=dataset) for name, dataset in hybrids)
    return dataclasses.replace(table, cells=(*table.cells, *beside), contrasts=contrasts)


def _smaller(few: str, many: str) -> Contrast:
    """SAR's gain on few images less its gain on many."""
    terms = ((-1, "table10", SAR, many), (1, "table10", VIT, many), (1, "table9", SAR, few), (-1, "table9", VIT, few))
    return Contrast("ViT's gain on few images - that on many", terms)


def _own_recipe(sets: Sets, setting: Setting) -> Setting:
    """The setting under the recipe that the preset has for its architecture alone, if it has one."""
    protocol = sets.preset.protocols.get(setting.baseline.model.name)
    return setting.under(protocol) if protocol else setting
