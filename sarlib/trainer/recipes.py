"""Training protocols as data: DeiT, Liu et al., T2T, PVT, CvT, DINO, MoCo-v3, each with the public code of its numbers.

Numbers are those of the released code at the batch size of its own example; where the rate depends on the batch, `lr` is
already scaled. What a released trainer does and these declarations cannot say is in `book/recipes.yml`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sarlib.config import Augmentation, Recipe, Regularizer, SelfSupervision, Task

#: One augmentation for all five: the defaults of DeiT's trainer, which the others took over.
DEIT_AUGMENTATION = Augmentation(
    crop="resized", flip=0.5, color_jitter=0.4, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25,
    mixup=0.8, cutmix=1.0, mix_switch=0.5, label_smoothing=0.1,
)  # fmt: skip

#: DeiT as the trainer released with the paper runs it, on eight GPUs of 128 images and without repeated augmentation; the rate
#: is 5e-4 for each 512 images.
DEIT_RECIPE = Recipe(
    epochs=300, batch_size=1024, lr=1e-3, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, weight_decay=0.05, ema=0.99996
)

#: DeiT without the moving average of the weights, which PVT's trainer has commented out; Liu et al. and CvT declare none.
_WITHOUT_EMA = dataclasses.replace(DEIT_RECIPE, ema=None)

#: Liu et al. 2021 (Swin's recipe) on eight GPUs of 128 images, which the paper uses for IN-100.
LIU_RECIPE = dataclasses.replace(_WITHOUT_EMA, epochs=100, warmup_epochs=20, warmup_lr=5e-7, min_lr=5e-6, clip=5.0)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an architecture was trained by those who published it.

    `drop_path` is the largest rate of stochastic depth; `source` names repository and file.
    """

    recipe: Recipe
    source: str
    augmentation: Augmentation = DEIT_AUGMENTATION
    drop_path: float = 0.1
    task: Task = Task()


#: Fine-tuning (Table 7) on eight GPUs of 64 images. Loop, optimizer and augmentation are those of a training from scratch: the
#: network is in training mode, its head and the optimizer are new.
FINE_TUNING = Protocol(
    recipe=dataclasses.replace(_WITHOUT_EMA, epochs=100, batch_size=512, lr=5e-4, warmup_epochs=3),
    source="github.com/helia95/SAR: README.md, main.py (after github.com/facebookresearch/moco-v3: transfer/README.md)",
)

#: By name: the architecture's own protocol; `liu`, under which all were trained on IN-100 for 100 epochs; and `fine-tuning`.
PROTOCOLS = {
    "deit": Protocol(recipe=DEIT_RECIPE, source="github.com/helia95/SAR: main.py, README.md (a DeiT trainer)"),
    "liu": Protocol(recipe=LIU_RECIPE, source="github.com/yhlleo/VTs-Drloc: config.py, main.py, train.sh"),
    # T2T-ViT-14 on four GPUs of 128 images; its trainer does not scale the rate. (On eight of 64 the same file says 5e-4.)
    "t2t": Protocol(
        recipe=dataclasses.replace(DEIT_RECIPE, epochs=310, batch_size=512, lr=1e-3, warmup_epochs=10),
        source="github.com/yitu-opensource/T2T-ViT: main.py, README.md",
    ),
    "pvt": Protocol(
        recipe=_WITHOUT_EMA,
        source="github.com/whai362/PVT: classification/main.py, classification/configs/pvt/pvt_small.py",
    ),
    # CvT-13 on eight GPUs of 256 images; the rate is 2.5e-4 for each GPU.
    "cvt": Protocol(
        recipe=dataclasses.replace(_WITHOUT_EMA, batch_size=2048, lr=2.5e-4 * 8),
        source="github.com/microsoft/CvT: experiments/imagenet/cvt/cvt-13-224x224.yaml, lib/config/default.py",
    ),
    "fine-tuning": FINE_TUNING,
}

#: ViTDet's fine-tuning of a ViT-B on COCO, for VOC's 16,551 images, about eight times fewer.
VITDET = Protocol(
    recipe=Recipe(epochs=36, batch_size=64, lr=1e-4, warmup_epochs=1, warmup_lr=1e-7, min_lr=1e-7, weight_decay=0.1),
    augmentation=Augmentation(crop="resized", crop_scale=(0.25, 1.0), flip=0.5),
    source="github.com/facebookresearch/detectron2: projects/ViTDet/configs (mask_rcnn_vitdet_b_100ep.py and its common parts)",
)

#: DRLoc as Liu et al. 2021 trained it: 0.1 for T2T and CvT, 0.5 elsewhere (they had neither ViT nor PVT in their tables).
DRLOC = {
    architecture: Regularizer(name="drloc", weight=weight, schedule="warmup-linear", warmup_epochs=20, pairs=64)
    for architecture, weight in {"vit": 0.5, "t2t": 0.1, "pvt": 0.5, "cvt": 0.1}.items()
}

_DINO = SelfSupervision(
    out_dim=65_536, hidden=2048, temperature=0.1, momentum=0.996, local_crops=8, final_weight_decay=0.4, frozen_epochs=1
)
_MOCO = SelfSupervision(out_dim=256, hidden=4096, temperature=0.2, momentum=0.99, global_scale=(0.08, 1.0))

#: By name: the self-supervised hosts of the appendix, with a ViT-S/16.
HOSTS = {
    # DINO's example for 100 epochs, on eight GPUs of 64 images; the rate is 5e-4 for each 256.
    "DINO": Protocol(
        recipe=Recipe(
            epochs=100, batch_size=512, lr=1e-3, warmup_epochs=10, warmup_lr=0.0, min_lr=1e-6, weight_decay=0.04, clip=3.0
        ),
        task=Task(name="dino", self_supervision=_DINO),
        augmentation=Augmentation(),
        source="github.com/facebookresearch/dino: main_dino.py, README.md",
    ),
    # The rate is 1.5e-4 for each 256 images.
    "MoCo-v3": Protocol(
        recipe=Recipe(epochs=300, batch_size=4096, lr=2.4e-3, warmup_epochs=40, warmup_lr=0.0, min_lr=0.0, weight_decay=0.1),
        task=Task(name="moco", self_supervision=_MOCO),
        augmentation=Augmentation(),
        drop_path=0.0,
        source="github.com/facebookresearch/moco-v3: main_moco.py, CONFIG.md",
    ),
}


def host(name: str, views: dict[str, Any], **recipe: float) -> Protocol:
    """A published host with other sizes: of what it does with views, and of its recipe. Without stochastic depth."""
    published = HOSTS[name]
    views = dataclasses.replace(published.task.self_supervision, **views)
    task = dataclasses.replace(published.task, self_supervision=views)
    return dataclasses.replace(published, task=task, recipe=dataclasses.replace(published.recipe, **recipe), drop_path=0.0)
