"""scikit-learn's handwritten digits: 1,797 real grey images of 8 x 8 pixels that come with it (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sarlib.config import ConfigError, Data
from sarlib.data.images import Images
from sarlib.data.splits import balanced, subsets

_TEST_SIZE = 797
_TEST_SEED = 0


def load(spec: Data, *, seed: int) -> tuple[Images, Images]:
    """1,000 training and 797 test images, balanced, enlarged bilinearly; `ConfigError` without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("the data set 'digits' needs scikit-learn: pip install scikit-learn, or take another set") from error
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    size = (spec.image_size, spec.image_size)
    large = F.interpolate(grey, size=size, mode="bilinear", align_corners=False, antialias=True)
    images = Images(
        labels=torch.from_numpy(bunch.target).long(),
        classes=tuple(str(name) for name in bunch.target_names),
        pixels=large.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous(),
    )
    test = balanced(images.labels, size=_TEST_SIZE, seed=_TEST_SEED)
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[test] = False
    return subsets(images.subset(rest.nonzero()[:, 0]), images.subset(test), spec=spec, seed=seed)
