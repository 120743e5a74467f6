"""What a preset says: the data sets of every table, how they are trained on, and the sizes of the networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sarlib.config import Augmentation, Data, Model, Recipe, Regularizer, Stage, Task
from sarlib.models import CVT_13, PVT_SMALL, T2T_VIT_14
from sarlib.trainer.recipes import Protocol

#: What stands in for the four sets of Table 2: one world of objects, four ways of rendering it.
STYLES = ("shapes-object", "shapes-clipart", "shapes-painting", "shapes-sketch")
#: What networks trained on the first of them go on with: the same classes in another look, and other images.
ANOTHER_STYLE = "shapes-painting"
#: SAR's loss at `paper`. (DRLoc's perceptron, 512 wide on tokens of 384 there, would be most of the training on tokens of 48.)
SAR = Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=10)
#: Objects of 64 px images take up a quarter to three quarters of a side; tokens of 8 px make strides of 2 to 16 px.
SMALL_DETECTOR = Task(
    name="detection",
    channels=32,
    layer_decay=1.0,
    anchors=(8, 16, 32, 48),
    proposals=100,
    regions=32,
    region_size=4,
    convolutions=0,
    hidden=(128,),
)
FLIPPED = Augmentation(flip=0.5)
VIT = "ViT"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A data set and how it is trained on; what is None is the preset's."""

    data: Data
    label: str = ""  # in the tables; by default its name and number of training images
    patch_size: int | None = None
    recipe: Recipe | None = None
    task: Task = Task()
    augmentation: Augmentation | None = None
    epochs: int | None = None
    warmup_epochs: float | None = None  # of the learning rate, of lambda and of DRLoc's weight


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
    detection: Training  # Table 5: what networks of Table 4 are trained further for, boxes here,
    segmentation: Training  # and classes of pixels in Table 6
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


def shapes(
    image_size: int, train_size: int, test_size: int | None, *, name: str = STYLES[0], frames: int = 1, **training: Any
) -> Training:
    """Embedded objects, drawn in `image_size` px: so many training and test images, or clips of several frames."""
    data = Data(name=name, image_size=image_size, train_size=train_size, test_size=test_size, frames=frames)
    return Training(data=data, label=f"{name}, {train_size} clips" if frames > 1 else "", **training)


def styles(*sizes: int) -> tuple[Data, ...]:
    """The same objects in each of the STYLES."""
    return tuple(shapes(*sizes, name=name).data for name in STYLES)


def dense(task: Task, recipe: Recipe, *sizes: int, augmentation: Augmentation = FLIPPED) -> Training:
    """What is to be found by networks that were trained on the first style: the same objects in another."""
    return shapes(*sizes, name=ANOTHER_STYLE, recipe=recipe, task=task, augmentation=augmentation)
