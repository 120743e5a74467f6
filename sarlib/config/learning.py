"""What is learned and how: the task, the recipe, and what is added to the loss."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sarlib.config.checks import require, require_known

TASKS = ("classification", "detection", "multilabel", "segmentation", "dino", "moco")
#: Tasks whose network is a ViT without its class token below a pyramid (`sarlib.models.vitdet`).
ON_VITDET = ("detection", "segmentation")
#: What an augmentation may not do to the images of a task, because its targets could not follow.
TARGETS_LOSE = {
    "detection": ("rand_augment", "mixup", "cutmix", "label_smoothing"),
    "multilabel": ("cutmix", "label_smoothing"),
    "segmentation": ("rand_augment", "mixup", "cutmix", "erasing"),
}
#: Tasks that learn from views of an image, without labels.
SELF_SUPERVISED = ("dino", "moco")
REGULARIZERS = (
    *("none", "spatial_entropy", "drloc", "total_variation", "disagreement", "softmax_entropy", "pixel_entropy"),
    "space_time_entropy",
)
DRLOC_MODES = ("l1", "cross_entropy", "cycle_back")
WEIGHT_SCHEDULES = ("constant", "warmup-cosine", "warmup-linear")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned: the name of a file in `sarlib/tasks/`.

    Those of `ON_VITDET` look at a pyramid of `channels` on the map of the last block, or of an earlier one with
    `blocks_left_out`. All blocks attend in windows of `window` tokens a side but for `global_blocks`, evenly spaced; each
    layer's learning rate is that of the next one times `layer_decay`.

    Detection has anchors of so many pixels a side, one size a level, and up to `proposals` regions an image, of which `regions`
    are trained on; a region's map of `region_size` a side goes through `convolutions` and the layers `hidden`.
    """

    name: str = "classification"
    channels: int = 256
    window: int = 14
    global_blocks: int = 4
    layer_decay: float = 0.7
    blocks_left_out: int = 0
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    proposals: int = 1000
    regions: int = 512
    region_size: int = 7
    convolutions: int = 4
    hidden: tuple[int, ...] = (1024,)
    self_supervision: SelfSupervision | None = None

    def __post_init__(self) -> None:
        require_known("task", self.name, TASKS)
        alone = f"{' and '.join(SELF_SUPERVISED)} have a self_supervision, other tasks have none: see {self.name}"
        require((self.self_supervision is not None) == (self.name in SELF_SUPERVISED), alone)
        for what in ("channels", "window", "global_blocks", "proposals", "regions", "region_size"):
            require(getattr(self, what) > 0, f"{what} must be 1 or more, got {getattr(self, what)}")
        require(0 < self.layer_decay <= 1, f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        require(self.blocks_left_out >= 0, f"blocks_left_out must not be negative, got {self.blocks_left_out}")
        sizes = f"anchors are a size for each of 1 to 5 levels, hidden layers one or more, got {self.anchors}, {self.hidden}"
        require(1 <= len(self.anchors) <= 5 and min(self.anchors + self.hidden) > 0 < len(self.hidden), sizes)


@dataclass(frozen=True, kw_only=True)
class SelfSupervision:
    """How a student learns from what a slowly moving teacher makes of other views; published values: `trainer/recipes.py`.

    Views are two random crops of `global_scale` of the image's area at the run's size, and `local_crops` smaller ones of
    `local_scale`, `local_tokens` tokens a side, which the student alone sees. The teacher's `momentum` rises to 1 in half a
    cosine. Of DINO alone: its sharpness goes from `teacher_temperatures[0]` to [1] in the first `sharpening` of the training,
    the weight decay from the recipe's to `final_weight_decay`, and the last layer stands still for `frozen_epochs`.
    """

    out_dim: int  # of the heads
    hidden: int
    temperature: float  # the student's
    momentum: float
    bottleneck: int = 256  # width before DINO's last layer
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_crops: int = 0
    local_tokens: int = 6
    teacher_temperatures: tuple[float, float] = (0.04, 0.04)
    sharpening: float = 0.0
    final_weight_decay: float | None = None
    frozen_epochs: int = 0

    def __post_init__(self) -> None:
        sizes = (self.out_dim, self.hidden, self.bottleneck, self.local_tokens, self.temperature, *self.teacher_temperatures)
        require(min(sizes) > 0 <= self.local_crops, f"widths, sizes and temperatures must be positive, got {sizes}")
        require(0 <= self.momentum <= 1, f"the teacher's momentum is between 0 and 1, got {self.momentum}")
        for low, high in (self.global_scale, self.local_scale):
            require(0 < low <= high <= 1, f"the scale of a crop is a range of shares of the area, got {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. `lr` is the peak learning rate at `batch_size` (scaling rules are applied where a recipe
    is declared)."""

    epochs: int  # 0, with 0 evaluations: the network that the run starts from, as it is
    batch_size: int
    lr: float
    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None  # maximum norm of the gradient
    ema: float | None = None  # decay of an exponential moving average of the weights, kept beside the raw weights
    evaluations: int = 1  # evenly spaced evaluations over training, the last one at its end

    def __post_init__(self) -> None:
        untouched = self.epochs == self.evaluations == 0
        why = f"epochs and batch size must be positive, got {self.epochs}, {self.batch_size}"
        require((self.epochs > 0 or untouched) and self.batch_size > 0, why)
        why = f"evaluations must be between 1 and {self.epochs} epochs, got {self.evaluations}"
        require(1 <= self.evaluations <= self.epochs or untouched, why)
        require(self.lr > 0, f"learning rate must be positive, got {self.lr}")

    @property
    def evaluation_batch_size(self) -> int:
        """Without gradients four times as many images fit."""
        return 4 * self.batch_size


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """What is added to the cross entropy. `constant` is the paper's text; `warmup-cosine` is its released code: 0 ->
    weight over `warmup_epochs`, then half a cosine down to 0 at the last epoch; `warmup-linear` falls in a straight line
    instead.

    `pairs` (of tokens an image), `mode` and `hidden` (width of its perceptron's two layers) are DRLoc's. `source` is left out:
    of your own function, "module:function", it is a digest of its file, so that a run with an edited one is another run.
    """

    name: str = "none"
    weight: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    pairs: int = 32
    mode: str = "l1"
    hidden: int = 512
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or source_of(self.name))
        known = self.name in REGULARIZERS or ":" in self.name  # your own: "module:function"
        why = f"unknown regularizer {self.name!r}; choose from {', '.join(REGULARIZERS)}, or give your own as module:function"
        require(known, why)
        require_known("schedule", self.schedule, WEIGHT_SCHEDULES)
        require(self.weight >= 0, f"the regularizer's weight must not be negative, got {self.weight}")
        require(self.mode in DRLOC_MODES, f"unknown mode {self.mode!r} of DRLoc; choose from {', '.join(DRLOC_MODES)}")
        require(self.pairs > 0, f"DRLoc needs at least one pair of tokens an image, got {self.pairs}")
        require(self.hidden > 0, f"DRLoc's perceptron needs a width of 1 or more, got {self.hidden}")
        off = (self.name == "none", self.weight == 0)
        why = f"regularizer {self.name!r} with weight {self.weight}: say name 'none' and weight 0 to turn it off"
        require(all(off) or not any(off), why)


def source_of(name: str) -> str:
    """12 hexadecimal digits of the file that Python imports for "module:function", as it is now; "" if there is none."""
    module, colon, _ = name.partition(":")
    if not colon:
        return ""
    try:
        importlib.invalidate_caches()  # it may have been written a moment ago
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:12] if found and found.has_location else ""
