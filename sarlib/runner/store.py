"""The run store: one folder a run, named by its key, holding what it was, what it gave and how that came about.

<root>/<key>/config.json          the declaration
             metrics.csv          epoch, split, metric, value
             result.json          final metrics and provenance; written last: a folder with it is a finished run
             weights.safetensors  the trained weights
             checkpoint*.pt       only while the run is unfinished
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from sarlib.config import ConfigError
from sarlib.durable import sweep, told_as_training_error, write_durably
from sarlib.run import Measurement, Run
from sarlib.trainer import checkpoint

TEXT_FILES = ("config.json", "metrics.csv", "result.json")


@dataclass(frozen=True)
class Record:
    """A finished run. `metrics` are the final figures by name; `provenance` says with what code, versions, device and cost."""

    run: Run
    metrics: dict[str, float]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The folder of all runs. Safe to share between processes: whoever works on a key holds its `lock`."""

    root: Path

    def folder(self, run: Run) -> Path:
        return self.root / run.key

    def lock(self, run: Run) -> FileLock:
        """An exclusive lock on the key, released by the system if its holder dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f".{run.key}.lock")

    def require_writable(self) -> None:
        """`ConfigError` if results could not be kept here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"cannot write to the runs folder {self.root} ({error.strerror}): make it writable or name another with the environment variable SAR_RUNS"
            ) from error

    def read(self, run: Run) -> Record | None:
        """The finished record of `run`, or None. A record that cannot be read, or is of another declaration, is moved aside and told."""
        folder = self.folder(run)
        if not (folder / "result.json").exists():
            return None
        try:
            result = json.loads((folder / "result.json").read_text())
            stored = Run.from_dict(json.loads((folder / "config.json").read_text()))
            if stored != run:
                raise ValueError("its config.json declares another run")
            metrics = {name: float(value) for name, value in result["metrics"].items()}
            return Record(run=run, metrics=metrics, provenance=dict(result["provenance"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._set_aside(folder, error)
            return None

    def write(self, run: Run, *, record: Record, history: list[dict[str, Any]], weights: dict[str, Tensor]) -> None:
        """Keep a finished run: everything else first, `result.json` last, then the checkpoints are dropped. The caller holds the `lock`.

        Killed at any moment, there is the whole record or none, and in the latter case the checkpoints. `TrainingError` if the disk is
        full or the folder not writable.
        """
        folder = self.folder(run)
        files = {
            "weights.safetensors": serialize_tensors({name: tensor.contiguous().cpu() for name, tensor in weights.items()}),
            "metrics.csv": pd.DataFrame(history).to_csv(index=False).encode(),
            "config.json": _json(run.to_dict()),
            "result.json": _json({"metrics": record.metrics, "provenance": record.provenance}),
        }
        size, kept = sum(map(len, files.values())), checkpoint.what_is_kept(folder)
        with told_as_training_error(f"the record of run {run.key}", folder=folder, size=size, kept=kept):
            sweep(folder)
            (folder / "result.json").unlink(
                missing_ok=True
            )  # if a record is written over, old and new files are never taken for one
            for name, content in files.items():
                write_durably(folder / name, content)
        checkpoint.discard(folder)

    def history(self, run: Run) -> pd.DataFrame:
        """The run's metrics over its epochs: epoch, split, metric, value. `FileNotFoundError` if the run is not finished."""
        return pd.read_csv(self.folder(run) / "metrics.csv")

    def text_files(self, run: Run) -> list[Path]:
        """What is committed of a finished run, relative to its folder."""
        measured = sorted(file.relative_to(self.folder(run)) for file in self.folder(run).glob("measured/*.json"))
        return [*map(Path, TEXT_FILES), *measured]

    def read_measured(self, run: Run, measurement: Measurement) -> dict[str, Any] | None:
        """What was measured of `run`, None if it was not."""
        file = self.folder(run) / "measured" / f"{measurement.key}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def _set_aside(self, folder: Path, error: Exception) -> None:
        aside = folder.with_name(f"{folder.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}")
        try:
            folder.rename(aside)
        except FileNotFoundError:  # another process has just done so
            return
        print(f"the record {folder} cannot be read ({error}); moved to {aside.name}, the run is trained again", file=sys.stderr)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
