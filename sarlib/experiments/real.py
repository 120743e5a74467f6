"""Real image sets in the tables of the embedded presets: what lies below DATA, as low-data subsets."""

from __future__ import annotations

import math
from pathlib import Path

from sarlib import data as datasets
from sarlib.config import Data
from sarlib.experiments.declaration import Setting
from sarlib.experiments.presets import Preset

#: Images of these sets are this small: a larger model input would only be an enlargement.
NATIVE_SIZE = {"cifar10": 32, "cifar100": 32}

#: preset: (training images, epochs, warm-up epochs) per subset, and images of the test set that are used (None: all).
SUBSETS = {
    "tiny": (((48, 2, 1.0),), 40),
    "laptop": (((500, 36, 4.0), (1000, 27, 3.0), (5000, 9, 1.0)), None),
    "gpu": (((500, 400, 40.0), (5000, 60, 6.0), (50000, 20, 2.0)), None),
}
TOKENS = {"tiny": 4, "laptop": 8, "gpu": 14}  # side of the token grid
PIXELS = {"tiny": 32, "laptop": 64, "gpu": 112}


def low_data_settings(preset: Preset, root: Path | None) -> tuple[Setting, ...]:
    """For every set below `root`, a setting for each subset size of the preset that the set can fill, smallest first within a set.

    A set smaller than all of them is used whole, for the epochs of the smallest subset. Empty without a `root`, and at `paper`, whose
    data are all real.
    """
    if preset.name not in SUBSETS:
        return ()
    settings = []
    for name in datasets.discover(root) if root is not None else ():
        available, tested, fingerprint = datasets.inspect(name, root=root)
        subsets, most_tested = SUBSETS[preset.name]
        test_size = most_tested if most_tested is not None and most_tested < tested else None
        fitting = [subset for subset in subsets if subset[0] <= available] or [(available, *subsets[0][1:])]
        for size, epochs, warmup in fitting:
            pixels, patch = _input(preset.name, NATIVE_SIZE.get(name, PIXELS[preset.name]))
            data = Data(name=name, image_size=pixels, train_size=size, test_size=test_size, fingerprint=fingerprint)
            settings.append(
                preset.setting(f"{name}, {size} images", data, patch_size=patch, epochs=epochs, warmup_epochs=warmup)
            )
    return tuple(settings)


def _input(preset: str, native: int) -> tuple[int, int]:
    """Pixels and patch size that give the preset's token grid: the smallest input that is not below `native`, with patches of a power of
    two, which every architecture can take."""
    patch = 2 ** math.ceil(math.log2(native / TOKENS[preset]))
    return patch * TOKENS[preset], patch
