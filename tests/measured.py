"""What is measured of runs, where their records do not matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sarlib.run import Measurement, Run
from sarlib.runner.schedule import train_and_measure


def measure_all(pairs: Iterable[tuple[Run, Measurement]], **where: Any) -> dict[tuple[str, str], dict[str, Any]]:
    _, measured = train_and_measure((), pairs, **where)
    return measured
