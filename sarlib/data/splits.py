"""Which images of a set a run trains and tests on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sarlib.config import ConfigError, Data
from sarlib.data.images import Images

_TEST_SEED = 0  # test subsets are the same for every run


def subsets(train: Images, test: Images, *, spec: Data, seed: int) -> tuple[Images, Images]:
    """As many of each as the declaration wants; `seed` draws the training subset. `ConfigError` if there are not so many."""
    return (
        _subset(train, size=spec.train_size, seed=seed, what=f"training images of {spec.name}"),
        _subset(test, size=spec.test_size, seed=_TEST_SEED, what=f"test images of {spec.name}"),
    )


def _subset(images: Images, *, size: int | None, seed: int, what: str) -> Images:
    if size is None or size == len(images):
        return images
    if size > len(images):
        raise ConfigError(f"{size} {what} wanted, there are {len(images)}")
    return images.subset(balanced(images.labels, size=size, seed=seed))


def balanced(labels: Tensor, *, size: int, seed: int) -> Tensor:
    """(size,) indices into `labels`, ascending: drawn at random, class by class in equal shares as far as the classes go.

    For one seed a smaller subset is contained in a larger one.
    """
    generator = np.random.default_rng(seed)
    y = labels.numpy()
    # Deal rounds: the r-th image of every class before any class's (r + 1)-th, in random order within a round.
    shuffled = generator.permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    counts = np.bincount(y)
    place = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = by_class[np.lexsort((generator.random(len(y)), place))]
    return torch.from_numpy(np.sort(order[:size]))
