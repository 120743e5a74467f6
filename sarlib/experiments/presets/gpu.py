"""`gpu`: one GPU."""

from __future__ import annotations

import dataclasses

from sarlib.config import Augmentation, Model, Recipe, Task
from sarlib.experiments.presets.preset import SAR, SMALL_DETECTOR, STYLES, FineTuning, Preset, RealSets, dense, shapes, styles
from sarlib.trainer.recipes import DRLOC, host

_FEW = shapes(112, 5000, 5000)
_CROPS = Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5)
_VIEWS = {"out_dim": 4096, "hidden": 1024, "bottleneck": 128, "local_crops": 6, "local_tokens": 6}
GPU = Preset(
    name="gpu",
    about="CIFAR-10 and embedded images at 14 x 14 tokens, one GPU of 24 GB or more",
    seeds=5,
    model=Model(patch_size=8, dim=192, depth=9, heads=3, drop_path=0.05),
    recipe=Recipe(epochs=120, batch_size=256, lr=1e-3, warmup_epochs=12, clip=1.0, evaluations=4),
    augmentation=dataclasses.replace(_CROPS, label_smoothing=0.1, mixup=0.8, cutmix=1.0),
    regularizer=dataclasses.replace(SAR, warmup_epochs=12),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=12, hidden=512),
    in100=_FEW,
    small_sets=tuple(shapes(112, 5000, 5000, name=name) for name in STYLES),
    in1k=shapes(112, 30000, 5000, epochs=36, warmup_epochs=4.0),
    many_images=shapes(112, 20000, 5000, epochs=30, warmup_epochs=3.0),
    # torchvision's loops over images take as long on any GPU: few images, few epochs
    detection=dense(
        dataclasses.replace(SMALL_DETECTOR, channels=128, anchors=(12, 24, 48, 72), hidden=(512,)),
        Recipe(epochs=12, batch_size=32, lr=5e-4, warmup_epochs=1, weight_decay=0.1, clip=1.0),
        *(112, 2000, 2000),
        augmentation=_CROPS,
    ),
    segmentation=dense(
        Task(name="segmentation", channels=128),
        Recipe(epochs=40, batch_size=64, lr=1e-3, warmup_epochs=2, weight_decay=0.1, clip=1.0),
        *(112, 4000, 2000),
        augmentation=_CROPS,
    ),
    multilabel=_FEW,
    with_masks=styles(112, 5000, 5000),
    doses="gpu",
    fine_tuning=FineTuning(
        sets=STYLES[1:],
        recipe=Recipe(epochs=100, batch_size=256, lr=5e-4, warmup_epochs=3, clip=1.0),
        train_size=2000,
        test_size=5000,
    ),
    shifted_images=2000,
    self_supervised=shapes(112, 20000, 5000, warmup_epochs=6.0),
    hosts={
        "DINO": host("DINO", _VIEWS, epochs=60, batch_size=256, lr=5e-4, warmup_epochs=6),
        "MoCo-v3": host("MoCo-v3", {"hidden": 1024}, epochs=60, batch_size=512, lr=5e-4, warmup_epochs=6),
    },
    sized=_FEW,
    sizes=((96, 6, 3), (192, 9, 3), (384, 12, 6)),
    clips=shapes(64, 5000, 2000, frames=8),
    clips_weight=0.1,
    real=RealSets(subsets=((500, 2000, 200.0), (5000, 120, 12.0), (50000, 20, 2.0)), tokens=14, pixels=112),
)
