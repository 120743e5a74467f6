"""The four sizes in which every table is declared: all that depends on the size is said here.

A preset changes data, sizes and epochs; never the rows, the columns or the code. Another one is one more entry of `PRESETS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sarlib.config import Augmentation, Data, Model, Recipe, Regularizer, Stage
from sarlib.models import CVT_13, PVT_SMALL, T2T_VIT_14
from sarlib.trainer.recipes import DEIT_AUGMENTATION, DEIT_RECIPE, DRLOC, LIU_RECIPE, PROTOCOLS, Protocol

#: What stands in for the four sets of Table 2: one world of objects, four ways of rendering it.
STYLES = ("shapes-object", "shapes-clipart", "shapes-painting", "shapes-sketch")
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
class RealSets:
    """How the real sets below DATA join those of a preset."""

    subsets: tuple[tuple[int, int, float], ...]  # training images, epochs, warm-up epochs; the smallest first
    tokens: int  # a side
    pixels: int  # a side, unless the set's own images are smaller
    test_images: int | None = None  # at most; None: all


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
    real: RealSets | None = None  # None where all sets are real
    hybrids: Callable[[Model], dict[str, Model]] = small_hybrids  # by name: what Tables 9 and 10 have beside a ViT
    protocols: Mapping[str, Protocol] = field(default_factory=dict)  # by architecture: its own recipe in Table 10
    test_crop: float = 1.0  # the share of a test image's shorter side that is shown
    same_steps: bool = True  # the shares of Table 3 are trained for as many steps as the whole, else for as many epochs

    def architectures(self, patch_size: int | None = None) -> dict[str, Model]:
        """Models with a stock last block, by name, for tokens of `patch_size` pixels (default: the ViT's)."""
        vit = dataclasses.replace(self.model, patch_size=patch_size or self.model.patch_size)
        return {VIT: vit} | self.hybrids(vit)


def _shapes(image_size: int, train_size: int, test_size: int, *, name: str = STYLES[0], **training: float) -> Training:
    return Training(data=Data(name=name, image_size=image_size, train_size=train_size, test_size=test_size), **training)


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
    real=RealSets(subsets=((48, 2, 1.0),), tokens=4, pixels=32, test_images=40),
)

# Long training on few images is the paper's small-data regime at a size that two CPU cores can repeat with several seeds. Every
# setting takes 2,000 optimizer steps or more on 100,000 images or more: the baseline alone has learned its training images then
# (after 360 steps it had not), and was what the number was chosen by.
_LAPTOP_MANY = _shapes(64, 2000, 2000, epochs=50, warmup_epochs=5.0)
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
    real=RealSets(subsets=((500, 2000, 200.0), (5000, 120, 12.0), (50000, 20, 2.0)), tokens=14, pixels=112),
)

# IN-1K is evaluated after each sixth of the epochs, as Figure 3 is drawn. The small sets follow El-Nouby et al. 2021; what they
# and the paper leave open is DeiT's recipe.
_IN1K = Training(
    data=Data(name="imagenet", image_size=224), label="IN-1K", recipe=dataclasses.replace(DEIT_RECIPE, evaluations=6)
)
PAPER = Preset(
    name="paper",
    about="the paper's data sets and protocol; days on several GPUs",
    seeds=1,
    model=Model(patch_size=16, dim=384, depth=12, heads=6, drop_path=0.1),
    recipe=LIU_RECIPE,
    augmentation=DEIT_AUGMENTATION,
    regularizer=SAR,
    drloc=DRLOC["vit"],
    in100=Training(data=Data(name="imagenet100", image_size=224), label="IN-100"),
    small_sets=tuple(
        Training(data=Data(name=name, image_size=224), label=name, recipe=dataclasses.replace(DEIT_RECIPE, epochs=5000))
        for name in ("stanford-cars", "domainnet-clipart", "domainnet-painting", "domainnet-sketch")
    ),
    in1k=_IN1K,
    many_images=_IN1K,
    hybrids=published_hybrids,
    protocols={name: PROTOCOLS[name] for name in ("t2t", "pvt", "cvt")},
    test_crop=224 / 256,
    same_steps=False,
)

PRESETS = {preset.name: preset for preset in (TINY, LAPTOP, GPU, PAPER)}
