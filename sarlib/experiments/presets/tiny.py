"""`tiny`: shows that everything works."""

from __future__ import annotations

import dataclasses

from sarlib.config import Augmentation, Model, Recipe, Task
from sarlib.experiments.presets.preset import SAR, SMALL_DETECTOR, STYLES, FineTuning, Preset, RealSets, dense, shapes, styles
from sarlib.trainer.recipes import DRLOC, host

_FEW = shapes(32, 48, 40)
_DENSE = Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1)
_VIEWS = {"out_dim": 64, "hidden": 32, "bottleneck": 16, "local_crops": 2, "local_tokens": 2}
_DETECTOR = dataclasses.replace(SMALL_DETECTOR, channels=8, anchors=(4, 8, 16), proposals=20, regions=16, hidden=(16,))
TINY = Preset(
    name="tiny",
    about="a few dozen embedded images, two epochs: shows that everything works, not what it gives",
    seeds=3,
    model=Model(patch_size=8, dim=24, depth=2, heads=2),
    recipe=Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1, clip=1.0),
    augmentation=Augmentation(flip=0.5, label_smoothing=0.1),
    regularizer=dataclasses.replace(SAR, warmup_epochs=1),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=1, hidden=96),
    in100=_FEW,
    small_sets=tuple(shapes(32, 48, 40, name=name) for name in (*STYLES, "digits")),
    in1k=shapes(32, 96, 40),
    many_images=shapes(32, 96, 40),
    detection=dense(_DETECTOR, _DENSE, 32, 48, 40),
    segmentation=dense(Task(name="segmentation", channels=8), _DENSE, 32, 48, 40),
    multilabel=_FEW,
    with_masks=styles(32, 48, 40),
    fine_tuning=FineTuning(
        sets=(*STYLES[1:], "digits"),
        recipe=Recipe(epochs=2, batch_size=12, lr=5e-4, warmup_epochs=1, clip=1.0),
        train_size=24,
        test_size=40,
    ),
    shifted_images=20,
    hosts={
        "DINO": host("DINO", _VIEWS, epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1),
        "MoCo-v3": host("MoCo-v3", {"out_dim": 16, "hidden": 32}, epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1),
    },
    sized=_FEW,
    sizes=((12, 1, 1), (24, 2, 2), (36, 2, 3)),
    clips=shapes(32, 32, 20, frames=2),
    clips_weight=0.3,
    real=RealSets(subsets=((48, 2, 1.0),), tokens=4, pixels=32, test_images=40),
)
