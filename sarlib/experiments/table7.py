"""Table 7: fine-tuning the networks of Table 4 on other sets, with SAR in pre-training, in fine-tuning, in both, in neither.

A network keeps the last block that it was pre-trained with, unless SAR acts in fine-tuning, whose block it has then. One more
row gives SAR's network its stock block back, as the paper leaves open what "without SAR in fine-tuning" means. Parent and child
share their seed, so that an interval covers both phases; the paper fine-tuned one pre-trained network.
"""

from __future__ import annotations

import dataclasses
from itertools import chain

from sarlib.config import Data
from sarlib.experiments import table4
from sarlib.experiments.claims import ClaimTest, difference, differences
from sarlib.experiments.declaration import Setting, Table
from sarlib.experiments.presets import Training
from sarlib.experiments.settings import Sets
from sarlib.experiments.with_objects import PHOTOGRAPHS
from sarlib.run import Run

NEITHER, BEFORE, AFTER, BOTH = "SAR in neither", "SAR in pre-training", "SAR in fine-tuning", "SAR in both"
SCRATCH, STOCK = "no pre-training", "SAR in pre-training (stock block)"


def declare(sets: Sets) -> Table:
    """The claim names three rows, each above "SAR in neither" on every set; it asks for sets on which pre-training helps."""
    pairs = _pairs(sets)
    names = [child.dataset for _, child in pairs]
    helps = differences(NEITHER, SCRATCH, datasets=names, table="table7")
    each = (differences(row, NEITHER, datasets=names, table="table7") for row in (BEFORE, AFTER, BOTH))
    claimed = tuple(chain(*zip(*each, strict=True)))
    return Table(
        title="Fine-tuning, with SAR in either phase",
        cells=tuple(cell for parent, child in pairs for cell in child.cells("table7", _rows(parent, child))),
        tests=(ClaimTest("t7", claimed, requires=helps),),
        contrasts=tuple(difference(STOCK, BEFORE, table="table7", dataset=name) for name in names),
    )


def _pairs(sets: Sets) -> list[tuple[Setting, Setting]]:
    """A setting of Table 4 and one to fine-tune its networks in, for each of the preset's sets and each real one below DATA.

    Real sets start from networks that saw photographs if these are there, else from those that saw the embedded set.
    """
    first, *others = table4.settings(sets)
    tuning, real = sets.preset.fine_tuning, {each.baseline.data.name: each for each in others}
    whole = dataclasses.replace(first.baseline.data, train_size=tuning.train_size, test_size=tuning.test_size, fingerprint="")
    pairs = [(first, dataclasses.replace(whole, name=name)) for name in tuning.sets]
    parent = real.pop(PHOTOGRAPHS, first)
    for data in (each.baseline.data for each in real.values()):
        pairs.append((parent, dataclasses.replace(data, train_size=min(tuning.train_size or data.train_size, data.train_size))))
    return [(parent, _child(sets, parent, data)) for parent, data in pairs]


def _child(sets: Sets, parent: Setting, data: Data) -> Setting:
    """How `data` are trained on, at the parent's image and patch size; SAR's loss warms up for a tenth of the epochs."""
    run, recipe = parent.baseline, sets.preset.fine_tuning.recipe
    data = dataclasses.replace(data, image_size=run.data.image_size)
    label = "" if data.train_size else data.name
    setting = sets.setting(Training(data=data, label=label, patch_size=run.model.patch_size, recipe=recipe))
    warmup = max(1, recipe.epochs // 10)
    return dataclasses.replace(setting, regularizer=dataclasses.replace(setting.regularizer, warmup_epochs=warmup))


def _rows(parent: Setting, child: Setting) -> dict[str, Run]:
    """The runs of a set (seed 0) by the name of their row."""
    runs = table4.rows(parent)
    plain, sar = runs[table4.BASELINE], runs[table4.SAR]

    def after(pretrained: Run, row: str) -> Run:
        return dataclasses.replace(child.row(row), pretrained=pretrained)

    return {
        NEITHER: after(plain, "A"),
        BEFORE: after(sar, "C"),
        AFTER: after(plain, "F"),
        BOTH: after(sar, "F"),
        SCRATCH: child.row("A"),
        STOCK: after(sar, "A"),
    }
