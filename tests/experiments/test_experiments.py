"""Declaring a table by name, running it, and keeping its results as the reference."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments.results import read_csv
from sarlib.runner import schedule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "table99"}, "unknown table 'table99'; choose from table1, table2"),
        ({"name": "Table 1"}, r"unknown table 'Table 1'; .* \(did you mean table1 or table1"),
        ({"name": "apendix"}, r"\(did you mean appendix\?\)$"),
        ({"preset": "huge"}, "unknown preset 'huge'; choose from tiny, laptop, gpu, paper$"),
        ({"preset": "labtop"}, r"\(did you mean laptop\?\)$"),
        ({"seeds": 0}, "1 or more; got 0"),
        ({"seeds": -3}, "1 or more; got -3"),
        ({"data": "/no/such/folder"}, "no such folder"),
        ({"datasets": "mnist"}, "has no data set mnist; it has shapes-object, 48 images"),
        ({"preset": "paper"}, "DATA"),
    ],
)
def test_bad_arguments_are_refused_before_training(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiments.declare(**({"name": "table2", "preset": "tiny"} | arguments))


def test_a_table_can_be_restricted_to_some_of_its_data_sets() -> None:
    """In the order of the table, however they are given."""
    sketch, digits = "shapes-sketch, 48 images", "digits, 48 images"
    for chosen in (f"{digits}; {sketch}", [digits, sketch], (name for name in (sketch, digits))):
        table2 = experiments.declare("table2", preset="tiny", datasets=chosen)
        assert list(dict.fromkeys(cell.dataset for cell in table2.cells)) == [sketch, digits]


def test_trained_and_answered_tables_are_the_same_bytes(runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one job, with what is measured: processes that join a second time may wait for each other for ever."""
    jobs = []
    complete = schedule.complete
    monkeypatch.setattr(schedule, "complete", lambda job: jobs.append(job) or complete(job))
    experiment = experiments.declare("table2", preset="tiny", seeds=1).only(["digits, 48 images"])
    assert experiment.floors
    trained = experiments.run(experiment, workers=1, device="cpu")
    assert len(jobs) == 1
    file = experiments.csv_path(experiment)
    first = file.read_bytes()
    file.unlink()
    assert experiments.run(experiment, workers=1, device="cpu").equals(trained) and file.read_bytes() == first


def test_a_reference_is_a_copy_of_complete_results(runs_folder: Path) -> None:
    experiment = experiments.declare("table2", preset="tiny", seeds=1).only(["digits, 48 images"])
    experiment = dataclasses.replace(experiment, floors=())
    with pytest.raises(ConfigError, match="run the table first"):
        experiments.keep_as_reference(experiment)
    results = experiments.run(experiment, workers=1, device="cpu")
    experiments.keep_as_reference(experiment)
    kept = read_csv(runs_folder / "reference" / "tiny" / "table2.csv")
    assert kept.value.tolist() == results.value.tolist()
    assert {path.name for path in (runs_folder / "reference" / "store").rglob("*") if path.is_file()} == {
        "config.json",
        "metrics.csv",
        "result.json",
    }


def test_a_reference_has_the_measurements(runs_folder: Path) -> None:
    """Those of the table and those of its figure; without one of them it is not complete."""
    appendix = experiments.declare("appendix", preset="tiny", seeds=1)
    cells = tuple(cell for cell in appendix.cells if cell.measurement is not None)[:1]
    experiment = dataclasses.replace(appendix, cells=cells, drawn=appendix.drawn[:1], floors=())
    results = experiments.run(experiment, workers=1, device="cpu")
    (run,) = {run.key: run for run in experiment.runs()}.values()
    measured = {measurement.name: f"measured/{measurement.key}.json" for _, measurement in experiment.measurements()}
    assert set(measured) == {"collapse", "maps"}

    experiments.keep_as_reference(experiment)
    kept, own = (store / run.key for store in (runs_folder / "reference" / "store", runs_folder / "store"))
    files = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert files == {"config.json", "metrics.csv", "result.json", *measured.values()}
    assert all((kept / file).read_bytes() == (own / file).read_bytes() for file in files)
    numbers = json.loads((kept / measured["collapse"]).read_text())["metrics"]
    assert numbers == dict(zip(results.metric, results.value, strict=True)) and set(results.table) == {"appendix-maps"}
    assert not json.loads((kept / measured["maps"]).read_text())["metrics"]

    (own / measured["maps"]).unlink()
    with pytest.raises(ConfigError, match="appendix at preset tiny is not complete"):
        experiments.keep_as_reference(experiment)
