"""Reads what stands behind an executed notebook: seeds, device, versions, time and commit of the runs that it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from nbformat import NotebookNode


class Record(NamedTuple):
    """The cells of the status chapter. `training` is the time of all runs together, however many cores shared it.

    More than one device, version or commit means that the runs were not all made at once.
    """

    seeds: str
    devices: str
    torch: str
    training: str
    executed: str  # day on which the notebook was executed
    commits: str

    def in_words(self) -> str:
        """As the continuation of a sentence."""
        return f", {self.seeds} seeds, trained on {self.devices}, commit {self.commits}; executed on {self.executed}"


def read_record(executed: NotebookNode, results: Path, *, store: Path) -> Record | None:
    """From the notebook, its tidy results and the records of their runs in `store`; None where the results are gone."""
    if not results.exists():
        return None
    frame = pd.read_csv(results, usecols=["seed", "key"], dtype={"key": str})
    paths = [store / key / "result.json" for key in frame["key"].unique()]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    provenance = [record["provenance"] for record in records]
    return Record(
        seeds=str(frame["seed"].nunique()),
        devices=_different(one["device"] for one in provenance),
        torch=_different(one["versions"]["torch"] for one in provenance),
        training=_duration(sum(record["metrics"]["seconds"] for record in records)),
        executed=f"{datetime.fromisoformat(executed.metadata.papermill.start_time):%Y-%m-%d}",
        commits=_different(_commit(one) for one in provenance),
    )


def _different(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or "unknown"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _commit(provenance: dict[str, Any]) -> str:
    if not provenance["commit"]:
        return "unknown"
    return provenance["commit"][:7] + (" with changes" if provenance["dirty"] else "")
