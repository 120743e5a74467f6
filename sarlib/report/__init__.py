"""From tidy results to what a reader sees: tables, paired differences, verdicts on the paper's claims, figures.

`results` has one line a measurement (`sarlib.experiments.results`); the declaration gives the order of rows and data sets and
each cell's baseline, and cells without results stay visible as gaps. Every interval is a 95 % t interval over seeds; where many
are shown at once, one in twenty is expected to miss.
"""

from __future__ import annotations

import importlib
from typing import Any

# Imported when they are first used: tables need no plotting library. A module with a function's name would hide the function.
_HOME = {
    **dict.fromkeys(("contrasts", "differences", "epochs_to_reach", "learned", "table", "text"), "sarlib.report.tables"),
    **dict.fromkeys(("blobs", "heads", "maps", "masks"), "sarlib.report.attention"),
    **dict.fromkeys(("agreement", "of_earlier"), "sarlib.report.reference"),
    **dict.fromkeys(("read_csv", "write_csv"), "sarlib.experiments.results"),
    **dict.fromkeys(("boxes", "segments"), "sarlib.report.pictures"),
    **dict.fromkeys(("figure", "forest"), "sarlib.report.figures"),
    **dict.fromkeys(("floors", "manipulation"), "sarlib.report.checks"),
    **dict.fromkeys(("curves", "gains", "gradients", "severities"), "sarlib.report.trends"),
    "verdicts": "sarlib.report.judgement",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
