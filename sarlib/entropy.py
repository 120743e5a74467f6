"""Spatial entropy of similarity maps: Equations 4-9 of Peruzzo et al. (2024), one function each.

A map S is an h x w grid of scaled dot products between the CLS query and the patch keys. Whatever exceeds the map's mean falls
into 8-connected components; the entropy of how the excess spreads over them is low when a head looks at one or a few blobs. All
functions take any leading dimensions (usually batch and heads) and grids that need not be square. Results are float32 whatever
the input and the autocast (float64 for float64), nothing inside is less precise, and the mean is part of the derivative.

With `axes=3` a map is a volume T x h x w, the keys of the T frames of a clip (the extension that section 6 proposes): its
components are 26-connected, and one mean is taken over all frames. (..., h, w) below then reads (..., T, h, w).

What a map without a proper entropy gives is defined: all values equal means no component, entropy 0 and gradient 0; a NaN or an
infinity, or an excess that overflows float32, gives NaN as entropy and as gradient of that map and leaves the others alone.
"""

from __future__ import annotations

import math
import os
from types import ModuleType

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.autograd.function import once_differentiable

from sarlib.config import ConfigError

PATHS = ("cpu", "triton")

#: A total excess up to this many times the smallest normal number counts as none.
FAINTEST = 1024


def similarity(query: Tensor, keys: Tensor, *, grid: tuple[int, ...]) -> Tensor:
    """Equation 4: S = <q_CLS, k_xy> / sqrt(d), before any softmax.

    query: (..., d), the CLS token's query, e.g. (B, heads, d) with d the dimension of one head.
    keys: (..., n, d), the patch tokens' keys in raster order, n = h * w; `grid` is (h, w), or (T, h, w) of a clip's frames.
    Returns (..., h, w). Raises `ConfigError` where the keys do not fill the grid.
    """
    if keys.shape[-2] != math.prod(grid):
        sides = " x ".join(map(str, grid))
        raise ConfigError(f"{keys.shape[-2]} keys do not fill a grid of {sides}: pass the patch tokens only, and their grid")
    with torch.autocast(query.device.type, enabled=False):
        scaled = at_least_float32(query) * query.shape[-1] ** -0.5
        products = (at_least_float32(keys) @ scaled.unsqueeze(-1)).squeeze(-1)
    return products.unflatten(-1, grid)


def excess(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """Equation 5: B = ReLU(S - mean(S)), the mean taken over each map. (..., h, w) -> (..., h, w), differentiable."""
    maps = at_least_float32(similarity)
    return torch.relu(maps - _mean(maps, axes)).to(maps.dtype)


def components(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """Equation 6: the 8-connected components of B > 0, 26-connected ones of a volume.

    (..., h, w) -> int32 labels (..., h, w) on the same device: 0 where S <= mean, 1 ... r in raster order of their first pixels
    within each map.
    """
    labels, counts = _label(_stacked(at_least_float32(_maps(similarity, axes).detach()).cpu()))
    before = torch.from_numpy(np.cumsum(counts) - counts).view(-1, *[1] * axes)
    return (labels - before).clamp_(min=0)[:, :-1].int().reshape(similarity.shape).to(similarity.device)


def component_counts(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """The number r of components of each map (Equation 6): (..., h, w) -> int64 (...)."""
    _, counts = _label(_stacked(at_least_float32(_maps(similarity, axes).detach()).cpu()))
    return torch.from_numpy(counts).long().reshape(similarity.shape[:-axes]).to(similarity.device)


def component_probabilities(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """Equation 8: P(C_j), the share of each component in the map's excess.

    (..., h, w) -> (..., r), r the largest number of components of any map; maps with fewer are filled up with zeros. A map
    without components has zeros only, every other map sums to 1. Differentiable.
    """
    surplus = excess(similarity, axes=axes).flatten(-axes)
    labels = components(similarity, axes=axes).flatten(-axes).long()
    largest = int(labels.max()) if labels.numel() else 0
    masses = surplus.new_zeros(*labels.shape[:-1], largest + 1).scatter_add(-1, labels, surplus)[..., 1:]
    total = masses.sum(-1, keepdim=True)
    return masses / torch.where(total == 0, 1, total)


def map_entropy(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """Equation 7: H(S) = -sum_j P(C_j) log P(C_j) in nats, for every map: (..., h, w) -> (...). Differentiable once.

    CUDA tensors take the kernel of `sarlib.entropy_triton`, all others, and volumes, one call of `scipy.ndimage.label` on the
    CPU. The environment variable SAR_ENTROPY=cpu or SAR_ENTROPY=triton forces one of them for debugging.
    """
    entropies, _ = entropy_and_gradient(_maps(similarity, axes))
    return entropies.reshape(similarity.shape[:-axes])


def spatial_entropy(similarity: Tensor, *, axes: int = 2) -> Tensor:
    """Equation 9: the loss, the mean of `map_entropy` over heads and batch: (..., h, w) -> scalar, in nats.

    Differentiable once. An empty batch costs 0.
    """
    entropies = map_entropy(similarity, axes=axes)
    return entropies.mean() if entropies.numel() else entropies.sum()


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in the precision of all calculations: float32, float64 for float64."""
    return tensor.to(_calculation_dtype(tensor))


@torch.library.custom_op("sarlib::entropy_and_gradient", mutates_args=())
def entropy_and_gradient(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 7 with its closed-form gradient: maps (N, [T,] h, w) -> H (N,) and dH/dS as S, float32 (float64 for float64).

    One opaque node for torch.compile, CUDA graphs and DDP, whichever path calculates it. With M_j the mass of a component, T
    the sum of a map's M_j and P_j = M_j / T, dH/dB = -(log P_j + H) / T on the pixels of C_j and 0 elsewhere; the mean's own
    derivative takes the map's average of that away: dH/dS = dH/dB - mean(dH/dB).
    """
    if _path(maps) == "triton":
        return _kernel().entropy_and_gradient(maps, faintest=FAINTEST)
    dtype = _calculation_dtype(maps)
    entropy, gradient = _on_cpu(_stacked(maps.detach().to("cpu", dtype)), torch.finfo(dtype))
    return entropy.to(maps.device), gradient.to(maps.device)


@entropy_and_gradient.register_fake
def _(maps: Tensor) -> tuple[Tensor, Tensor]:
    dtype = _calculation_dtype(maps)
    return maps.new_empty(maps.shape[0], dtype=dtype), torch.empty(maps.shape, dtype=dtype, device=maps.device)


def _save(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(output[1])


@once_differentiable
def _backward(ctx, upstream: Tensor | None, _: Tensor | None) -> Tensor | None:
    if upstream is None:
        return None
    (gradient,) = ctx.saved_tensors
    return (gradient * upstream.view(-1, *[1] * (gradient.dim() - 1))).to(ctx.dtype)


entropy_and_gradient.register_autograd(_backward, setup_context=_save)


def _path(maps: Tensor) -> str:
    """Which path calculates: what SAR_ENTROPY names, else the device's own, but for grids that its kernel cannot take."""
    forced = os.environ.get("SAR_ENTROPY", "")
    if forced not in ("", *PATHS):
        raise ConfigError(f"SAR_ENTROPY={forced!r} is not a path: set it to {' or '.join(PATHS)}, or unset it")
    if forced == "triton" and maps.dim() > 3:
        raise ConfigError("the kernel takes maps of two axes, not the volumes of a clip: unset SAR_ENTROPY")
    if forced or maps.device.type != "cuda":
        return forced or "cpu"
    return "triton" if maps.dim() == 3 and max(maps.shape[1:]) <= _kernel().LARGEST_GRID else "cpu"


def _kernel() -> ModuleType:
    """The module of the Triton kernel, imported when it is needed: platforms without CUDA have no Triton."""
    try:
        from sarlib import entropy_triton
    except ModuleNotFoundError as error:
        raise ConfigError(f"the entropy on a GPU needs Triton ({error}): install triton, or set SAR_ENTROPY=cpu") from error
    return entropy_triton


def _on_cpu(stacked: Tensor, finfo: torch.finfo) -> tuple[Tensor, Tensor]:
    """From the deviations of `_stacked`: H (N,) and dH/dS (N, [T,] h, w) in the precision that `finfo` describes.

    Everything but the sums over pixels and the last lines is per component, of which a map has few, and in float64.
    """
    labels, counts = _label(stacked)
    n = len(counts)
    owner = np.repeat(np.arange(n), counts)
    sums = stacked.new_zeros(len(owner) + 1).index_add_(0, labels.flatten(), stacked.flatten())
    mass = sums.numpy()[1:]  # label 0 is what does not exceed the mean
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = np.bincount(owner, weights=mass, minlength=n).astype(float)  # NumPy makes it integer where all maps are flat
        share = mass / total[owner]
        log_share = np.log(share)
        entropy = np.bincount(owner, weights=-share * log_share, minlength=n).astype(float)
        slope = np.zeros(len(owner) + 1, dtype=finfo.dtype)
        slope[1:] = -(log_share + entropy[owner]) / total[owner]
    gradient = slope.take(labels.numpy()[:, :-1])
    gradient -= gradient.mean(axis=tuple(range(1, gradient.ndim)), keepdims=True)
    # A contrast so faint that its gradient is beyond the format cannot be followed by anybody: such a map counts as flat.
    flat = total <= FAINTEST * finfo.tiny
    entropy[flat] = gradient[flat] = 0
    broken = ~(stacked[:, -1].flatten(1)[:, 0].numpy() + total <= finfo.max)
    entropy[broken] = gradient[broken] = np.nan
    return torch.from_numpy(entropy.astype(finfo.dtype)), torch.from_numpy(gradient)


def _stacked(maps: Tensor) -> Tensor:
    """Deviations S - mean(S) of maps (N, h, w) as one tall float64 image (N, h + 1, w), in which a row parts each map
    from the next; of volumes (N, T, h, w) as (N, T + 1, h, w), in which an empty frame does.

    That row is 0, or NaN throughout where the map's mean is not finite, so that it marks a map that has no entropy.
    """
    n, first, *rest = maps.shape
    mean = _mean(maps, maps.dim() - 1)
    stacked = mean.new_empty(n, first + 1, *rest)  # not on torch's default device
    torch.sub(maps, mean, out=stacked[:, :first])
    stacked[:, first:] = mean - mean
    return stacked


def _label(stacked: Tensor) -> tuple[Tensor, np.ndarray]:
    """Components of what `_stacked` gives: int32 labels numbered on from map to map, and how many each map has (N,)."""
    tall = (stacked.numpy() > 0).reshape(-1, *stacked.shape[2:])
    labels, _ = ndimage.label(tall, structure=np.ones([3] * tall.ndim, dtype=bool))  # diagonal neighbours too
    labels = torch.from_numpy(labels).view(stacked.shape)
    counts = np.maximum.accumulate(labels.flatten(1).amax(1).numpy())
    counts[1:] -= counts[:-1]
    return labels, counts


def _mean(maps: Tensor, axes: int) -> Tensor:
    """Mean of each map, (..., h, w) -> (..., 1, 1) in float64.

    S > mean decides what joins components, so it must not hang on how a float32 mean happens to be rounded: where the offset
    is large beside the spread, pixels that equal the rounded mean are common. Equal values have exactly themselves as mean.
    """
    return maps.mean(dim=tuple(range(-axes, 0)), keepdim=True, dtype=torch.float64)


def _calculation_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _maps(similarity: Tensor, axes: int) -> Tensor:
    """(..., h, w) -> (N, h, w), or (..., T, h, w) -> (N, T, h, w): a view where the strides allow it."""
    if axes not in (2, 3):
        raise ConfigError(f"a map has 2 axes, a clip's volume 3, got axes={axes}")
    if similarity.dim() < axes or 0 in similarity.shape[-axes:]:
        shape = "(..., h, w) with h, w > 0" if axes == 2 else "(..., T, h, w) with T, h, w > 0"
        raise ConfigError(f"similarity maps must have shape {shape}, got {tuple(similarity.shape)}")
    return similarity.flatten(0, -axes - 1) if similarity.dim() > axes else similarity[None]
