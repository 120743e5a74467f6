"""Labelled images, as bytes in memory or as files that are decoded on demand; square views; balanced subsets; digits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sarlib.config import ConfigError, Data, require
from sarlib.data.folders import Split
from sarlib.data.voc import VOID, Annotation, instances

#: ImageNet's means and standard deviations of red, green and blue, white being 1: what images are normalised by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TEST_SEED = 0  # test sets and their subsets are the same for every run


class Objects(NamedTuple):
    """What one image, or a square view of it, shows. Boxes and masks are apart: a set may have more of the ones.

    boxes: (B, 4) float32, x0 y0 x1 y1 in pixels, x1 and y1 exclusive; labels: (B,) int64, their classes; difficult: (B,) bool.
    masks: (M, H, W) bool, the visible pixels of each object; mask_labels: (M,) int64. None where the set has boxes alone.
    void: (H, W) bool, pixels that count neither for nor against a mask. None where there are no masks.
    """

    labels: Tensor
    boxes: Tensor
    difficult: Tensor
    masks: Tensor | None
    mask_labels: Tensor | None
    void: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N labelled images, either `pixels` or `files`. Raises `ConfigError` if the parts do not fit each other.

    Clips of T frames have 3 T channels and T M instances, frame by frame, and are always `pixels`.
    """

    labels: Tensor  # (N,) int64, an index into `classes`
    classes: tuple[str, ...]
    pixels: Tensor | None = None  # (N, 3, H, W) uint8, RGB
    files: tuple[Path, ...] | None = None  # N paths, decoded on demand
    masks: Tensor | None = None  # (N, M, H, W) bool, the visible pixels of up to M object instances; only beside `pixels`
    mask_labels: Tensor | None = None  # (N, M) int64, the class of each instance, -1 where there is none
    boxes: Tensor | None = None  # (N, M, 4) int64, x0 y0 x1 y1 around each mask, x1 and y1 exclusive; zeros where there is none
    annotations: tuple[Annotation, ...] | None = None  # N, the objects of each image, read on demand
    crop: float | None = 1.0  # what a square view shows of the shorter side, from the centre; None: the whole image, squeezed

    def __post_init__(self) -> None:
        n, pixels, masks, kinds = len(self.labels), self.pixels, self.masks, self.mask_labels
        require(self.labels.dtype == torch.int64 and self.labels.ndim == 1, "labels must be a vector of int64")
        require(n > 0, "a set of images must hold at least one image")
        low, high = int(self.labels.min()), int(self.labels.max())
        require(low >= 0 and high < len(self.classes), f"labels {low}..{high} do not index {len(self.classes)} classes")
        require((pixels is None) != (self.files is None), "images are pixels in memory or files, not both or neither")
        if pixels is None:
            require(len(self.files) == n, f"{len(self.files)} files for {n} labels")
            require(masks is None, "masks belong to images held in memory")
        else:
            fit = pixels.dtype == torch.uint8 and pixels.ndim == 4 and len(pixels) == n and pixels.shape[1] % 3 == 0
            require(fit, f"pixels must be uint8 of shape ({n}, 3, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
        fit = self.annotations is None or (masks is None and len(self.annotations) == n)
        require(fit, f"{len(self.annotations or ())} annotations for {n} images, beside which there may be no masks")
        together = len({part is None for part in (masks, kinds, self.boxes)}) == 1
        require(together, "masks, mask_labels and boxes come together")
        if masks is not None:
            m = masks.shape[1]
            fit = masks.dtype == torch.bool and masks.shape == (n, m, *self.image_size)
            require(fit, "masks must be bool (N, M, H, W) like the pixels")
            require(kinds.dtype == torch.int64 and kinds.shape == (n, m), "mask_labels must be int64 (N, M)")
            require(self.boxes.shape == (n, m, 4), "boxes must be (N, M, 4)")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of images held in memory; None for files, which may all differ."""
        return None if self.pixels is None else tuple(self.pixels.shape[2:])

    @property
    def frames(self) -> int:
        """How many frames a clip has; 1 for images."""
        return 1 if self.pixels is None else self.pixels.shape[1] // 3

    def by_frame(self) -> Images:
        """The frames of clips as images of their own, clip by clip; images as they are."""
        if self.frames == 1:
            return self
        parts = {name: getattr(self, name) for name in ("pixels", "masks", "mask_labels", "boxes")}
        apart = {name: part.unflatten(1, (self.frames, -1)).flatten(0, 1) for name, part in parts.items() if part is not None}
        return dataclasses.replace(self, labels=self.labels.repeat_interleave(self.frames), **apart)

    def subset(self, indices: Sequence[int] | Tensor) -> Images:
        """The images at `indices`, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        parts = {name: getattr(self, name) for name in ("labels", "pixels", "masks", "mask_labels", "boxes")}
        chosen = {name: part[index] for name, part in parts.items() if part is not None}
        listed = {name: getattr(self, name) for name in ("files", "annotations")}
        chosen |= {name: tuple(part[i] for i in index.tolist()) for name, part in listed.items() if part is not None}
        return dataclasses.replace(self, **chosen)

    def picture(self, index: int) -> Image.Image:
        """Image `index` in RGB at its own size. `ConfigError` names a file that does not decode."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[index].permute(1, 2, 0).contiguous().numpy())
        return decode(self.files[index])

    def view(self, index: int, size: int) -> Image.Image:
        """The square of `size` px that image `index` is seen as without augmentation (`central_view`)."""
        return central_view(self.picture(index), size, crop=self.crop)

    def objects(self, index: int, size: int | None = None) -> Objects:
        """The objects of image `index` as `view` shows them at `size` px, masks by nearest neighbours; by default at the size
        of the pixels, or of the file.

        `ConfigError` for a set without boxes and masks, and for a mask that does not decode or holds what is no class.
        """
        if self.annotations is None:
            require(self.masks is not None, "these images have neither masks nor boxes")
            require(size in (None, *self.image_size), f"masks in memory are of {self.image_size[0]} px, not of {size}")
            there = self.mask_labels[index] >= 0
            labels, masks, boxes = (part[index][there] for part in (self.mask_labels, self.masks, self.boxes))
            void = torch.zeros(self.image_size, dtype=torch.bool)
            return Objects(labels, boxes.float(), torch.zeros(len(labels), dtype=torch.bool), masks, labels, void)
        one, size = self.annotations[index], size or (self.image_size and self.image_size[0])
        boxes, masks, mask_labels, void = torch.tensor(one.boxes).float().reshape(-1, 4), None, None, None
        if size is not None:
            (width, height), corner = _placed(one.size, size, self.crop)
            scale = torch.tensor([width / one.size[0], height / one.size[1]])
            boxes = (boxes * scale.repeat(2) - torch.tensor(corner).repeat(2)).clamp(0, size)
        if one.class_mask is not None:
            maps = [Image.fromarray(each) for each in one.maps()]
            if size is not None:
                maps = [central_view(each, size, crop=self.crop, resample=Image.Resampling.NEAREST) for each in maps]
            classes, numbers = map(np.asarray, maps)
            masks, mask_labels = map(torch.from_numpy, instances(classes, numbers))
            void = torch.from_numpy(classes == VOID)
        return Objects(torch.tensor(one.labels).long(), boxes, torch.tensor(one.difficult).bool(), masks, mask_labels, void)


def from_split(split: Split) -> Images:
    """The images of a split of a set in files."""
    pixels = None if split.pixels is None else torch.from_numpy(split.pixels)
    crop = 1.0 if split.annotations is None else None  # masks and boxes are scored on whole images
    own = {"files": split.files, "pixels": pixels, "annotations": split.annotations, "crop": crop}
    return Images(labels=torch.from_numpy(split.labels), classes=split.classes, **own)


def in_memory(images: Images, size: int) -> Images:
    """The same images as pixels, as `view` shows them at `size` px; annotations stay."""
    if images.files is None:
        return images
    pixels = torch.stack([to_bytes(images.view(index, size)) for index in range(len(images))])
    return dataclasses.replace(images, files=None, pixels=pixels)


def decode(path: Path) -> Image.Image:
    """The file at `path` as an RGB picture; grey of 16 bits is scaled to 8, EXIF's orientation is ignored, as in torchvision.

    `ConfigError` names a file that cannot be read as an image.
    """
    try:
        with Image.open(path) as file:
            if file.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits instead of 8 or 16")
            if file.mode.startswith("I;16"):  # which Pillow would cut off at 255
                return Image.fromarray((np.asarray(file) / 257).round().astype(np.uint8)).convert("RGB")
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"cannot decode the image {path}: {error}; replace or remove the file") from error


def to_bytes(picture: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB picture."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def central_view(
    picture: Image.Image, size: int, *, crop: float | None = 1.0, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """The middle `size` px of the picture once its shorter side is resized to `size` / `crop` px (bicubic, antialiased); with
    None the whole picture, both sides resized to `size`."""
    extent, (left, top) = _placed(picture.size, size, crop)
    if picture.size == extent == (size, size):
        return picture
    return picture.resize(extent, resample).crop((left, top, left + size, top + size))


def _placed(extent: tuple[int, int], size: int, crop: float | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of a picture after `central_view` resized it, and the left and top end of what is shown."""
    if crop is None:
        return (size, size), (0, 0)
    side, short = math.floor(size / crop), min(extent)
    width, height = (side * each // short for each in extent)
    return (width, height), (round((width - size) / 2), round((height - size) / 2))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU through pinned memory and in the order of the stream, so that the host goes on at once."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def subsets(train: Images, test: Images, *, spec: Data, seed: int) -> tuple[Images, Images]:
    """As many of each as the declaration wants; `seed` draws the training subset. `ConfigError` if there are not so many."""

    def subset(images: Images, size: int | None, seed: int, what: str) -> Images:
        if size is None or size == len(images):
            return images
        require(size < len(images), f"{size} {what} images of {spec.name} wanted, there are {len(images)}")
        return images.subset(balanced(images.labels, size=size, seed=seed))

    return subset(train, spec.train_size, seed, "training"), subset(test, spec.test_size, TEST_SEED, "test")


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


def digits(spec: Data, *, seed: int) -> tuple[Images, Images]:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998), enlarged bilinearly; in equal shares.

    Without sizes 1,000 train and 797 test.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = torch.from_numpy(found.images).float()[:, None] * (255 / 16)
    grey = F.interpolate(grey, size=(spec.image_size,) * 2, mode="bilinear", align_corners=False, antialias=True)
    pixels = grey.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    images = Images(labels=torch.from_numpy(found.target).long(), classes=tuple(map(str, found.target_names)), pixels=pixels)
    test = balanced(images.labels, size=797, seed=TEST_SEED)
    rest = torch.ones(len(images), dtype=torch.bool).index_fill(0, test, False).nonzero()[:, 0]
    return subsets(images.subset(rest), images.subset(test), spec=spec, seed=seed)
