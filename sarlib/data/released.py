"""The released test sets of Table 8, which nothing is trained on: ImageNet-A, and ImageNet-C with AlexNet's errors on it.

They lie as their archives unpack: DATA/imagenet-a/<wnid>/ and DATA/imagenet-c/<corruption>/<severity>/<wnid>/, 224 px already.
Listed here, not decoded, and without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sarlib.config import require
from sarlib.data import folders

SETS = IMAGENET_A, IMAGENET_C = "imagenet-a", "imagenet-c"
SEVERITIES = 5
CLEAN = "clean"  # what stands beside the corruptions for images without one
#: AlexNet's error on each corruption, the mean over severities (github.com/hendrycks/robustness).
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def mce(errors: Mapping[str, Sequence[float]]) -> float:
    """The mean corruption error in %: of each corruption the errors in %, one a severity, over AlexNet's; 100 for AlexNet."""
    return sum(sum(errors[name]) / len(errors[name]) / error for name, error in ALEXNET.items()) / len(ALEXNET)


def places(name: str) -> list[str]:
    """The folders of a set below the folder of data."""
    parts = [f"{name}/{corruption}/{severity}" for corruption in ALEXNET for severity in range(1, SEVERITIES + 1)]
    return parts if name == IMAGENET_C else [name]


def listed(name: str, *, root: Path | None) -> folders.Split:
    """The images of a set, of ImageNet-C those of one severity. `ConfigError` names a folder that is missing."""
    require(root is not None, f"the test set {name!r} is not embedded: say DATA=<folder that holds it>")
    absent = [place for place in places(name) if not (root / place).is_dir()]
    some = f"{root} lacks {len(absent)} of the {len(places(name))} folders of {name}, among them {''.join(absent[:1])}"
    require(not absent, f"{some}/<wnid>/*.JPEG")
    return folders.read_classes(root / places(name)[0])
