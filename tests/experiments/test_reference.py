"""The committed results: every run re-hashes to its folder, and every table is declared and written again as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from sarlib import data, experiments
from sarlib.experiments.declaration import Experiment
from sarlib.experiments.results import read_csv, tidy, write_csv
from sarlib.run import NUMERICS_VERSION, Run
from sarlib.runner.store import Store

REFERENCE = Path(__file__).resolve().parents[2] / "runs" / "reference"
CONFIGURATIONS = {file.parent.name: json.loads(file.read_text()) for file in sorted(REFERENCE.glob("store/*/config.json"))}

#: Tables whose runs are all of today's numerics; results of an earlier version stay readable until they are run again.
TABLES = sorted(
    file.stem
    for file in REFERENCE.glob("laptop/*.csv")
    if {CONFIGURATIONS[key].get("version", 1) for key in read_csv(file).key.unique()} == {NUMERICS_VERSION}
)


def test_every_run_of_the_reference_is_in_its_folder() -> None:
    assert len(CONFIGURATIONS) >= 672
    for folder, fields in CONFIGURATIONS.items():
        assert Run.from_dict(fields).key_of_version(fields.get("version", 1)) == folder


@pytest.fixture
def images_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks as if CIFAR-10 lay in it, the images that the reference was trained on."""
    (fingerprint,) = {run["data"]["fingerprint"] for run in CONFIGURATIONS.values() if run["data"]["name"] == "cifar10"}
    monkeypatch.setattr(data, "discover", lambda root: ("cifar10",))
    monkeypatch.setattr(data, "inspect", lambda name, *, root: (50_000, 10_000, fingerprint))
    return tmp_path


@pytest.fixture(params=TABLES)
def reference(request: pytest.FixtureRequest, images_of_the_reference: Path) -> tuple[Experiment, pd.DataFrame]:
    """A table on the data sets that the committed results have, and these."""
    results = read_csv(REFERENCE / "laptop" / f"{request.param}.csv")
    seeds, sets = results.seed.nunique(), results.dataset.unique()
    experiment = experiments.declare(request.param, preset="laptop", data=images_of_the_reference, datasets=sets, seeds=seeds)
    return experiment, results


def test_every_table_of_the_reference_is_declared_again(reference: tuple[Experiment, pd.DataFrame]) -> None:
    experiment, results = reference
    places = ((cell, seed) for cell in experiment.cells for seed in experiment.seeds)
    declared = [(cell.table, cell.row, cell.dataset, seed, cell.with_seed(seed).key) for cell, seed in places]
    committed = results[["table", "row", "dataset", "seed", "key"]].drop_duplicates()
    assert declared == [tuple(line) for line in committed.itertuples(index=False)]


def test_every_table_of_the_reference_is_written_again(reference: tuple[Experiment, pd.DataFrame], tmp_path: Path) -> None:
    """From the committed records, to the byte: whoever has these records in the store gets these files."""
    experiment, _ = reference
    for folder in (REFERENCE / "store").iterdir():  # links: a store moves aside what it cannot read
        (tmp_path / "store" / folder.name).parent.mkdir(exist_ok=True)
        (tmp_path / "store" / folder.name).symlink_to(folder)
    store = Store(tmp_path / "store")
    records = {run.key: store.read(run) for run in experiment.runs()}
    measured = {(run.key, one.key): store.read_measured(run, one) for run, one in experiment.measurements()}
    write_csv(tidy(experiment, records, measured, store=store), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (REFERENCE / "laptop" / f"{experiment.name}.csv").read_bytes()
