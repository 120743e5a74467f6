"""Table 5: object detection, fine-tuned from the networks of Table 4 as ViTDet does, with and without SAR.

Training and validation images of VOC2007 and VOC2012 to learn from, VOC2007's test images, Faster R-CNN on ViTDet's pyramid,
VOC's mean average precision. As in ViTDet there is no class token in the detector: SAR acts through the weights that it
pre-trained, and through its last block. The paper says nothing of a loss on the attention in fine-tuning, and there is none.

Size and rates at `laptop` were fixed by what the claim asks for, that pre-training helps, before any network with SAR was
fine-tuned, with rows ViT and no pre-training alone, on seeds 100 and 101, which no table uses. map07 of ViT against no
pre-training: 500 images for 20 epochs 33.0 against 31.7 (seed 101); 128 for 80 epochs 21.5 against 21.6 and 23.2 against 22.6.
Rates that fall by 0.7 a layer, as ViTDet's, gave ViT 28.8 and 22.6 (seed 101), lower than without. The first setting, without
that decay, was taken by this alone. What pre-training is worth there is little, and three seeds may well not show it.
"""

from __future__ import annotations

import dataclasses
import functools

from sarlib.data import voc
from sarlib.experiments.claims import ClaimTest, differences
from sarlib.experiments.declaration import Setting, Table, at_both_doses
from sarlib.experiments.settings import Sets
from sarlib.experiments.table6 import BASELINE, SAR, SCRATCH, drawn, rows, shown
from sarlib.experiments.with_objects import settings

#: The sets with boxes below DATA, the first of each folder that is there.
WITH_BOXES = ("voc0712", "voc2012", "voc2007")
#: Objects on photographs are smaller: these are shown so many times as large as the networks saw theirs.
LARGER = 2


def declare(sets: Sets) -> Table:
    embedded, *real = settings(sets, sets.preset.detection, WITH_BOXES, (voc.HEADS,), larger=LARGER)
    pairs = [embedded, *((parent, _with_larger_anchors(child)) for parent, child in real)]
    names = [child.dataset for _, child in pairs]
    cells = [cell for parent, child in pairs for cell in child.cells("table5", rows(parent, child))]
    better = functools.partial(differences, datasets=names, table="table5", metric="map07")
    return Table(
        title="Object detection",
        cells=tuple(cells),
        tests=at_both_doses([ClaimTest("t5", better(SAR, BASELINE), requires=better(BASELINE, SCRATCH))], cells),
        contrasts=shown("table5", names, metric="map07"),
        drawn=drawn("boxes", cells),
        leads=("map07", "map50", "map"),
    )


def _with_larger_anchors(child: Setting) -> Setting:
    task = child.baseline.task
    return child.with_parts(task=dataclasses.replace(task, anchors=tuple(LARGER * size for size in task.anchors)))
