"""The entropy of many maps at once in float64, to measure the fast paths: SciPy's components, autograd through their sums."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

_WITHIN_MAPS = np.zeros((3, 3, 3))
_WITHIN_MAPS[1] = 1


def entropy_with_autograd(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entropy (N,), gradient (N, h, w) and total excess (N,) of maps (N, h, w)."""
    maps = maps.detach().double().requires_grad_()
    surplus = torch.relu(maps - maps.mean((1, 2), keepdim=True))
    labels, found = ndimage.label(surplus.detach().numpy() > 0, structure=_WITHIN_MAPS)
    labels = torch.from_numpy(labels).long().flatten()
    owner = torch.zeros(found + 1, dtype=torch.long)
    owner[labels] = torch.arange(len(maps)).repeat_interleave(maps[0].numel())
    owner = owner[1:]
    mass = torch.zeros(found + 1, dtype=torch.float64).index_add(0, labels, surplus.flatten())[1:]
    share = mass / surplus.sum((1, 2))[owner]
    entropy = torch.zeros(len(maps), dtype=torch.float64).index_add(0, owner, -share * share.log())
    entropy.sum().backward()
    return entropy.detach(), maps.grad, surplus.detach().sum((1, 2))


def assert_agree(maps: torch.Tensor, entropy: torch.Tensor, gradient: torch.Tensor) -> None:
    """Each map's entropy to 1e-6 and its gradient to 1e-5 of the largest in that map."""
    expected, slope, total = entropy_with_autograd(maps)
    assert entropy.shape == expected.shape and gradient.shape == slope.shape
    assert (entropy - expected).abs().max() <= 1e-6
    # One component, or several of equal mass, have a gradient of 0, in float64 up to rounding in units of 1 / contrast.
    rounding = 1e-12 / total.clamp_min(1e-30)
    assert ((gradient - slope).abs().amax((1, 2)) <= 1e-5 * slope.abs().amax((1, 2)) + rounding).all()
