"""What a run is made of: frozen declarations that are checked at construction, before a minute is spent."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

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
VARIANTS = ("A", "B", "C", "D")
ARCHITECTURES = ("vit", "t2t", "pvt", "cvt")
POOLS = ("token", "avg")
#: Sizes in pixels that T2T's soft splits can make a token of.
T2T_TOKENS = (16, 8, 4)
REGULARIZERS = (
    *("none", "spatial_entropy", "drloc", "total_variation", "disagreement", "softmax_entropy", "pixel_entropy"),
    "space_time_entropy",
)
DRLOC_MODES = ("l1", "cross_entropy", "cycle_back")
WEIGHT_SCHEDULES = ("constant", "warmup-cosine", "warmup-linear")
CROPS = ("none", "pad", "resized")
CROPPED_FROM = ("square", "photograph")


class ConfigError(ValueError):
    """A declaration that cannot be run. The message is one line: what is wrong and what to do about it."""


class TrainingError(RuntimeError):
    """A training that cannot go on. The message is one line: which run, at which step, and what is left of it."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images. `train_size` / `test_size` are numbers of images, None for the whole set; `image_size` is in pixels.

    A training subset is drawn by the run's seed, class by class in equal shares as far as they go; the test set never depends
    on the seed. `fingerprint` identifies the files of a real set (empty for embedded ones), so that changed files are another
    run. `test_crop` is the share of a test image's shorter side that is shown, from its centre: 0.875 resizes to 256 and
    shows 224 pixels. `crop_from` says what a random resized crop cuts from: the central square at `image_size`, which a set
    that fits into memory is decoded to once, or the photograph as it is stored, decoded each time, as in published protocols.
    With more than one of them, an image is a clip of so many `frames`.
    """

    name: str
    image_size: int
    train_size: int | None = None
    test_size: int | None = None
    fingerprint: str = ""
    test_crop: float = 1.0
    crop_from: str = "square"
    frames: int = 1

    def __post_init__(self) -> None:
        known = ", ".join(CROPPED_FROM)
        require(self.crop_from in CROPPED_FROM, f"unknown crop_from {self.crop_from!r}; choose from {known}")
        require(0 < self.test_crop <= 1, f"test_crop is a share of the image, above 0 and at most 1, got {self.test_crop}")
        require(self.image_size > 0, f"image size must be positive, got {self.image_size}")
        require(self.frames > 0, f"a clip has one frame or more, got {self.frames}")
        for what in ("train_size", "test_size"):
            size = getattr(self, what)
            require(size is None or size > 0, f"{what} must be positive or None, got {size}")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a training image. Names and meanings are timm's; probabilities are between 0 and 1."""

    crop: str = "none"  # none | pad (reflect `crop_padding` pixels, crop back) | resized (random resized crop)
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.0
    color_jitter: float = 0.0
    rand_augment: str | None = None  # a timm policy string, e.g. rand-m9-mstd0.5-inc1
    erasing: float = 0.0
    mixup: float = 0.0  # alpha of the Beta distribution; 0 turns it off
    cutmix: float = 0.0
    mix_switch: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        require(self.crop in CROPS, f"unknown crop {self.crop!r}; choose from {', '.join(CROPS)}")
        for what in ("flip", "erasing", "mix_switch", "label_smoothing"):
            require(0 <= getattr(self, what) <= 1, f"{what} must be between 0 and 1, got {getattr(self, what)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a pyramid: its tokens are `stride` times fewer a side than those before it, and its keys and values
    come from a grid that is once more `key_stride` times smaller a side."""

    dim: int
    depth: int
    heads: int
    stride: int
    mlp_ratio: float = 4.0
    key_stride: int = 1

    def __post_init__(self) -> None:
        for what in ("dim", "depth", "heads", "stride", "key_stride"):
            require(getattr(self, what) > 0, f"{what} of a stage must be positive, got {getattr(self, what)}")
        require(self.dim % self.heads == 0, f"dim {self.dim} of a stage is not divisible by {self.heads} heads")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which architecture. `variant` is the last block of Table 1c: A stock, B no MSA skip, C also no LayerNorm, D also no
    MLP skip.

    `patch_size` is the side of a token of the last block in pixels. A pyramid (pvt, cvt) has `stages`; `dim`, `depth`,
    `heads` and `mlp_ratio` are then those of the last one. A vit has a class token, which the head reads (`pool` is token), or
    none, and the head reads the average of the patch tokens (avg); the patches of several `frames` are one sequence.
    """

    name: str = "vit"
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    variant: str = "A"
    stages: tuple[Stage, ...] = ()
    pool: str = "token"
    frames: int = 1

    def __post_init__(self) -> None:
        require(self.name in ARCHITECTURES, f"unknown model {self.name!r}; choose from {', '.join(ARCHITECTURES)}")
        require(self.variant in VARIANTS, f"unknown last-block variant {self.variant!r}; choose from {', '.join(VARIANTS)}")
        require(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by {self.heads} heads")
        require(self.frames > 0, f"a clip has one frame or more, got {self.frames}")
        require(self.pool in POOLS, f"unknown pool {self.pool!r}; choose from {', '.join(POOLS)}")
        stock = (self.pool, self.frames) == ("token", 1)
        require(stock or self.name == "vit", f"{self.name} has a class token and sees one frame: average and clips are for vit")
        require(self.pool == "token" or self.frames == 1, "clips are pooled by a class token: use pool token")
        require(
            self.patch_size > 0 and self.depth > 0,
            f"patch size and depth must be positive, got {self.patch_size}, {self.depth}",
        )
        require(
            bool(self.stages) == (self.name in ("pvt", "cvt")),
            f"stages are for pvt and cvt, which need them; {self.name} has {len(self.stages)}",
        )
        if self.stages:
            self._check_stages()

    def _check_stages(self) -> None:
        last = self.stages[-1]
        stated = (self.dim, self.depth, self.heads, self.mlp_ratio)
        require(
            stated == (last.dim, last.depth, last.heads, last.mlp_ratio),
            f"dim, depth, heads and mlp_ratio of a pyramid are those of its last stage, {last}; got {stated}",
        )
        stride = math.prod(stage.stride for stage in self.stages)
        require(
            stride == self.patch_size,
            f"the strides of the stages multiply to {stride} pixels a token, not to patch_size {self.patch_size}",
        )

    @property
    def key_stride(self) -> int:
        """How many times fewer keys than tokens a side the last block has: S is that much smaller than the token grid."""
        return self.stages[-1].key_stride if self.stages else 1

    def stage_grids(self, image_size: int) -> list[int]:
        """Tokens a side at every stage of a pyramid. `ConfigError` where strides or keys do not tile what they are given."""
        grids, grid = [], image_size
        for number, stage in enumerate(self.stages, start=1):
            where = f"stage {number} of {self.name}, at an image of {image_size} px"
            require(
                grid % stage.stride == 0,
                f"{where}, cannot take every {stage.stride}th of {grid} pixels or tokens a side: choose another size",
            )
            grid //= stage.stride
            require(
                grid % stage.key_stride == 0,
                f"{where}, has {grid} x {grid} tokens, which keys of {stage.key_stride} x {stage.key_stride} do not tile: "
                "choose another size",
            )
            grids.append(grid)
        return grids

    def require_size(self, image_size: int) -> None:
        """`ConfigError` unless patches, stages and keys tile an image of `image_size` px and S has two keys a side or more."""
        require(
            image_size % self.patch_size == 0,
            f"an image of {image_size} x {image_size} px cannot be cut into patches of {self.patch_size} px: "
            f"choose a multiple of {self.patch_size}",
        )
        require(
            self.name != "t2t" or self.patch_size in T2T_TOKENS,
            f"t2t has tokens of {', '.join(map(str, T2T_TOKENS))} px, not of {self.patch_size}",
        )
        self.stage_grids(image_size)
        key = self.patch_size * self.key_stride
        grid = image_size // key
        require(
            grid >= 2,
            f"an image of {image_size} px leaves {self.name} a similarity map of {grid} x {grid} keys ({key} px a side): "
            f"choose one of at least {2 * key} px",
        )


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
        require(
            (self.epochs > 0 or untouched) and self.batch_size > 0,
            f"epochs and batch size must be positive, got {self.epochs}, {self.batch_size}",
        )
        require(
            1 <= self.evaluations <= self.epochs or untouched,
            f"evaluations must be between 1 and {self.epochs} epochs, got {self.evaluations}",
        )
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
        require(
            known,
            f"unknown regularizer {self.name!r}; choose from {', '.join(REGULARIZERS)}, or give your own as module:function",
        )
        require(
            self.schedule in WEIGHT_SCHEDULES, f"unknown schedule {self.schedule!r}; choose from {', '.join(WEIGHT_SCHEDULES)}"
        )
        require(self.weight >= 0, f"the regularizer's weight must not be negative, got {self.weight}")
        require(self.mode in DRLOC_MODES, f"unknown mode {self.mode!r} of DRLoc; choose from {', '.join(DRLOC_MODES)}")
        require(self.pairs > 0, f"DRLoc needs at least one pair of tokens an image, got {self.pairs}")
        require(self.hidden > 0, f"DRLoc's perceptron needs a width of 1 or more, got {self.hidden}")
        off = (self.name == "none", self.weight == 0)
        require(
            all(off) or not any(off),
            f"regularizer {self.name!r} with weight {self.weight}: say name 'none' and weight 0 to turn it off",
        )


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
        require(self.name in TASKS, f"unknown task {self.name!r}; choose from {', '.join(TASKS)}")
        alone = f"{' and '.join(SELF_SUPERVISED)} have a self_supervision, other tasks have none: see {self.name}"
        require((self.self_supervision is not None) == (self.name in SELF_SUPERVISED), alone)
        for what in ("channels", "window", "global_blocks", "proposals", "regions", "region_size"):
            require(getattr(self, what) > 0, f"{what} must be 1 or more, got {getattr(self, what)}")
        require(0 < self.layer_decay <= 1, f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        require(self.blocks_left_out >= 0, f"blocks_left_out must not be negative, got {self.blocks_left_out}")
        sizes = f"anchors are a size for each of 1 to 5 levels, hidden layers one or more, got {self.anchors}, {self.hidden}"
        require(1 <= len(self.anchors) <= 5 and min(self.anchors + self.hidden) > 0 < len(self.hidden), sizes)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published network to start from: its name, as in timm/deit_small_patch16_224, and the SHA-256 of its weights file."""

    name: str
    sha256: str

    def __post_init__(self) -> None:
        well_formed = len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")
        require(well_formed, f"the checksum of {self.name} must be 64 hexadecimal digits, got {self.sha256!r}")
