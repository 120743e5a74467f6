"""Which images, and what happens to them in training."""

from __future__ import annotations

from dataclasses import dataclass

from sarlib.config.checks import require, require_known

CROPS = ("none", "pad", "resized")
CROPPED_FROM = ("square", "photograph")


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
        require_known("crop_from", self.crop_from, CROPPED_FROM)
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
        require_known("crop", self.crop, CROPS)
        for what in ("flip", "erasing", "mix_switch", "label_smoothing"):
            require(0 <= getattr(self, what) <= 1, f"{what} must be between 0 and 1, got {getattr(self, what)}")
