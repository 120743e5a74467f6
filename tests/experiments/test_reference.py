"""The committed results: every run re-hashes to its folder, and every table is declared and written again as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from sarlib import experiments, report
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


@pytest.fixture(params=TABLES)
def reference(request: pytest.FixtureRequest) -> tuple[Experiment, pd.DataFrame]:
    """A table on the data sets that the committed results have, and these."""
    results = read_csv(REFERENCE / "laptop" / f"{request.param}.csv")
    store = Store(REFERENCE / "store")
    return experiments.declare_again(request.param, results, preset="laptop", store=store), results


def test_every_table_of_the_reference_is_declared_again(reference: tuple[Experiment, pd.DataFrame]) -> None:
    experiment, results = reference
    places = ((cell, seed) for cell in (*experiment.cells, *experiment.floors) for seed in experiment.seeds)
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


EARLIER = sorted(file.stem for file in REFERENCE.glob("laptop/*.csv") if file.stem not in TABLES)


@pytest.mark.parametrize("name", EARLIER)
def test_results_of_an_earlier_declaration_say_so(name: str) -> None:
    """What differs, and the commits: from the records of the runs, without the images of the real sets."""
    results, store = read_csv(REFERENCE / "laptop" / f"{name}.csv"), Store(REFERENCE / "store")
    experiment = experiments.declare_again(name, results, preset="laptop", store=store)
    said = report.of_earlier(results, experiment, store.root)
    assert said.startswith("of an earlier declaration: version 1, today 2; recipe.epochs ") and "; commit " in said
    of_today = results.assign(key="trained today")
    compared = report.agreement(of_today, experiment, REFERENCE / "laptop" / f"{name}.csv")
    assert set(compared["agreement"][compared["table"] != "table9"]) <= {"earlier declaration", "no result"}
    assert compared["note"].str.startswith("of an earlier declaration").any()
    report.verdicts(results, experiment)  # and stays readable


def test_results_of_todays_declaration_are_declared_again_without_their_images(image_folder: Path, runs_folder: Path) -> None:
    """Also those of real sets: whoever has results and records needs no photographs to judge them."""
    chosen = ["pets, 12 images", "digits, 48 images"]
    experiment = experiments.declare("table2", preset="tiny", data=image_folder, seeds=2, datasets=chosen)
    results = experiments.run(experiment, workers=1, device="cpu")
    again = experiments.declare_again("table2", results, preset="tiny", store=experiments.open_store())
    assert dataclasses.replace(again, data_root=experiment.data_root) == experiment and again.real == {"pets, 12 images"}
    assert report.of_earlier(results, again, experiments.open_store().root) == ""
    changed = results.assign(key=results["key"].where(results["dataset"] != chosen[0], "0123456789abcdef"))
    said = report.of_earlier(changed, again, experiments.open_store().root)
    assert said == "of an earlier declaration: another configuration; commit unknown"
    gone = report.of_earlier(results.assign(row="ViT + nothing"), again, experiments.open_store().root)
    assert "rows are no longer declared" in gone
