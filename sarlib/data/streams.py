"""Batches of bytes on their way to the device: picked in host memory, or put together from pictures by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sarlib.config import ConfigError, TrainingError
from sarlib.data.pictures import collate
from sarlib.data.placement import place
from sarlib.data.prefetch import prefetched


def from_memory(pixels: Tensor, batches: Sequence[Tensor], *, device: torch.device) -> Iterator[Tensor]:
    """pixels[index] on the device for each index of `batches`, read ahead by a thread."""

    def picked() -> Iterator[Tensor]:
        for index in batches:
            batch = torch.empty(len(index), *pixels.shape[1:], dtype=pixels.dtype, pin_memory=device.type == "cuda")
            yield torch.index_select(pixels, 0, index, out=batch)

    for batch in prefetched(picked(), device=device):
        yield batch.to(device, non_blocking=True)


def from_files(pictures: Dataset, batches: list[list], *, workers: int, device: torch.device) -> Iterator[Tensor]:
    """The collated `pictures` of each of `batches` on the device.

    Raises what a picture could not be read for, and `TrainingError` if a worker dies.
    """
    loader = DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=workers > 0 and device.type == "cuda",
        generator=torch.Generator(),  # of the workers' unused seeds: without one the loader draws from the global generator
    )
    # Without workers the pictures' transforms borrow the global generators, which are the model's: no thread beside it then.
    # With workers the thread keeps torch's handler of dead children out of the main thread, where it would interrupt anything.
    shown = prefetched(loader, device=device) if workers else iter(loader)
    try:
        for batch in shown:
            if isinstance(batch, ConfigError):
                raise batch
            yield place(batch, device)
    except (RuntimeError, OSError, EOFError) as error:
        if workers == 0 or not _of_a_dead_worker(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        told = "a process that reads images died, mostly for want of memory or of shared memory (/dev/shm)"
        raise TrainingError(f"{told}: {reason}; the last checkpoint is kept, go on with fewer workers") from None


def _of_a_dead_worker(error: Exception) -> bool:
    """Not an error that a living worker reports, which torch introduces with "Caught"."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # a batch was announced, and who held its memory is gone
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not str(error).startswith("Caught")
