"""How often the host waits for the GPU: every such wait empties the queue that keeps the GPU busy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

WAITS = "host synchronisations"

#: The words of torch's warning at each wait; the one that announces the mode itself reads differently.
_WAIT = "called a synchronizing"


def waits(run: Callable[[], Any]) -> int:
    """How often `run` makes the host wait for the device, as far as torch's synchronisation debug mode sees it."""
    run()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(_WAIT in str(warning.message) for warning in caught)
