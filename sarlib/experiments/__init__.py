"""The tables of the paper: each declared in one file of its own, at four sizes, run from here.

experiment = declare("table2", preset="laptop")
experiment.frame()             # what will be trained
results = run(experiment)      # trains what is not yet in the store; tidy frame, also written as CSV
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from sarlib.config import ConfigError
from sarlib.experiments import appendix, figure3, table1, table2, table3, table4, table9, table10
from sarlib.experiments.csv import read_csv, write_csv
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.presets import preset as preset_named
from sarlib.experiments.results import tidy
from sarlib.runner import schedule as runs
from sarlib.runner.machine import check, leads
from sarlib.runner.store import Store

__all__ = [
    "PRESETS",
    "TABLES",
    "Cell",
    "Experiment",
    "Setting",
    "csv_path",
    "declare",
    "keep_as_reference",
    "open_store",
    "reference_path",
    "run",
    "runs_folder",
]

TABLES = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table9": table9,
    "table10": table10,
    "figure3": figure3,
    "appendix": appendix,
}


def declare(
    name: str,
    *,
    preset: str = "laptop",
    data: str | Path | None = None,
    datasets: str | Iterable[str] | None = None,
    seeds: int | None = None,
) -> Experiment:
    """The table `name` at `preset`, with everything checked that can be checked before training.

    `data` is the folder of real image sets; `datasets` restricts the table to some of its data sets, as names separated by semicolons
    or a list of them; `seeds` is how many (default: the preset's). `ConfigError` for anything unknown, absent or out of range.
    """
    if name not in TABLES:
        raise ConfigError(f"unknown table {name!r}; choose from {', '.join(TABLES)}")
    size = preset_named(preset)
    count = size.seeds if seeds is None else seeds
    if count < 1:
        raise ConfigError(f"seeds is how many seeds to run, 1 or more; got {count}")
    root = None if data is None else Path(data).expanduser().resolve()
    if root is not None and not root.is_dir():
        raise ConfigError(f"DATA={data}: there is no such folder")
    experiment = TABLES[name].declare(size, seeds=tuple(range(count)), root=root)
    if datasets is None:
        return experiment
    chosen = datasets.split(";") if isinstance(datasets, str) else datasets
    return experiment.only(dataset.strip() for dataset in chosen)


def run(
    experiment: Experiment,
    *,
    workers: int | None = None,
    device: str = "auto",
    gpus: int | None = None,
    cluster: str | Path | None = None,
) -> pd.DataFrame:
    """Train what is missing, write `runs/<preset>/<name>.csv` and return the tidy results.

    `workers`, `device`, `gpus` and `cluster` as in `sarlib.runner.machine.check`.
    """
    machine = check(device=device, workers=workers, gpus=gpus, cluster=cluster)
    store = open_store()
    records = runs.execute_all(
        experiment.runs(), store=store, root=experiment.data_root, machine=machine, title=experiment.name
    )
    results = tidy(experiment, records, store=store)
    if leads():
        write_csv(results, csv_path(experiment))
    return results


def runs_folder() -> Path:
    """Where results live: the environment variable SAR_RUNS, else `runs/` of the checkout that this package is in, else `./runs`."""
    if "SAR_RUNS" in os.environ:
        return Path(os.environ["SAR_RUNS"]).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / "runs"


def open_store() -> Store:
    """The run store, `store/` in the folder of results."""
    return Store(runs_folder() / "store")


def csv_path(experiment: Experiment) -> Path:
    """Where `run` writes the experiment's results."""
    return runs_folder() / experiment.preset / f"{experiment.name}.csv"


def reference_path(experiment: Experiment) -> Path:
    """Where the committed results of the same table and preset are, if there are any."""
    return runs_folder() / "reference" / experiment.preset / f"{experiment.name}.csv"


def keep_as_reference(experiment: Experiment) -> None:
    """Copy one's own results to `runs/reference/`: the CSV, and of every run the store's three text files. `ConfigError` if some are missing."""
    results = read_csv(csv_path(experiment))
    store = open_store()
    kept = runs_folder() / "reference" / "store"
    for run in experiment.runs():
        if store.read(run) is None:
            raise ConfigError(
                f"{experiment.name} at preset {experiment.preset} is not complete: run it with the same settings first"
            )
        for file in store.text_files(run):
            (kept / run.key / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.folder(run) / file, kept / run.key / file)
    write_csv(results, reference_path(experiment))
