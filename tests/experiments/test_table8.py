"""Table 8: what is measured of which runs, on which images, and released sets of which something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarlib import data, experiments
from sarlib.__main__ import main
from sarlib.experiments import doses
from sarlib.tasks.metrics import METRICS


@pytest.mark.parametrize(("preset", "images"), [("tiny", 20), ("laptop", 500), ("gpu", 2000)])
def test_the_runs_are_table_4s(preset: str, images: int) -> None:
    experiment = experiments.declare("table8", preset=preset)
    runs = [cell.run for cell in experiments.declare("table4", preset=preset).cells]
    for part, name, ending in (("table8a", "natural", "-conflict"), ("table8c", "corrupted", "")):
        cells = [cell for cell in experiment.cells if cell.table == part]
        assert [cell.run for cell in cells] == runs
        assert {cell.measurement.name for cell in cells} == {name} and len({cell.measurement.key for cell in cells}) == 1
        spec, own = cells[0].measurement.data, cells[0].run.data
        assert (spec.name, spec.test_size, spec.image_size) == (own.name + ending, images, own.image_size)


def test_photographs_are_corrupted_and_have_no_cues_to_set_in_conflict(image_folder: Path) -> None:
    """Of each class equally many, though folders hold one class after the other; no more than there are."""
    experiment = experiments.declare("table8", preset="tiny", data=image_folder)
    (measurement,) = {cell.measurement for cell in experiment.cells if cell.run.data.name == "pets"}
    assert {cell.table for cell in experiment.cells if cell.run.data.name == "pets"} == {"table8c"}
    assert (measurement.name, measurement.data.test_size) == ("corrupted", 8) and measurement.data.fingerprint
    _, test = data.load(measurement.data, seed=0, root=image_folder)
    assert test.labels.bincount().tolist() == [4, 4]
    assert [len(test.contrasts) for test in experiment.tests] == [1, 2]


def test_at_paper_the_released_sets_are_looked_at(paper_sets: Path) -> None:
    experiment = experiments.declare("table8", preset="paper", data=paper_sets)
    specs = {cell.table: cell.measurement.data for cell in experiment.cells}
    assert {part: (spec.name, spec.image_size, spec.test_crop) for part, spec in specs.items()} == {
        "table8a": ("imagenet-a", 224, 224 / 256),
        "table8c": ("imagenet-c", 224, 1.0),
    }
    assert all(spec.fingerprint for spec in specs.values())
    assert {test.claim_id: {one.metric for one in test.contrasts} for test in experiment.tests} == {
        "t8-a": {"natural"},
        "t8-c": {"mce"},
    }


@pytest.mark.parametrize("place", ["imagenet-c/fog/4", "imagenet-a"])
def test_a_missing_folder_is_one_line_and_exit_2(paper_sets: Path, place: str, capsys: pytest.CaptureFixture) -> None:
    (paper_sets / place).rename(paper_sets / "elsewhere")
    assert main(["table8", "--preset", "paper", "--data", str(paper_sets), "--check"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"among them {place}/<wnid>/*.JPEG" in told


def test_the_matched_dose_has_its_own_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Table 4 has a row at that dose: measured like the others, and judged apart."""
    monkeypatch.setattr(doses, "matched", lambda name, preset: 0.3)
    experiment = experiments.declare("table8", preset="tiny")
    assert {cell.row for cell in experiment.cells} == {"ViT", "ViT + DRLoc", "ViT + SAR", "ViT + SAR, matched dose"}
    assert [(test.claim_id, test.dose) for test in experiment.tests] == [
        ("t8-a", ""),
        ("t8-a", "matched dose"),
        ("t8-c", ""),
        ("t8-c", "matched dose"),
    ]


def test_units_and_directions() -> None:
    assert {name: (METRICS[name].unit, METRICS[name].better) for name in ("natural", "corrupted", "mce")} == {
        "natural": ("%", "higher"),
        "corrupted": ("%", "lower"),
        "mce": ("%", "lower"),
    }
