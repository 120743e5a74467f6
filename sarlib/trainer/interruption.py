"""Stopping a training by a signal, which sets a flag that the loop looks at after each step.

The protocol, for clusters that announce a pre-emption or a time limit:

    SIGTERM, SIGUSR1 or SIGUSR2 (SLURM's scancel and --signal, submitit)  ->  the current step is finished  ->  a checkpoint is
    saved ->  `Interrupted` is raised  ->  the command exits with 0, to be queued again  ->  the next start resumes from the
    checkpoint

Of several processes any may get the signal, and at different steps. All stop at the same one: where the loop looks at the flag
it takes the maximum of `number` over the processes.

Signals during the saving of a checkpoint, a second of the same kind included, only set the flag again: the save completes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: SIGUSR1 and SIGUSR2 are POSIX only.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupted(Exception):
    """A training stopped on request, after its state was saved; made of the number of the signal that came."""

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(*self.args).name}; what is done is saved, and the next start goes on from there"


@dataclass(frozen=True)
class Request:
    """Whether to stop: the signals that came, in their order."""

    noted: list[int] = field(default_factory=list)

    @property
    def number(self) -> int:
        """That of the first signal, 0 if none came."""
        return self.noted[0] if self.noted else 0


_outer: Request | None = None  # of the outermost `listening`


@contextmanager
def noting(*signals: signal.Signals) -> Iterator[list[int]]:
    """Within the body these signals do nothing but join the list that is yielded. Handlers are put back at the end.

    Python delivers signals to the main thread only: elsewhere nothing is ever noted, and the handlers stay as they are.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    earlier = {number: signal.signal(number, lambda number, frame: noted.append(number)) for number in signals}
    try:
        yield noted
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # None: it was not set from Python


@contextmanager
def listening() -> Iterator[Request]:
    """Within the body, the signals of the protocol do not end the process but are noted in what is yielded (`noting`).

    A `listening` within another shares its request.
    """
    global _outer
    if threading.current_thread() is not threading.main_thread():
        yield Request()
        return
    if _outer is not None:
        yield _outer
        return
    with noting(*SIGNALS) as noted:
        request = _outer = Request(noted)
        try:
            yield request
        finally:
            _outer = None
