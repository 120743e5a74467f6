"""The four sizes in which every table is declared: all that depends on the size is said here.

A preset changes data, sizes and epochs; never the rows, the columns or the code. Another one is one more entry of `PRESETS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sarlib.config import Augmentation, Data, Model, Recipe, Regularizer, Stage, Task
from sarlib.models import CVT_13, PVT_SMALL, T2T_VIT_14
from sarlib.trainer.recipes import (
    DEIT_AUGMENTATION,
    DEIT_RECIPE,
    DRLOC,
    FINE_TUNING,
    HOSTS,
    LIU_RECIPE,
    PROTOCOLS,
    VITDET,
    Protocol,
    host,
)

#: What stands in for the four sets of Table 2: one world of objects, four ways of rendering it.
STYLES = ("shapes-object", "shapes-clipart", "shapes-painting", "shapes-sketch")
#: What networks trained on the first of them go on with: the same classes in another look, and other images.
ANOTHER_STYLE = "shapes-painting"
#: SAR's loss at `paper`. (DRLoc's perceptron, 512 wide on tokens of 384 there, would be most of the training on tokens of 48.)
SAR = Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=10)
VIT = "ViT"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A data set and how it is trained on; what is None is the preset's."""

    data: Data
    label: str = ""  # in the tables; by default its name and number of training images
    patch_size: int | None = None
    recipe: Recipe | None = None
    epochs: int | None = None
    warmup_epochs: float | None = None  # of the learning rate, of lambda and of DRLoc's weight


@dataclass(frozen=True, kw_only=True)
class Dense:
    """What networks of Table 4 are trained further for, boxes or classes of pixels; `training` names the recipe."""

    training: Training
    task: Task
    augmentation: Augmentation


@dataclass(frozen=True, kw_only=True)
class RealSets:
    """How the real sets below DATA join those of a preset."""

    subsets: tuple[tuple[int, int, float], ...]  # training images, epochs, warm-up epochs; the smallest first
    tokens: int  # a side
    pixels: int  # a side, unless the set's own images are smaller
    test_images: int | None = None  # at most; None: all


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """On which sets the networks of Table 4 are trained further, and how; real sets below DATA join with as many images."""

    sets: tuple[str, ...]
    recipe: Recipe
    train_size: int | None = None  # None: all, as for the other
    test_size: int | None = None


def small_hybrids(vit: Model) -> dict[str, Model]:
    """The other architectures, as wide and as deep as `vit`, with last tokens as large as its own.

    Pyramids have three stages, of a third, two thirds and all of its width. CvT's keys are fewer than its tokens, as in the
    published one: S is k/2 x k/2.
    """
    return {
        "T2T": dataclasses.replace(vit, name="t2t", mlp_ratio=T2T_VIT_14.mlp_ratio),
        "PVT": _pyramid(vit, "pvt", mlp_ratios=(8.0, 8.0, 4.0), key_strides=(4, 2, 1)),
        "CvT": _pyramid(vit, "cvt", mlp_ratios=(4.0, 4.0, 4.0), key_strides=(2, 2, 2)),
    }


def _pyramid(vit: Model, name: str, *, mlp_ratios: tuple[float, ...], key_strides: tuple[int, ...]) -> Model:
    """Stages whose widths, heads and blocks add up to those of `vit`, and whose strides multiply to its patch size."""
    middle = max(1, vit.depth // 4)
    depths = (1, middle, max(1, vit.depth - 1 - middle))
    heads = [max(1, vit.heads * part // 3) for part in (1, 2, 3)]
    shapes = zip(depths, heads, (vit.patch_size // 2, 2, 1), mlp_ratios, key_strides, strict=True)
    stages = tuple(
        Stage(dim=vit.dim // vit.heads * h, depth=d, heads=h, stride=stride, mlp_ratio=mlp_ratio, key_stride=key_stride)
        for d, h, stride, mlp_ratio, key_stride in shapes
    )
    return dataclasses.replace(vit, name=name, depth=stages[-1].depth, mlp_ratio=stages[-1].mlp_ratio, stages=stages)


def published_hybrids(vit: Model) -> dict[str, Model]:
    """T2T-ViT-14, PVT-Small and CvT-13, with the stochastic depth of `vit` and tokens of their own size."""
    models = {"T2T": T2T_VIT_14, "PVT": PVT_SMALL, "CvT": CVT_13}
    return {name: dataclasses.replace(model, drop_path=vit.drop_path) for name, model in models.items()}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One size of all tables."""

    name: str
    about: str
    seeds: int  # how many, if nobody says
    model: Model
    recipe: Recipe
    augmentation: Augmentation
    regularizer: Regularizer  # SAR's loss
    drloc: Regularizer
    in100: Training  # Tables 1, 3 and 9 and the appendix: IN-100, or few images that stand in for it
    small_sets: tuple[Training, ...]  # Table 2
    in1k: Training  # Table 4 and Figure 3: more images than anywhere else, each of them seen less often
    many_images: Training  # Table 10: more images than in Table 9, for as many optimizer steps
    detection: Dense  # Table 5
    segmentation: Dense  # Table 6
    fine_tuning: FineTuning  # Table 7
    multilabel: Training  # of the appendix
    with_masks: tuple[Data, ...]  # Table 11: what the networks of `in1k` are measured on
    hosts: Mapping[str, Protocol]  # self-supervised, by name
    self_supervised: Training | None = None  # their images, and the warm-up of SAR's loss there; None: those of in100
    sized: Training  # future work: networks of several sizes, and those without class token
    sizes: tuple[tuple[int, int, int], ...]  # width, depth and heads of three of these, the second the preset's own
    clips: Training  # future work: what moves
    clips_weight: float  # of the loss there, for the matched dose of few steps is a larger one
    real: RealSets | None = None  # None where all sets are real
    hybrids: Callable[[Model], dict[str, Model]] = small_hybrids  # by name: what Tables 9 and 10 have beside a ViT
    protocols: Mapping[str, Protocol] = field(default_factory=dict)  # by architecture: its own recipe in Table 10
    published: Mapping[str, str] = field(default_factory=dict)  # rows of networks that timm has under such names
    natural: Data | None = None  # Table 8's released test sets; None: the run's own images with cues in conflict,
    corrupted: Data | None = None  # and corrupted by us,
    shifted_images: int | None = None  # so many at most
    test_crop: float = 1.0  # the share of a test image's shorter side that is shown
    crop_from: str = "square"  # what random resized crops of training images cut from, as in `config.Data`
    doses: str = ""  # whose search in `doses.yml` the matched doses are from; none at the paper's own size
    same_steps: bool = True  # the shares of Table 3 are trained for as many steps as the whole, else for as many epochs

    def architectures(self, patch_size: int | None = None) -> dict[str, Model]:
        """Models with a stock last block, by name, for tokens of `patch_size` pixels (default: the ViT's)."""
        vit = dataclasses.replace(self.model, patch_size=patch_size or self.model.patch_size)
        return {VIT: vit} | self.hybrids(vit)


def _styles(image_size: int, train_size: int, test_size: int) -> tuple[Data, ...]:
    return tuple(_shapes(image_size, train_size, test_size, name=name).data for name in STYLES)


def _shapes(
    image_size: int, train_size: int, test_size: int, *, name: str = STYLES[0], frames: int = 1, **training: Any
) -> Training:
    data = Data(name=name, image_size=image_size, train_size=train_size, test_size=test_size, frames=frames)
    return Training(data=data, label=f"{name}, {train_size} clips" if frames > 1 else "", **training)


#: Objects of 64 px images take up a quarter to three quarters of a side; tokens of 8 px make strides of 2 to 16 px.
_SMALL_DETECTOR = Task(
    name="detection",
    channels=32,
    anchors=(8, 16, 32, 48),
    proposals=100,
    regions=32,
    region_size=4,
    convolutions=0,
    hidden=(128,),
)

TINY = Preset(
    name="tiny",
    about="a few dozen embedded images, two epochs: shows that everything works, not what it gives",
    seeds=3,
    model=Model(patch_size=8, dim=24, depth=2, heads=2),
    recipe=Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1, clip=1.0),
    augmentation=Augmentation(flip=0.5, label_smoothing=0.1),
    regularizer=dataclasses.replace(SAR, warmup_epochs=1),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=1, hidden=96),
    in100=_shapes(32, 48, 40),
    small_sets=tuple(_shapes(32, 48, 40, name=name) for name in (*STYLES, "digits")),
    in1k=_shapes(32, 96, 40),
    many_images=_shapes(32, 96, 40),
    detection=Dense(
        training=_shapes(32, 48, 40, name=ANOTHER_STYLE, recipe=Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1)),
        task=dataclasses.replace(_SMALL_DETECTOR, channels=8, anchors=(4, 8, 16), proposals=20, regions=16, hidden=(16,)),
        augmentation=Augmentation(flip=0.5),
    ),
    segmentation=Dense(
        training=_shapes(32, 48, 40, name=ANOTHER_STYLE, recipe=Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1)),
        task=Task(name="segmentation", channels=8),
        augmentation=Augmentation(flip=0.5),
    ),
    multilabel=_shapes(32, 48, 40),
    with_masks=_styles(32, 48, 40),
    fine_tuning=FineTuning(
        sets=(*STYLES[1:], "digits"),
        recipe=Recipe(epochs=2, batch_size=12, lr=5e-4, warmup_epochs=1, clip=1.0),
        train_size=24,
        test_size=40,
    ),
    shifted_images=20,
    hosts={
        "DINO": host(
            "DINO",
            {"out_dim": 64, "hidden": 32, "bottleneck": 16, "local_crops": 2, "local_tokens": 2},
            **{"epochs": 2, "batch_size": 16, "lr": 1e-3, "warmup_epochs": 1},
        ),
        "MoCo-v3": host("MoCo-v3", {"out_dim": 16, "hidden": 32}, epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1),
    },
    sized=_shapes(32, 48, 40),
    sizes=((12, 1, 1), (24, 2, 2), (36, 2, 3)),
    clips=_shapes(32, 32, 20, frames=2),
    clips_weight=0.3,
    real=RealSets(subsets=((48, 2, 1.0),), tokens=4, pixels=32, test_images=40),
)

# Long training on few images is the paper's small-data regime at a size that two CPU cores can repeat with several seeds. Every
# setting takes 2,000 optimizer steps or more on 100,000 images or more: the baseline alone has learned its training images then
# (after 360 steps it had not), and was what the number was chosen by.
_LAPTOP_MANY = _shapes(64, 2000, 2000, epochs=50, warmup_epochs=5.0)
# As many steps of half as many images, so that networks of four times the cost, and clips, fit the bound.
_LAPTOP_SMALL_BATCH = Recipe(epochs=100, batch_size=25, lr=2e-3, clip=1.0)
_LAPTOP_CLIPS = Recipe(epochs=50, batch_size=25, lr=1e-3, clip=1.0)
LAPTOP = Preset(
    name="laptop",
    about="embedded images, two CPU cores, about twenty minutes a table",
    seeds=3,
    model=Model(patch_size=8, dim=48, depth=4, heads=3),
    recipe=Recipe(epochs=200, batch_size=50, lr=2e-3, warmup_epochs=20, clip=1.0),
    augmentation=Augmentation(crop="pad", crop_padding=4, flip=0.5, label_smoothing=0.1),
    regularizer=dataclasses.replace(SAR, warmup_epochs=20),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=20, hidden=192),
    in100=_shapes(64, 500, 2000),
    small_sets=(
        *(_shapes(64, 500, 2000, name=name) for name in ("shapes-object", "shapes-sketch")),
        Training(data=Data(name="digits", image_size=32, train_size=500), patch_size=4),
    ),
    in1k=_shapes(64, 3000, 2000, epochs=36, warmup_epochs=4.0),
    many_images=_LAPTOP_MANY,
    detection=Dense(
        training=_shapes(
            *(64, 500, 1000),
            name=ANOTHER_STYLE,
            recipe=Recipe(epochs=20, batch_size=16, lr=1e-3, warmup_epochs=1, weight_decay=0.1, clip=1.0),
        ),
        task=_SMALL_DETECTOR,
        augmentation=Augmentation(flip=0.5),
    ),
    segmentation=Dense(
        training=_shapes(
            *(64, 128, 1000),
            name=ANOTHER_STYLE,
            recipe=Recipe(epochs=250, batch_size=16, lr=1e-3, warmup_epochs=12, weight_decay=0.1, clip=1.0),
        ),
        task=Task(name="segmentation", channels=32),
        augmentation=Augmentation(flip=0.5),
    ),
    multilabel=_shapes(64, 500, 2000),
    with_masks=_styles(64, 500, 2000),
    doses="laptop",
    fine_tuning=FineTuning(
        sets=(*STYLES[1:], "digits"),
        recipe=Recipe(epochs=80, batch_size=50, lr=1e-3, warmup_epochs=3, clip=1.0),
        train_size=300,
    ),
    shifted_images=500,
    self_supervised=_shapes(64, 1500, 2000, warmup_epochs=2.0),
    hosts={
        "DINO": host(
            "DINO",
            {"out_dim": 256, "hidden": 192, "bottleneck": 64, "momentum": 0.99, "local_crops": 4, "local_tokens": 4}
            | {"teacher_temperatures": (0.02, 0.02), "final_weight_decay": None},
            **{"epochs": 20, "batch_size": 50, "lr": 5e-4, "warmup_epochs": 4},
        ),
        "MoCo-v3": host(
            "MoCo-v3", {"hidden": 192, "global_scale": (0.2, 1.0)}, epochs=20, batch_size=50, lr=1e-3, warmup_epochs=2
        ),
    },
    sized=_shapes(48, 500, 1000, recipe=_LAPTOP_SMALL_BATCH, warmup_epochs=10.0),
    sizes=((24, 2, 2), (48, 4, 3), (96, 6, 6)),
    clips=_shapes(32, 1000, 500, frames=4, recipe=_LAPTOP_CLIPS, warmup_epochs=5.0),
    clips_weight=0.3,
    # the largest subset is all of Imagenette
    real=RealSets(subsets=((500, 200, 20.0), (2000, 50, 5.0), (9469, 12, 1.0)), tokens=8, pixels=64),
)

GPU = Preset(
    name="gpu",
    about="CIFAR-10 and embedded images at 14 x 14 tokens, one GPU of 24 GB or more",
    seeds=5,
    model=Model(patch_size=8, dim=192, depth=9, heads=3, drop_path=0.05),
    recipe=Recipe(epochs=120, batch_size=256, lr=1e-3, warmup_epochs=12, clip=1.0, evaluations=4),
    augmentation=Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5, label_smoothing=0.1, mixup=0.8, cutmix=1.0),
    regularizer=dataclasses.replace(SAR, warmup_epochs=12),
    drloc=dataclasses.replace(DRLOC["vit"], warmup_epochs=12, hidden=512),
    in100=_shapes(112, 5000, 5000),
    small_sets=tuple(_shapes(112, 5000, 5000, name=name) for name in STYLES),
    in1k=_shapes(112, 30000, 5000, epochs=36, warmup_epochs=4.0),
    many_images=_shapes(112, 20000, 5000, epochs=30, warmup_epochs=3.0),
    # torchvision's loops over images take as long on any GPU: few images, few epochs
    detection=Dense(
        training=_shapes(
            *(112, 2000, 2000),
            name=ANOTHER_STYLE,
            recipe=Recipe(epochs=12, batch_size=32, lr=5e-4, warmup_epochs=1, weight_decay=0.1, clip=1.0),
        ),
        task=dataclasses.replace(_SMALL_DETECTOR, channels=128, anchors=(12, 24, 48, 72), hidden=(512,)),
        augmentation=Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5),
    ),
    segmentation=Dense(
        training=_shapes(
            *(112, 4000, 2000),
            name=ANOTHER_STYLE,
            recipe=Recipe(epochs=40, batch_size=64, lr=1e-3, warmup_epochs=2, weight_decay=0.1, clip=1.0),
        ),
        task=Task(name="segmentation", channels=128),
        augmentation=Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5),
    ),
    multilabel=_shapes(112, 5000, 5000),
    with_masks=_styles(112, 5000, 5000),
    doses="gpu",
    fine_tuning=FineTuning(
        sets=STYLES[1:],
        recipe=Recipe(epochs=100, batch_size=256, lr=5e-4, warmup_epochs=3, clip=1.0),
        train_size=2000,
        test_size=5000,
    ),
    shifted_images=2000,
    self_supervised=_shapes(112, 20000, 5000, warmup_epochs=6.0),
    hosts={
        "DINO": host(
            "DINO",
            {"out_dim": 4096, "hidden": 1024, "bottleneck": 128, "local_crops": 6, "local_tokens": 6},
            **{"epochs": 60, "batch_size": 256, "lr": 5e-4, "warmup_epochs": 6},
        ),
        "MoCo-v3": host("MoCo-v3", {"hidden": 1024}, epochs=60, batch_size=512, lr=5e-4, warmup_epochs=6),
    },
    sized=_shapes(112, 5000, 5000),
    sizes=((96, 6, 3), (192, 9, 3), (384, 12, 6)),
    clips=_shapes(64, 5000, 2000, frames=8),
    clips_weight=0.1,
    real=RealSets(subsets=((500, 2000, 200.0), (5000, 120, 12.0), (50000, 20, 2.0)), tokens=14, pixels=112),
)

# IN-1K is evaluated after each sixth of the epochs, as Figure 3 is drawn. The small sets follow El-Nouby et al. 2021; what they
# and the paper leave open is DeiT's recipe.
_IN1K = Training(
    data=Data(name="imagenet", image_size=224), label="IN-1K", recipe=dataclasses.replace(DEIT_RECIPE, evaluations=6)
)
_IN100 = Training(data=Data(name="imagenet100", image_size=224), label="IN-100")
_WITHOUT_EMA = dataclasses.replace(DEIT_RECIPE, ema=None)
PAPER = Preset(
    name="paper",
    about="the paper's data sets and protocol; days on several GPUs",
    seeds=1,
    model=Model(patch_size=16, dim=384, depth=12, heads=6, drop_path=0.1),
    recipe=LIU_RECIPE,
    augmentation=DEIT_AUGMENTATION,
    regularizer=SAR,
    drloc=DRLOC["vit"],
    in100=_IN100,
    small_sets=tuple(
        Training(data=Data(name=name, image_size=224), label=name, recipe=dataclasses.replace(DEIT_RECIPE, epochs=5000))
        for name in ("stanford-cars", "domainnet-clipart", "domainnet-painting", "domainnet-sketch")
    ),
    in1k=_IN1K,
    many_images=_IN1K,
    detection=Dense(
        training=Training(data=Data(name="voc0712", image_size=1024), label="VOC07+12", recipe=VITDET.recipe),
        task=Task(name="detection"),
        augmentation=VITDET.augmentation,
    ),
    # The text names neither size nor length of the segmentation: ViTDet's own rate and weight decay, at 512 px for 80 epochs.
    # Of several labels an image it names no set either: VOC2007, fine-tuned as in Table 7.
    segmentation=Dense(
        training=Training(
            data=Data(name="voc12-07-masks", image_size=512),
            label="VOC12 to VOC07",
            recipe=Recipe(epochs=80, batch_size=64, lr=1e-4, warmup_epochs=6, weight_decay=0.1, clip=1.0),
        ),
        task=Task(name="segmentation"),
        augmentation=Augmentation(crop="resized", crop_scale=(0.25, 1.0), flip=0.5),
    ),
    multilabel=Training(
        data=Data(name="voc2007", image_size=224),
        label="VOC07",
        recipe=dataclasses.replace(_WITHOUT_EMA, epochs=100, batch_size=512, lr=5e-4, warmup_epochs=3),
    ),
    with_masks=(Data(name="voc2012-masks", image_size=480),),
    fine_tuning=FineTuning(sets=("cifar10", "cifar100", "flowers102", "oxford-iiit-pet"), recipe=FINE_TUNING.recipe),
    natural=Data(name="imagenet-a", image_size=224, test_crop=224 / 256),
    corrupted=Data(name="imagenet-c", image_size=224),  # released at 224 px
    self_supervised=Training(data=Data(name="imagenet", image_size=224), label="IN-1K"),
    hosts=HOSTS,
    sized=_IN100,
    sizes=((192, 12, 3), (384, 12, 6), (768, 12, 12)),  # ViT-Ti, ViT-S and ViT-B
    clips=Training(data=Data(name="ucf101", image_size=112, frames=8), label="UCF101", patch_size=8),
    clips_weight=0.01,
    hybrids=published_hybrids,
    protocols={name: PROTOCOLS[name] for name in ("t2t", "pvt", "cvt")},
    published={"DeiT-S/16, published": "deit_small_patch16_224.fb_in1k", "DINO ViT-S/16": "vit_small_patch16_224.dino"},
    test_crop=224 / 256,
    crop_from="photograph",
    same_steps=False,
)

PRESETS = {preset.name: preset for preset in (TINY, LAPTOP, GPU, PAPER)}
