"""A labelled set of images: bytes in memory or in a memory map, or files that are decoded when they are needed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sarlib.config import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N labelled images, either `pixels` or `files`.

    labels       (N,) int64, an index into `classes`
    pixels       (N, 3, H, W) uint8, RGB
    files        N paths, decoded on demand
    masks        (N, M, H, W) bool, the visible pixels of up to M object instances; only beside `pixels`
    mask_labels  (N, M) int64, the class of each instance, -1 where there is none
    boxes        (N, M, 4) int64, x0 y0 x1 y1 in pixels around each mask, x1 and y1 exclusive; 0 0 0 0 where there is none
    crop         what a square view shows of the shorter side, from the centre: a share, 1 for all of it

    Raises `ConfigError` if the parts do not fit each other.
    """

    labels: Tensor
    classes: tuple[str, ...]
    pixels: Tensor | None = None
    files: tuple[Path, ...] | None = None
    masks: Tensor | None = None
    mask_labels: Tensor | None = None
    boxes: Tensor | None = None
    crop: float = 1.0

    def __post_init__(self) -> None:
        n = len(self.labels)
        _require(self.labels.dtype == torch.int64 and self.labels.ndim == 1, "labels must be a vector of int64")
        _require(n > 0, "a set of images must hold at least one image")
        low, high = int(self.labels.min()), int(self.labels.max())
        _require(low >= 0 and high < len(self.classes), f"labels {low}..{high} do not index {len(self.classes)} classes")
        _require((self.pixels is None) != (self.files is None), "images are pixels in memory or files, not both or neither")
        if self.files is not None:
            _require(len(self.files) == n, f"{len(self.files)} files for {n} labels")
            _require(self.masks is None, "masks belong to images held in memory")
        else:
            _require(
                self.pixels.dtype == torch.uint8 and self.pixels.ndim == 4 and self.pixels.shape[:2] == (n, 3),
                f"pixels must be uint8 of shape ({n}, 3, H, W), got {self.pixels.dtype} {tuple(self.pixels.shape)}",
            )
        self._check_instances(n)

    def _check_instances(self, n: int) -> None:
        parts = (self.masks, self.mask_labels, self.boxes)
        _require(len({part is None for part in parts}) == 1, "masks, mask_labels and boxes come together")
        if self.masks is None:
            return
        m, size = self.masks.shape[1], self.pixels.shape[2:]
        fits = self.masks.dtype == torch.bool and self.masks.shape == (n, m, *size)
        _require(fits, "masks must be bool (N, M, H, W) like the pixels")
        _require(self.mask_labels.dtype == torch.int64 and self.mask_labels.shape == (n, m), "mask_labels must be int64 (N, M)")
        _require(self.boxes.shape == (n, m, 4), "boxes must be (N, M, 4)")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of images held in memory; None for files, which may all differ."""
        return None if self.pixels is None else tuple(self.pixels.shape[2:])

    def subset(self, indices: Sequence[int] | Tensor) -> Images:
        """The images at `indices`, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        pick = {
            name: getattr(self, name)[index]
            for name in ("labels", "pixels", "masks", "mask_labels", "boxes")
            if getattr(self, name) is not None
        }
        files = None if self.files is None else tuple(self.files[i] for i in index.tolist())
        return dataclasses.replace(self, files=files, **pick)

    def picture(self, index: int) -> Image.Image:
        """Image `index` in RGB at its own size. `ConfigError` names a file that does not decode."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[index].permute(1, 2, 0).contiguous().numpy())
        return decode(self.files[index])

    def view(self, index: int, size: int) -> Image.Image:
        """The square of `size` px that image `index` is seen as without augmentation (`central_view`)."""
        return central_view(self.picture(index), size, crop=self.crop)


def decode(path: Path) -> Image.Image:
    """The file at `path` as an RGB picture; `ConfigError` names a file that cannot be read as an image."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"cannot decode the image {path}: {error}; replace or remove the file") from error


def to_bytes(picture: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB picture."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def central_view(picture: Image.Image, size: int, *, crop: float = 1.0) -> Image.Image:
    """The centre of the picture: shorter side resized to `size` / `crop` px (bicubic, antialiased), of which the middle `size` px are shown."""
    width, height = picture.size
    side = math.floor(size / crop)
    if (width, height) == (side, side) == (size, size):
        return picture
    short = min(width, height)
    width, height = side * width // short, side * height // short
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return picture.crop((left, top, left + size, top + size))
