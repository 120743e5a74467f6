"""Table 6: semantic segmentation, fine-tuned from the networks of Table 4 as ViTDet does, with and without SAR.

Data, head and metric: VOC2012's images with masks to learn from, VOC2007's to test on, a semantic FPN on ViTDet's pyramid, mean
intersection over union of 21 classes. SAR acts through the weights that it pre-trained, and through its last block.
"""

from __future__ import annotations

import dataclasses
import functools

from sarlib import data as datasets
from sarlib.data import voc
from sarlib.experiments import table4
from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.settings import Sets
from sarlib.experiments.with_objects import settings
from sarlib.run import Measurement, Run

SCRATCH, BASELINE, SAR = "no pre-training", table4.BASELINE, table4.SAR
#: Without its skip the last attention makes the last map of averages: is it the network that is weak, or that map?
EARLIER = "ViT + SAR, last block left out"
SHOWN = ((BASELINE, SCRATCH), (SAR, BASELINE), (EARLIER, SAR))  # differences
DRAWN = 6  # test images that the page shows


def declare(sets: Sets) -> Table:
    dense = sets.preset.segmentation
    fine_tuning = {"task": dense.task, "augmentation": dense.augmentation}
    pairs = settings(sets, dense.training, (voc.LEAKY, "voc2012-masks", "voc2007-masks"), (voc.PETS,))
    pairs = [(parent, each.with_parts(**fine_tuning)) for parent, child in pairs for each in _protocols(sets, child)]
    better = functools.partial(difference, table="table6", metric="miou")
    names = [child.dataset for _, child in pairs]
    clean = [child.dataset for _, child in pairs if not child.baseline.data.name.endswith(voc.LITERAL)]
    cells = [cell for parent, child in pairs for cell in child.cells("table6", rows(parent, child))]
    return Table(
        title="Semantic segmentation",
        cells=tuple(cells),
        tests=(
            ClaimTest(
                "t6",
                tuple(better(SAR, BASELINE, dataset=name, note=f", {name}") for name in clean),
                requires=tuple(better(BASELINE, SCRATCH, dataset=name, note=f", {name}") for name in clean),
            ),
        ),
        contrasts=tuple(better(row, than, dataset=name) for name in names for row, than in SHOWN),
        drawn=tuple(_drawn(cell) for cell in cells if cell.dataset == names[0] and cell.row != EARLIER),
        leads=("miou", "pixel"),
    )


def rows(parent: Setting, child: Setting) -> dict[str, Run]:
    """The runs of a data set (seed 0) by the name of their row: each has the last block of the network that it starts from.
    Without one, all layers learn at the whole rate."""
    networks = table4.rows(parent)
    rows = {
        BASELINE: dataclasses.replace(child.baseline, pretrained=networks[BASELINE]),
        SAR: dataclasses.replace(child.row("C"), pretrained=networks[SAR]),
    }
    task = child.baseline.task
    return rows | {
        SCRATCH: dataclasses.replace(child.baseline, task=dataclasses.replace(task, layer_decay=1.0)),
        EARLIER: dataclasses.replace(rows[SAR], task=dataclasses.replace(task, blocks_left_out=1)),
    }


def _protocols(sets: Sets, child: Setting) -> list[Setting]:
    """The setting, and if its set has test images among its training images, first without them and then, literally, with."""
    own = child.baseline.data
    if not own.name.endswith(voc.LEAKY):
        return [child]
    named, same = voc.repeated(*voc.read(sets.root, own.name + voc.LITERAL))
    if not named + same:
        return [child]
    found = f"{len({*named, *same})} test images ({len(named)} by name, {len(same)} by content)"
    mark = datasets.fingerprint(own.name + voc.LITERAL, root=sets.root)
    literal = child.with_parts(data=dataclasses.replace(own, name=own.name + voc.LITERAL, fingerprint=mark))
    return [
        dataclasses.replace(child, dataset=f"{child.dataset}, without {found}"),
        dataclasses.replace(literal, dataset=f"{child.dataset}, literally: with {found}"),
    ]


def _drawn(cell: Cell) -> Cell:
    measurement = Measurement(name="segments", data=cell.run.data, images=DRAWN)
    return dataclasses.replace(cell, measurement=measurement)
