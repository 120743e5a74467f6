"""Reads what stands behind an executed notebook: seeds, device, versions, time and commit of the runs that it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from nbformat import NotebookNode


@dataclass(frozen=True)
class Record:
    """`seconds` is the training time of all runs together, however many cores shared it.

    More than one device, version or commit means that the runs were not all made at once.
    """

    seeds: int
    devices: tuple[str, ...]
    torch: tuple[str, ...]
    seconds: float
    executed: str  # day on which the notebook was executed
    commits: tuple[str, ...]

    def in_words(self) -> str:
        """As the continuation of a sentence."""
        seeds, devices, _, _, day, commits = self.as_row()
        return f", {seeds} seeds, trained on {devices}, commit {commits}; executed on {day}"

    def as_row(self) -> tuple[str, ...]:
        """seeds, device, torch, training time, day, commit: the cells of the status chapter."""
        devices, torch, commits = (", ".join(each) or "unknown" for each in (self.devices, self.torch, self.commits))
        return str(self.seeds), devices, torch, self.minutes, self.executed, commits

    @property
    def minutes(self) -> str:
        """The training time of all runs together."""
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def read_record(executed: NotebookNode, results: Path, *, store: Path) -> Record | None:
    """From the notebook, its tidy results and the records of their runs in `store`; None where the results are gone."""
    if not results.exists():
        return None
    frame = pd.read_csv(results, usecols=["seed", "key"], dtype={"key": str})
    paths = [store / key / "result.json" for key in frame["key"].unique()]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    provenance = [record["provenance"] for record in records]
    return Record(
        seeds=frame["seed"].nunique(),
        devices=_different(one["device"] for one in provenance),
        torch=_different(one["versions"]["torch"] for one in provenance),
        seconds=sum(record["metrics"]["seconds"] for record in records),
        executed=f"{datetime.fromisoformat(executed.metadata.papermill.start_time):%Y-%m-%d}",
        commits=_different(_commit(one) for one in provenance),
    )


def _different(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _commit(provenance: dict[str, Any]) -> str:
    if not provenance["commit"]:
        return "unknown"
    return provenance["commit"][:7] + (" with changes" if provenance["dirty"] else "")
