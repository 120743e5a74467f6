"""Tidy results: one line a measurement, and the CSV file that holds them bit for bit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sarlib.config import ConfigError
from sarlib.durable import write_durably

COLUMNS = ("table", "row", "dataset", "seed", "metric", "value", "unit", "key")
_MEASUREMENT = ["table", "row", "dataset", "seed", "metric"]


def write_csv(results: pd.DataFrame, path: Path) -> None:
    """Write tidy `results` in one step; floats as the shortest text that reads back to the same bits."""
    text = results.loc[:, list(COLUMNS)].to_csv(index=False, na_rep="nan", lineterminator="\n")
    try:
        write_durably(Path(path), text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from error


def read_csv(path: Path) -> pd.DataFrame:
    """Inverse of `write_csv`, bit for bit; labels stay text ("0.10" is a row's name). `ConfigError` tells what is wrong."""
    try:
        results = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise ConfigError(f"there are no results at {path}: run the table first") from error
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise _unreadable(path, error) from error
    if missing := [column for column in COLUMNS if column not in results]:
        raise ConfigError(f"{path} lacks the columns {', '.join(missing)}: remove it and run the table again")
    try:  # Python's float is exact in every version; pandas' parser is not by default in all of those that we allow
        results = results.assign(
            seed=results["seed"].map(int).astype("int64"), value=results["value"].map(float).astype("float64")
        )
    except (TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    if (twice := results.duplicated(_MEASUREMENT)).any():
        first = " ".join(map(str, results.loc[twice, _MEASUREMENT].iloc[0]))
        raise ConfigError(f"{path} holds a measurement twice ({first}): remove it and run the table again")
    return results.loc[:, list(COLUMNS)]


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"cannot read results from {path} ({str(error).splitlines()[0]}): remove it and run the table again")
