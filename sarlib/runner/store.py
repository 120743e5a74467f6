"""The run store: one folder a run, named by its key, holding what it was, what it gave and how that came about.

<root>/<key>/config.json            the declaration
             metrics.csv            epoch, split, metric, value
             result.json            final metrics and provenance; written last: a folder with it is a finished run
             weights.safetensors    the trained weights
             measured/<key>.json    a measurement of these weights: its declaration, metrics and arrays
             checkpoint*.pt         only while the run is unfinished
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sarlib.config import ConfigError
from sarlib.durable import as_training_error, sweep, write_durably
from sarlib.run import Measurement, Run

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

TEXT_FILES = ("config.json", "metrics.csv", "result.json")

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


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
        """`ConfigError` if nothing can be written here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            advice = "make it writable or name another with the environment variable SAR_RUNS"
            raise ConfigError(f"cannot write to the runs folder {self.root} ({error.strerror}): {advice}") from error

    def read(self, run: Run) -> Record | None:
        """The finished record of `run`, or None. One that cannot be read, or is another run's, is moved aside: stderr
        says so."""
        folder = self.folder(run)
        if not (folder / "result.json").exists():
            return None
        try:
            result = json.loads((folder / "result.json").read_text())
            if Run.from_dict(json.loads((folder / "config.json").read_text())) != run:
                raise ValueError("its config.json declares another run")
            metrics = {name: float(value) for name, value in result["metrics"].items()}
            return Record(run=run, metrics=metrics, provenance=dict(result["provenance"]))
        except _UNREADABLE as error:
            _set_aside(folder, f"the record {folder} cannot be read ({error})", "the run is trained again")
            return None

    def has_weights(self, run: Run) -> bool:
        """Whether `run` is finished and its weights are there; the committed reference results are without."""
        return self.read(run) is not None and self._weights(run).exists()

    def weights(self, run: Run) -> dict[str, Tensor]:
        """The trained weights of `run` by their names. `ConfigError` if there are none or they cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.read(run) is None:
            raise ConfigError(f"run {run.key} is not finished in {self.root}: train it first, with the table that declares it")
        train_again = f"remove the folder {self.folder(run)} and train the run again"
        if not self._weights(run).exists():
            raise ConfigError(f"run {run.key} has no weights in {self.root} (reference results are without): {train_again}")
        try:
            return load_file(self._weights(run))
        except SafetensorError as error:
            raise ConfigError(f"the weights of run {run.key} cannot be read ({error}): {train_again}") from error

    def history(self, run: Run) -> pd.DataFrame:
        """The run's metrics over its epochs: epoch, split, metric, value. `FileNotFoundError` if the run is not finished."""
        import pandas as pd

        # Python's float is exact; pandas' parser is not by default in versions before 3.
        return pd.read_csv(self.folder(run) / "metrics.csv", converters={"value": lambda text: float(text or "nan")})

    def text_files(self, run: Run) -> list[Path]:
        """What is committed of a finished run, relative to its folder: all but the weights."""
        folder = self.folder(run)
        return [*map(Path, TEXT_FILES), *sorted(file.relative_to(folder) for file in folder.glob("measured/*.json"))]

    def write(self, run: Run, *, record: Record, history: list[dict[str, Any]], weights: dict[str, Tensor]) -> None:
        """A finished run: everything else first, `result.json` last, then checkpoints are dropped. The caller holds the `lock`.

        Killed at any moment, there is the whole record or none, and then the checkpoints. What was measured of earlier weights
        goes with them. `TrainingError` if the disk is full or the folder not writable.
        """
        import pandas as pd
        from safetensors.torch import save

        from sarlib.trainer import checkpoint

        folder = self.folder(run)
        files = {
            self._weights(run).name: save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}),
            "metrics.csv": pd.DataFrame(history).to_csv(index=False).encode(),
            "config.json": _json(run.to_dict(), indent=1),
            "result.json": _json({"metrics": record.metrics, "provenance": record.provenance}, indent=1),
        }
        size, left = sum(map(len, files.values())), checkpoint.what_remains(folder)
        with as_training_error(f"the record of run {run.key}", folder=folder, size=size, left=left):
            sweep(folder)
            (folder / "result.json").unlink(missing_ok=True)  # old and new files are never taken for one record
            shutil.rmtree(folder / "measured", ignore_errors=True)
            for name, content in files.items():
                write_durably(folder / name, content)
        checkpoint.discard(folder)

    def read_measured(self, run: Run, measurement: Measurement) -> dict[str, Any] | None:
        """{"metrics": {name: number}, "arrays": {name: nested list}}, or None. Moved aside, as in `read`, if it
        cannot be read."""
        file = self._measured(run, measurement)
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text())
            return {"metrics": dict(found["metrics"]), "arrays": dict(found["arrays"])}
        except _UNREADABLE as error:
            _set_aside(file, f"the measurement {file} cannot be read ({error})", "it is taken again")
            return None

    def write_measured(self, run: Run, measurement: Measurement, found: dict[str, Any]) -> None:
        """What `read_measured` gives from now on, in one step. The caller holds the `lock`. `TrainingError` as from `write`."""
        file = self._measured(run, measurement)
        content = _json({"measurement": asdict(measurement), **found})
        what = f"the measurement {measurement.name} of run {run.key}"
        with as_training_error(what, folder=file.parent, size=len(content), left="its record is whole"):
            sweep(file.parent)
            write_durably(file, content)

    def _weights(self, run: Run) -> Path:
        return self.folder(run) / "weights.safetensors"

    def _measured(self, run: Run, measurement: Measurement) -> Path:
        return self.folder(run) / "measured" / f"{measurement.key}.json"


def _set_aside(path: Path, message: str, consequence: str) -> None:
    aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process has just done so
        return
    print(f"{message}; moved to {aside.name}, {consequence}", file=sys.stderr)


def _json(content: dict[str, Any], *, indent: int | None = None) -> bytes:
    return (json.dumps(content, indent=indent, sort_keys=True) + "\n").encode()
