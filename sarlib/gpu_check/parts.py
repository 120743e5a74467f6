"""What a part of the check is, what it is given and what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sarlib.bench.interleaved import Check, Fact, Measurement
from sarlib.gpu_check.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be measured, by which `code` (`records.code`) and where: results go to `folder`, real image sets lie below `data`."""

    folder: Path
    device: str
    threads: int
    code: str
    plan: Plan
    data: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Results, or more of them: `skipped` says what was left out and why, `notes` what is no number."""

    measurements: tuple[Measurement, ...] = ()
    facts: tuple[Fact, ...] = ()
    checks: tuple[Check, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    def __add__(self, more: Found) -> Found:
        names = [each.name for each in dataclasses.fields(self) if each.name != "notes"]
        joined = {name: getattr(self, name) + getattr(more, name) for name in names}
        return Found(**joined, notes=self.notes | more.notes)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to do. `find` yields results as they come. With less than `least` seconds left it is not begun.

    `always`: also if there are results of it already.
    """

    name: str
    find: Callable[[Task], Iterator[Found]]
    least: float = 0.0
    always: bool = False
