"""Sharing a batch among the cores in pieces.

Each piece goes through all its operations on one core, in that core's cache. If every operation were shared among the cores instead, as
torch does by itself, they would wait for each other some hundred times a batch, and by spinning: the longer the busier the machine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_pieces(work: Callable[[slice], None], n: int, *, step: int) -> None:
    """Call `work` on 0:step, step:2 step, ... up to n, on as many threads as torch may use. What one raises is raised here."""
    _keep_freed_memory()
    pieces = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) == 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(min(threads, len(pieces)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(work, pieces):
            pass
    torch.set_num_threads(threads)  # the number is each thread's own, but the last one said is also that of threads to come


@functools.cache
def _keep_freed_memory() -> None:
    """Have the C library keep what the operations of a piece free for those of the next one.

    glibc gives blocks back to the system above a size that grows with the largest one freed so far, up to 32 MiB; taking them again, page
    by page, costs a fifth of the time. Freeing one large block once is enough; where there is another C library it does nothing.
    """
    torch.empty(2**25 - 2**20, dtype=torch.uint8)
