"""The tables of the paper: each declared in one file of its own, at four sizes, run from here.

experiment = declare("table2", preset="laptop")
experiment.frame()             # what will be trained
results = run(experiment)      # trains what is not yet in the store; tidy frame, also written as CSV
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarlib.config import require, require_known
from sarlib.experiments.declaration import Experiment
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.settings import Sets, recorded
from sarlib.runner.machine import check
from sarlib.runner.schedule import train_and_measure
from sarlib.runner.store import Store
from sarlib.trainer.distributed import leads

if TYPE_CHECKING:
    import pandas as pd

#: Each is a file of this folder.
TABLES = (
    *(f"table{number}" for number in range(1, 12)),
    *(f"figure{number}" for number in range(1, 5)),
    "appendix",
    "self_supervised",
    "multilabel",
    "dose",
    "headline",
    "future_work",
)


def declare(
    name: str,
    *,
    preset: str = "laptop",
    data: str | Path | None = None,
    datasets: str | Iterable[str] | None = None,
    seeds: int | None = None,
) -> Experiment:
    """The table `name` at `preset`, with everything checked that can be checked before training.

    `data` is the folder of real image sets; `datasets` restricts the table to some of its sets, as a list of names or one text
    with semicolons between them; `seeds` is how many (default: the preset's). `ConfigError` for what is unknown or absent.
    """
    require_known("table", name, TABLES)
    require_known("preset", preset, PRESETS)
    count = PRESETS[preset].seeds if seeds is None else seeds
    require(count >= 1, f"seeds is how many seeds to run, 1 or more; got {count}")
    root = None if data is None else Path(data).expanduser().resolve()
    require(root is None or root.is_dir(), f"DATA={data}: there is no such folder")
    experiment = _declared(name, Sets(PRESETS[preset], root), seeds=count)
    chosen = datasets.split(";") if isinstance(datasets, str) else datasets
    return experiment if chosen is None else experiment.only(name.strip() for name in chosen)


def _declared(name: str, sets: Sets, *, seeds: int) -> Experiment:
    table = importlib.import_module(f"sarlib.experiments.{name}").declare(sets)
    chosen = tuple(range(table.first_seed, table.first_seed + seeds))
    found = {} if sets.root is None else sets.known
    return Experiment(name=name, preset=sets.preset.name, seeds=chosen, data_root=sets.root, found=found, **vars(table))


def declare_again(name: str, results: pd.DataFrame, *, preset: str, store: Store) -> Experiment:
    """The table as it is declared today on the data sets and seeds of tidy `results`, whose images need not be there: what a
    declaration must know of real sets is in the records of their runs in the `store`."""
    known = recorded(results["key"].unique(), store)
    experiment = _declared(name, Sets(PRESETS[preset], None, known), seeds=1)
    there = {cell.dataset for cell in experiment.cells}.intersection(results["dataset"])
    experiment = experiment.only(there) if there else experiment
    return dataclasses.replace(experiment, seeds=tuple(sorted(map(int, results["seed"].unique()))))


def run(experiment: Experiment, **machine: Any) -> pd.DataFrame:
    """Train and measure what is missing, write `runs/<preset>/<name>.csv` and return the tidy results.

    `machine`: workers, device, gpus and cluster as in `sarlib.runner.machine.check`.
    """
    from sarlib.experiments.results import tidy, write_csv  # with pandas, a second that --help can do without

    store = open_store()
    where = {"store": store, "root": experiment.data_root, "machine": check(**machine), "title": experiment.name}
    records, measured = train_and_measure(experiment.runs(), experiment.measurements(), **where)
    results = tidy(experiment, records, measured, store=store)
    if leads():
        write_csv(results, csv_path(experiment))
    return results


def runs_folder() -> Path:
    """Where results are: the environment variable SAR_RUNS, else `runs/` of the checkout with this package, else `./runs`."""
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
    """Copy one's own results to `runs/reference/`: the CSV, and of every run its text files and what was measured of it.
    `ConfigError` if some are missing."""
    from sarlib.experiments.results import read_csv, write_csv

    results, store = read_csv(csv_path(experiment)), open_store()
    runs = {run.key: run for run in experiment.runs()}.values()
    complete = all(map(store.read, runs)) and all(store.read_measured(*pair) for pair in experiment.measurements())
    require(complete, f"{experiment.name} at preset {experiment.preset} is not complete: run it with the same settings first")
    for source in (store.folder(run) / file for run in runs for file in store.text_files(run)):
        copy = runs_folder() / "reference" / "store" / source.relative_to(store.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    write_csv(results, reference_path(experiment))
