"""`laptop`: two CPU cores.

Long training on few images is the paper's small-data regime at a size that two CPU cores can repeat with several seeds. Every
setting takes 2,000 optimizer steps or more on 100,000 images or more: the baseline alone has learned its training images then
(after 360 steps it had not), and was what the number was chosen by.
"""

from __future__ import annotations

import dataclasses

from sarlib.config import Augmentation, Model, Recipe, Task
from sarlib.experiments.presets.preset import SAR, SMALL_DETECTOR, STYLES, FineTuning, Preset, RealSets, dense, shapes, styles
from sarlib.trainer.recipes import DRLOC, host

# As many steps of half as many images, so that networks of four times the cost, and clips, fit the bound.
_SMALL_BATCH = Recipe(epochs=100, batch_size=25, lr=2e-3, clip=1.0)
_CLIPS = Recipe(epochs=50, batch_size=25, lr=1e-3, clip=1.0)
_VIEWS = {"out_dim": 256, "hidden": 192, "bottleneck": 64, "local_crops": 4, "local_tokens": 4}
_VIEWS |= {"momentum": 0.99, "teacher_temperatures": (0.02, 0.02), "final_weight_decay": None}
LAPTOP = Preset(
    name="laptop",
    about="embedded images, two CPU cores, about twenty minutes a table",
    seeds=3,
    model=Model(patch_size=8, dim=48, depth=4, heads=3),
    recipe=Recipe(epochs=200, batch_size=50, lr=2e-3, warmup_epochs=20, clip=1.0),
    augmentation=Augmentation(crop="pad", crop_padding=4, flip=0.5, label_smoothing=0.1),
    regularizer=dataclasses.replace(SAR, warmup_epochs=20),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=20, hidden=192),
    in100=shapes(64, 500, 2000),
    small_sets=(
        *(shapes(64, 500, 2000, name=name) for name in ("shapes-object", "shapes-sketch")),
        shapes(32, 500, None, name="digits", patch_size=4),
    ),
    in1k=shapes(64, 3000, 2000, epochs=36, warmup_epochs=4.0),
    many_images=shapes(64, 2000, 2000, epochs=50, warmup_epochs=5.0),
    detection=dense(
        SMALL_DETECTOR, Recipe(epochs=20, batch_size=16, lr=1e-3, warmup_epochs=1, weight_decay=0.1, clip=1.0), *(64, 500, 1000)
    ),
    segmentation=dense(
        Task(name="segmentation", channels=32),
        Recipe(epochs=250, batch_size=16, lr=1e-3, warmup_epochs=12, weight_decay=0.1, clip=1.0),
        *(64, 128, 1000),
    ),
    multilabel=shapes(64, 500, 2000),
    with_masks=styles(64, 500, 2000),
    doses="laptop",
    fine_tuning=FineTuning(
        sets=(*STYLES[1:], "digits"),
        recipe=Recipe(epochs=80, batch_size=50, lr=1e-3, warmup_epochs=3, clip=1.0),
        train_size=300,
    ),
    shifted_images=500,
    self_supervised=shapes(64, 1500, 2000, warmup_epochs=2.0),
    hosts={
        "DINO": host("DINO", _VIEWS, epochs=20, batch_size=50, lr=5e-4, warmup_epochs=4),
        "MoCo-v3": host(
            "MoCo-v3", {"hidden": 192, "global_scale": (0.2, 1.0)}, epochs=20, batch_size=50, lr=1e-3, warmup_epochs=2
        ),
    },
    sized=shapes(48, 500, 1000, recipe=_SMALL_BATCH, warmup_epochs=10.0),
    sizes=((24, 2, 2), (48, 4, 3), (96, 6, 6)),
    clips=shapes(32, 1000, 500, frames=4, recipe=_CLIPS, warmup_epochs=5.0),
    clips_weight=0.3,
    # the largest subset is all of Imagenette
    real=RealSets(subsets=((500, 200, 20.0), (2000, 50, 5.0), (9469, 12, 1.0)), tokens=8, pixels=64),
)
