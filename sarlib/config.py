"""What a run is: frozen, validated declarations, and the key under which their result is stored.

A run is data x model x augmentation x recipe x regulariser x seed. Two runs with equal declarations are the same run, whichever
table asks for them; `key` makes that identity a file name. Everything raises at construction, before a minute is spent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

#: Raised by one whenever the same declaration would give other numbers than before.
NUMERICS_VERSION = 1

VARIANTS = ("A", "B", "C", "D")
ARCHITECTURES = ("vit", "t2t", "pvt", "cvt")
#: Sizes in pixels that T2T's soft splits can make a token of.
T2T_TOKENS = (16, 8, 4)
REGULARIZERS = ("none", "spatial_entropy", "drloc", "total_variation", "disagreement", "softmax_entropy", "pixel_entropy")
DRLOC_MODES = ("l1", "cross_entropy", "cycle_back")
WEIGHT_SCHEDULES = ("constant", "warmup-cosine", "warmup-linear")
CROPS = ("none", "pad", "resized")


class ConfigError(ValueError):
    """A declaration that cannot be run. The message is one line: what is wrong and what to do about it."""


class TrainingError(RuntimeError):
    """A training that cannot go on. The message is one line: which run, at which step, and what is left of it."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images. `train_size` / `test_size` are numbers of images, None for the whole set; `image_size` is in pixels.

    A training subset is drawn by the run's seed, class by class in equal shares as far as they go; the test set never depends on the
    seed. `fingerprint` identifies the files of a real set (empty for embedded ones), so that changed files are another run.
    `test_crop` is the share of a test image's shorter side that is shown, from its centre: 0.875 resizes to 256 and shows 224 pixels.
    """

    name: str
    image_size: int
    train_size: int | None = None
    test_size: int | None = None
    fingerprint: str = ""
    test_crop: float = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.test_crop <= 1, f"test_crop is a share of the image, above 0 and at most 1, got {self.test_crop}")
        _require(self.image_size > 0, f"image size must be positive, got {self.image_size}")
        for what in ("train_size", "test_size"):
            size = getattr(self, what)
            _require(size is None or size > 0, f"{what} must be positive or None, got {size}")


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
        _require(self.crop in CROPS, f"unknown crop {self.crop!r}; choose from {', '.join(CROPS)}")
        for what in ("flip", "erasing", "mix_switch", "label_smoothing"):
            _require(0 <= getattr(self, what) <= 1, f"{what} must be between 0 and 1, got {getattr(self, what)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a pyramid: its tokens are `stride` times fewer a side than those before it, and its keys and values come from a grid
    that is once more `key_stride` times smaller a side."""

    dim: int
    depth: int
    heads: int
    stride: int
    mlp_ratio: float = 4.0
    key_stride: int = 1

    def __post_init__(self) -> None:
        for what in ("dim", "depth", "heads", "stride", "key_stride"):
            _require(getattr(self, what) > 0, f"{what} of a stage must be positive, got {getattr(self, what)}")
        _require(self.dim % self.heads == 0, f"dim {self.dim} of a stage is not divisible by {self.heads} heads")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which architecture. `variant` is the last block of Table 1c: A stock, B no MSA skip, C also no LayerNorm, D also no MLP skip.

    `patch_size` is the side of a token of the last block in pixels. A pyramid (pvt, cvt) has `stages`; `dim`, `depth`, `heads` and
    `mlp_ratio` are then those of the last one.
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

    def __post_init__(self) -> None:
        _require(self.name in ARCHITECTURES, f"unknown model {self.name!r}; choose from {', '.join(ARCHITECTURES)}")
        _require(self.variant in VARIANTS, f"unknown last-block variant {self.variant!r}; choose from {', '.join(VARIANTS)}")
        _require(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by {self.heads} heads")
        _require(
            self.patch_size > 0 and self.depth > 0,
            f"patch size and depth must be positive, got {self.patch_size}, {self.depth}",
        )
        _require(
            bool(self.stages) == (self.name in ("pvt", "cvt")),
            f"stages are for pvt and cvt, which need them; {self.name} has {len(self.stages)}",
        )
        if self.stages:
            self._check_stages()

    def _check_stages(self) -> None:
        last = self.stages[-1]
        stated = (self.dim, self.depth, self.heads, self.mlp_ratio)
        _require(
            stated == (last.dim, last.depth, last.heads, last.mlp_ratio),
            f"dim, depth, heads and mlp_ratio of a pyramid are those of its last stage, {last}; got {stated}",
        )
        stride = math.prod(stage.stride for stage in self.stages)
        _require(
            stride == self.patch_size,
            f"the strides of the stages multiply to {stride} pixels a token, not to patch_size {self.patch_size}",
        )

    @property
    def key_stride(self) -> int:
        """How many times fewer keys than tokens a side the last block has: S is that much smaller than the token grid."""
        return self.stages[-1].key_stride if self.stages else 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast. `lr` is the peak learning rate at `batch_size` (scaling rules are applied where a recipe is declared)."""

    epochs: int
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
        _require(
            self.epochs > 0 and self.batch_size > 0,
            f"epochs and batch size must be positive, got {self.epochs}, {self.batch_size}",
        )
        _require(
            1 <= self.evaluations <= self.epochs,
            f"evaluations must be between 1 and {self.epochs} epochs, got {self.evaluations}",
        )
        _require(self.lr > 0, f"learning rate must be positive, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """What is added to the cross entropy. `constant` is the paper's text; `warmup-cosine` is its released code: 0 -> weight over
    `warmup_epochs`, then half a cosine down to 0 at the last epoch; `warmup-linear` falls in a straight line instead.

    `pairs` (of tokens an image), `mode` and `hidden` (width of its perceptron's two layers) are DRLoc's.
    """

    name: str = "none"
    weight: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    pairs: int = 32
    mode: str = "l1"
    hidden: int = 512

    def __post_init__(self) -> None:
        _require(self.name in REGULARIZERS, f"unknown regularizer {self.name!r}; choose from {', '.join(REGULARIZERS)}")
        _require(
            self.schedule in WEIGHT_SCHEDULES, f"unknown schedule {self.schedule!r}; choose from {', '.join(WEIGHT_SCHEDULES)}"
        )
        _require(self.weight >= 0, f"the regularizer's weight must not be negative, got {self.weight}")
        _require(self.mode in DRLOC_MODES, f"unknown mode {self.mode!r} of DRLoc; choose from {', '.join(DRLOC_MODES)}")
        _require(self.pairs > 0, f"DRLoc needs at least one pair of tokens an image, got {self.pairs}")
        _require(self.hidden > 0, f"DRLoc's perceptron needs a width of 1 or more, got {self.hidden}")
        off = (self.name == "none", self.weight == 0)
        _require(
            all(off) or not any(off),
            f"regularizer {self.name!r} with weight {self.weight}: say name 'none' and weight 0 to turn it off",
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: everything that decides its numbers. `second` is a regulariser beside `regularizer`, as in SAR + DRLoc."""

    data: Data
    model: Model
    recipe: Recipe
    augmentation: Augmentation = field(default_factory=Augmentation)
    regularizer: Regularizer = field(default_factory=Regularizer)
    second: Regularizer = Regularizer()
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, f"seeds must not be negative, got {self.seed}")
        size, patch = self.data.image_size, self.model.patch_size
        _require(
            size % patch == 0,
            f"an image of {size} x {size} px cannot be cut into patches of {patch} px: choose a multiple of {patch}",
        )
        _require(
            self.model.name != "t2t" or patch in T2T_TOKENS,
            f"t2t has tokens of {', '.join(map(str, T2T_TOKENS))} px, not of {patch}",
        )
        self._check_stages()
        _require(
            self.grid >= 2,
            f"an image of {size} px leaves {self.model.name} a similarity map of {self.grid} x {self.grid} keys: choose a larger one",
        )
        if "disagreement" in (self.regularizer.name, self.second.name):
            _require(
                self.model.heads > 1,
                f"disagreement is between heads, and the last block has {self.model.heads}: give it two or more",
            )
        off = self.regularizer.name == "none"
        _require(
            not off or self.second.name == "none",
            "a run with one regulariser has it as `regularizer`; `second` is for another beside it",
        )

    def _check_stages(self) -> None:
        size = grid = self.data.image_size
        for number, stage in enumerate(self.model.stages, start=1):
            told = f"stage {number} of {self.model.name}, at an image of {size} px"
            _require(
                grid % stage.stride == 0,
                f"{told}, cannot take every {stage.stride}th of {grid} pixels or tokens a side: choose another size",
            )
            grid //= stage.stride
            _require(
                grid % stage.key_stride == 0,
                f"{told}, has {grid} x {grid} tokens, which keys of {stage.key_stride} x {stage.key_stride} do not tile: choose another size",
            )

    @property
    def grid(self) -> int:
        """Side k of the similarity map S, in keys."""
        return self.data.image_size // self.model.patch_size // self.model.key_stride

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Run:
        """Inverse of `to_dict` after a trip through JSON. Unknown or missing fields raise `ConfigError`."""
        try:
            built = {name: _build(kind, fields[name]) for name, kind in _PARTS.items() if name in fields or name != "second"}
            return cls(seed=fields["seed"], **built)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a run's configuration: {error}") from error

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this run in the store: a hash of the fields that are not at their defaults.

        So a new field, whose default means "as before", leaves the keys of earlier results valid; changing a default calls for a new
        `NUMERICS_VERSION`.
        """
        canonical = json.dumps({"version": NUMERICS_VERSION, **_departures(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _departures(declaration: Any) -> dict[str, Any]:
    """The fields of a (nested) declaration that differ from their defaults, or have none."""
    values = {item.name: getattr(declaration, item.name) for item in dataclasses.fields(declaration)}
    defaults = {item.name: item.default for item in dataclasses.fields(declaration)}
    return {name: _canonical(value) for name, value in values.items() if value != defaults[name]}


def _canonical(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _departures(value)
    return [_canonical(item) for item in value] if isinstance(value, tuple) else value


_PARTS = {
    "data": Data,
    "model": Model,
    "recipe": Recipe,
    "augmentation": Augmentation,
    "regularizer": Regularizer,
    "second": Regularizer,
}


def _build(kind: type, fields: dict[str, Any]) -> Any:
    return kind(**{name: _from_json(name, value) for name, value in fields.items()})


def _from_json(name: str, value: Any) -> Any:
    if name == "stages":
        return tuple(stage if isinstance(stage, Stage) else Stage(**stage) for stage in value)
    return tuple(value) if isinstance(value, list) else value
