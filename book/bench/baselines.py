"""Other ways to calculate the spatial entropy loss (Equation 9), as a user might take them; each is differentiated by autograd.

All take maps (..., h, w) on any device and return the mean entropy, a scalar. They differ in how components are labelled and in
how the mass of each is summed; each is written as fast as its idea permits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sarlib.config import ConfigError
from sarlib.entropy import components

#: Added to the excess by the released algorithm so that the logarithm stays finite.
EPSILON = 1e-9

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)

#: One map's foreground (h, w) uint8 -> labels (h, w) and their number.
Labeller = Callable[[np.ndarray], tuple[np.ndarray, int]]


def released(similarity: Tensor) -> Tensor:
    """The released trainer's algorithm, re-written from its description.

    On the CPU one OpenCV call per image and head; per component one dense integer mask (h * w, int64), made by itself; all of
    them are stacked and moved to the device of the maps. There, for all components at once: mass = sum of ReLU(S - mean) + 1e-9
    over the mask, total = the same over the map's foreground, both from a copy of the map per component.
    """
    return _mask_by_mask(similarity, _opencv())


def released_with_scipy(similarity: Tensor) -> Tensor:
    """As `released`, with `scipy.ndimage.label` in the place of OpenCV."""
    return _mask_by_mask(similarity, _scipy)


def released_tightened(similarity: Tensor) -> Tensor:
    """What `released` can be without another idea: still one OpenCV call a map and one dense mask a component, but boolean
    masks, those of a map made by one comparison, and the totals summed from the masses."""
    label = _opencv()
    maps, foreground = _flat(similarity)
    masks, counts = [], []
    for plane in _planes(foreground, similarity):
        labels, count = label(plane)
        masks.append(labels == np.arange(1, count + 1)[:, None, None])
        counts.append(count)
    owner = torch.from_numpy(np.repeat(np.arange(len(maps)), counts)).to(maps.device)
    mask = torch.from_numpy(np.concatenate(masks)).flatten(1).to(maps.device)
    mass = (_excess(maps)[owner] * mask).sum(-1)
    total = mass.new_zeros(len(maps)).index_add(0, owner, mass)
    return _entropy(mass / total[owner], maps=len(maps))


def kornia_pooling(similarity: Tensor) -> Tensor:
    """With `kornia.contrib.connected_components`, batched and on the device of the maps; masses by one scatter-add.

    Not exact: it spreads labels by a fixed number of max-pooling sweeps (100, its default) and cuts longer components up.
    """
    maps, foreground = _flat(similarity)
    labels = kornia_labels(similarity)
    excess = torch.where(foreground, _excess(maps), 0)
    mass = torch.zeros_like(excess).scatter_add(1, labels, excess)
    share = mass / mass.sum(-1, keepdim=True)
    return _entropy(share[share > 0], maps=len(maps))


def kornia_labels(similarity: Tensor) -> Tensor:
    """kornia's components of S > mean: int64 (N, h * w), numbers in 0 ... h * w - 1 within each map; any on the background."""
    contrib = _optional("kornia.contrib", "kornia")
    _, foreground = _flat(similarity)
    h, w = similarity.shape[-2:]
    labels = contrib.connected_components(foreground.view(-1, 1, h, w).float()).flatten(1)
    return labels % (h * w)  # they are numbered on from map to map


def share_of_wrong_partitions(similarity: Tensor) -> tuple[float, Tensor]:
    """The share of maps that kornia cuts into other components than there are, and which maps it gets right, bool (N,)."""
    _, foreground = _flat(similarity)
    truth = components(similarity).flatten(0, -3).flatten(1).long()
    theirs = torch.where(foreground, kornia_labels(similarity) + 1, 0)
    right = (_first_pixels(theirs) == _first_pixels(truth)).all(-1)
    return 1 - right.double().mean().item(), right


def _first_pixels(labels: Tensor) -> Tensor:
    """For each pixel the first pixel with its label: equal for two labellings (N, n) just where they are the same partition."""
    n = labels.shape[1]
    index = torch.arange(n, device=labels.device).expand_as(labels)
    first = torch.full((len(labels), n + 1), n, device=labels.device).scatter_reduce(1, labels, index, "amin")
    return first.gather(1, labels)


def _mask_by_mask(similarity: Tensor, label: Labeller) -> Tensor:
    maps, foreground = _flat(similarity)
    masks, owners = [], []
    for i, plane in enumerate(_planes(foreground, similarity)):
        labels, count = label(plane)
        for j in range(1, count + 1):
            masks.append(torch.from_numpy(labels == j).flatten().long())
            owners.append(i)
    owner = torch.tensor(owners, device=maps.device)
    excess = _excess(maps)
    mass = (excess[owner] * torch.stack(masks).to(maps.device)).sum(-1)
    total = (excess[owner] * foreground[owner]).sum(-1)
    return _entropy(mass / total, maps=len(maps))


def _flat(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, h * w) in float32 and their foreground S > mean."""
    maps = similarity.float().flatten(-2).flatten(0, -2)
    return maps, maps > maps.mean(-1, keepdim=True)


def _excess(maps: Tensor) -> Tensor:
    return torch.relu(maps - maps.mean(-1, keepdim=True)) + EPSILON


def _planes(foreground: Tensor, similarity: Tensor) -> np.ndarray:
    return foreground.view(-1, *similarity.shape[-2:]).to("cpu", torch.uint8).numpy()


def _entropy(shares: Tensor, *, maps: int) -> Tensor:
    """Equations 7 and 9 from the shares of all components of all maps."""
    return -(shares * shares.log()).sum() / maps


def _opencv() -> Labeller:
    cv2 = _optional("cv2", "opencv-python-headless")

    def label(plane: np.ndarray) -> tuple[np.ndarray, int]:
        count, labels = cv2.connectedComponents(plane, connectivity=8, ltype=cv2.CV_16U)
        return labels, count - 1

    return label


def _scipy(plane: np.ndarray) -> tuple[np.ndarray, int]:
    return ndimage.label(plane, structure=_EIGHT_NEIGHBOURS)


def _optional(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"the benchmark needs {package}: pip install 'sarlib[bench]'") from error
