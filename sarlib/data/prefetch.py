"""Reading ahead: a thread prepares the next items while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

Item = TypeVar("Item")

_PATIENCE = 1.0  # seconds that a reader who leaves early waits for the item in preparation


def prefetched(items: Iterable[Item], *, device: torch.device, ahead: int = 2) -> Iterator[Item]:
    """The `items`, up to `ahead` of them prepared before they are asked for, for use on `device`. What they raise is raised here."""
    gpu = torch.cuda.current_device() if device == torch.device("cuda") else device.index
    ready: queue.SimpleQueue[tuple[str, Item | BaseException | None]] = queue.SimpleQueue()
    free, abandoned = threading.Semaphore(ahead), threading.Event()

    def prepare() -> None:
        if device.type == "cuda":
            torch.cuda.set_device(gpu)  # it is each thread's own, and decides where pinned memory is known
        try:
            for item in items:
                ready.put(("item", item))
                free.acquire()
                if abandoned.is_set():
                    return
            ready.put(("end", None))
        except BaseException as error:
            ready.put(("error", error))

    thread = threading.Thread(target=prepare, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            free.release()
            yield item
    finally:
        abandoned.set()
        free.release()
        thread.join(_PATIENCE)
