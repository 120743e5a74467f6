"""The processes that train one run together: how they find each other, agree and share numbers.

Started by torchrun or by SLURM, each process sees RANK, LOCAL_RANK and WORLD_SIZE in its environment and joins the others;
started by hand it is alone. What they agree on goes through CPU tensors (gloo), so that it never waits for a GPU's queue;
gradients go through NCCL where there are GPUs. Importing this imports no torch.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sarlib.config import TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: How long a process waits for the others before it gives up. Decoding a large set for the first time is the longest that any
#: may be late.
TIMEOUT = datetime.timedelta(minutes=float(os.environ.get("SAR_TIMEOUT_MINUTES", "30")))


@dataclass(frozen=True)
class Ranks:
    """This process's number among the `size` processes of a training."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """The first process's `value` (plain data), in every process."""
        if self.size == 1:
            return value
        held = [value]
        _dist().broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value`, in the order of ranks, in every process."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        _dist().all_gather_object(held, value)
        return held

    def mean(self, values: Tensor) -> Tensor:
        """Element by element the mean over processes of CPU `values` of one shape."""
        if self.size == 1:
            return values
        total = values.clone()
        _dist().all_reduce(total)
        return total / self.size

    def max(self, *numbers: int) -> list[int]:
        """For each number the largest that any process holds."""
        if self.size == 1:
            return list(numbers)
        import torch

        largest = torch.tensor(numbers, dtype=torch.int64)
        _dist().all_reduce(largest, _dist().ReduceOp.MAX)
        return largest.tolist()

    def share(self, n: int) -> range:
        """This process's part of n things: contiguous, sizes at most one apart, all parts in rank order make 0 .. n - 1."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)


ALONE = Ranks()


def launched() -> bool:
    """Whether this process was started as one of several (or by a launcher as the only one)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def leads() -> bool:
    """Whether this process is the one that writes and prints, before it has joined the others."""
    return not launched() or os.environ["RANK"] == "0"


def device_of(device: str) -> torch.device:
    """This process's own device: on machines with several GPUs the one with its local rank."""
    import torch

    own = torch.device(device)
    if own.type == "cuda" and own.index is None:
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if launched() else torch.cuda.current_device())
    if own.type == "cuda":
        torch.cuda.set_device(own)
    return own


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Joins the processes that this one was started with; `ALONE` without a launcher. They part when the block ends.

    An error of the communication itself becomes a `TrainingError`: another process has died or hangs.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    dist = _dist()
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    ranks = Ranks(rank=dist.get_rank(), size=dist.get_world_size())
    try:
        yield ranks
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or any(sign in str(error) for sign in _OF_COMMUNICATION)):
            raise
        lost = f"process {ranks.rank} of {ranks.size} lost the others: one has died or hangs, see its own message"
        raise TrainingError(f"{lost} ({str(error).splitlines()[0][:200]}); the last checkpoint is kept") from error
    finally:
        dist.destroy_process_group()


#: What the message of an error has in it that comes from the processes' communication and has no type of its own.
_OF_COMMUNICATION = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "ProcessGroup")


def _dist() -> Any:
    """torch.distributed, from the first time that processes talk to each other."""
    import torch.distributed

    return torch.distributed
