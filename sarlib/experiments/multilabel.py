"""The appendix's images with several labels: which classes an image shows, with and without SAR.

The text names neither set nor metric. Here: embedded images from scratch, as Table 1 is trained; photographs from the networks
of Table 4, at `paper` on VOC2007; the mean average precision over classes. Row C (SAR's block without its loss)
has no network in Table 4: its own is trained there.
"""

from __future__ import annotations

import dataclasses

from sarlib.config import Task
from sarlib.data import is_embedded, voc
from sarlib.experiments.claims import ClaimTest, difference, differences
from sarlib.experiments.declaration import Setting, Table, at_both_doses
from sarlib.experiments.settings import Sets
from sarlib.experiments.with_objects import settings
from sarlib.run import Run

BASELINE, BLOCK, SAR = "ViT", "ViT, SAR's block", "ViT + SAR"  # rows A, C and F of Table 1c


def declare(sets: Sets) -> Table:
    mixing = dataclasses.replace(sets.preset.augmentation, cutmix=0.0, label_smoothing=0.0)
    training = dataclasses.replace(sets.preset.multilabel, task=Task(name="multilabel"), augmentation=mixing)
    pairs = [pair for pair in settings(sets, training, ("voc2007", "voc2012")) if _several(sets, pair[1])]
    names = [child.dataset for _, child in pairs]
    cells = tuple(cell for parent, child in pairs for cell in child.cells("multilabel", _rows(parent, child)))
    gains = differences(SAR, BASELINE, datasets=names, table="multilabel", metric="mlmap")
    return Table(
        title="Images with several labels",
        cells=cells,
        tests=at_both_doses([ClaimTest("multilabel", gains)], cells),
        contrasts=tuple(
            difference(SAR, BLOCK, table="multilabel", metric="mlmap", dataset=name, note=f", what the loss adds, {name}")
            for name in names
        ),
        leads=("mlmap", "jaccard", "entropy", "components"),
    )


def _rows(parent: Setting, child: Setting) -> dict[str, Run]:
    """The runs of a data set (seed 0) by the name of their row, each from the same row in `parent` if its images are real."""
    rows, before = ({BASELINE: each.row("A"), BLOCK: each.row("C")} | each.sar(SAR) for each in (child, parent))
    if is_embedded(child.baseline.data.name):
        return rows
    return {name: dataclasses.replace(run, pretrained=before[name]) for name, run in rows.items() if name in before}


def _several(sets: Sets, child: Setting) -> bool:
    """Whether images of the set show different classes; where all show the same one, every guess is right. Sets known from
    records alone were trained on, and therefore do."""
    name = child.baseline.data.name
    if is_embedded(name) or sets.root is None:
        return True
    return len({label for one in voc.read(sets.root, name)[0].annotations for label in one.labels}) > 1
