"""One picture at a time: the augmentations that work on PIL pictures, for `DataLoader` workers."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from sarlib.config import Augmentation, ConfigError
from sarlib.data.images import Images, central_view, to_bytes


class WholePictures(Dataset):
    """Index -> (3, S, S) uint8 without augmentation."""

    def __init__(self, images: Images, *, image_size: int) -> None:
        self._images, self._size = images, image_size

    def __getitem__(self, index: int) -> Tensor | ConfigError:
        return _or_error(lambda: to_bytes(self._images.view(index, self._size)))


class AugmentedPictures(Dataset):
    """(index, seed) -> (3, S, S) uint8: cropped, flipped, and recoloured by RandAugment or jitter (not both, as in timm)."""

    def __init__(self, images: Images, *, augmentation: Augmentation, image_size: int) -> None:
        self._images = images
        self._transform = transforms.Compose(_transforms(augmentation, image_size))

    def __getitem__(self, item: tuple[int, int]) -> Tensor | ConfigError:
        index, seed = item
        with _seeded(seed):
            return _or_error(lambda: to_bytes(self._transform(self._images.picture(index))))


def collate(pictures: list[Tensor | ConfigError]) -> Tensor | ConfigError:
    """A batch, or the first picture's error: raised inside a worker it would lose its one line among tracebacks."""
    errors = [picture for picture in pictures if isinstance(picture, ConfigError)]
    return errors[0] if errors else torch.stack(pictures)


def _or_error(read: Callable[[], Tensor]) -> Tensor | ConfigError:
    try:
        return read()
    except ConfigError as error:
        return error


def _transforms(augmentation: Augmentation, size: int) -> list[Callable[[Image.Image], Image.Image]]:
    if augmentation.crop == "resized":
        steps = [RandomResizedCropAndInterpolation(size, scale=augmentation.crop_scale, interpolation="bicubic")]
    else:
        steps = [functools.partial(central_view, size=size)]
    if augmentation.crop == "pad":
        steps.append(transforms.RandomCrop(size, padding=augmentation.crop_padding, padding_mode="reflect"))
    if augmentation.flip:
        steps.append(transforms.RandomHorizontalFlip(augmentation.flip))
    if augmentation.rand_augment:
        fill = tuple(round(255 * mean) for mean in IMAGENET_DEFAULT_MEAN)
        settings = {"translate_const": int(size * 0.45), "img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
        steps.append(posterize_at_least_one_bit(rand_augment_transform(augmentation.rand_augment, settings)))
    elif augmentation.color_jitter:
        steps.append(transforms.ColorJitter(*[augmentation.color_jitter] * 3))
    return steps


def posterize_at_least_one_bit(policy: RandAugment) -> RandAugment:
    """timm's strongest posterisation keeps 0 bits, which current Pillow rejects: keep one."""
    for op in policy.ops:
        if op.name.startswith("Posterize"):
            op.level_fn = functools.partial(_one_bit, level_fn=op.level_fn)
    return policy


def _one_bit(level: float, settings: dict, *, level_fn: Callable[[float, dict], tuple[int]]) -> tuple[int]:
    return (max(1, level_fn(level, settings)[0]),)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the three global generators that PIL transforms draw from, and put them back afterwards.

    `torch.default_generator`, not `torch.manual_seed`: that would also reseed the accelerators the model draws from.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
