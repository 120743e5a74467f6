"""The searches of the table `dose`: by entropy and training loss alone, and what the other tables make of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments import doses
from sarlib.experiments.results import COLUMNS, write_csv

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import doses as program  # noqa: E402  (a script of the book, not a package)

#: Entropy at each weight: by a quarter at .1 and further; not monotonically, and by less than a quarter.
LOWERED = {"0": 0.4, "0.01": 0.39, "0.03": 0.31, "0.1": 0.30, "0.3": 0.1, "1": 0.0}
UNMOVED = {"0": 0.4, "0.01": 0.5, "0.03": 0.31, "0.1": 0.45, "0.3": 0.45, "1": 0.301}
LOSSES = {"0": 0.60, "total_variation 0.0001": 0.60, "total_variation 0.001": 0.64, "total_variation 0.01": 1.5}
LOSSES |= {"disagreement 0.01": 0.7, "disagreement 0.1": 0.8, "disagreement 1": 1.9}

#: Of the first seed, on what stands in for IN-100 at `laptop`: rows A, C, F of the headline; the dose without loss and with it.
HEADLINE = ["dd1c780c8f1041ec", "bb57162d9d8beb06", "432b999e1e3e03e6"]
DOSE = ["931e6b2d17ff4c06", "1bbf715c222065d9", "2526bc35e90b11c1", "b12def93c1de62bc", "2386bd80dd4895d5", "10f0c321a9f78715"]


def results(*, accuracy: int = 0) -> pd.DataFrame:
    """The table's results, on seeds that differ much, with accuracies drawn by `accuracy`."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(accuracy)
    parts = [("dose", "imagenette, 500 images", LOWERED), ("dose", "shapes-object, 500 images", UNMOVED)]
    parts.append(("dose-others", "shapes-object, 500 images", LOSSES))
    lines = []
    for table, dataset, rows in parts:
        for seed in range(100, 104):
            level = rng.uniform(0.5, 1.5)
            for row, value in rows.items():
                names = ("top1", "top5", "jaccard", "loss", "train_loss" if table == "dose" else "entropy")
                found = {name: noise.uniform(0, 100) for name in names}
                found["entropy" if table == "dose" else "train_loss"] = value * level if table == "dose" else value
                lines += [(table, row, dataset, seed, name, value, "", "none") for name, value in found.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def test_the_matched_dose_is_the_smallest_weight_that_lowers_the_entropy_by_a_quarter() -> None:
    found = program.search_matched(program.only(results().query("table == 'dose'"), "entropy"))
    assert {name: each["weight"] for name, each in found.items()} == {"imagenette": 0.1, "shapes-object": None}
    assert found["imagenette"]["change"] == pytest.approx(
        {"0.01": -0.025, "0.03": -0.225, "0.1": -0.25, "0.3": -0.75, "1": -1}, abs=1e-4
    )


def test_a_harmless_weight_is_the_largest_that_costs_little_training_loss() -> None:
    found = program.search_harmless(program.only(results().query("table == 'dose-others'"), "train_loss"))
    assert {name: each["weight"] for name, each in found.items()} == {"total_variation": 0.001, "disagreement": None}


def test_a_search_never_sees_an_accuracy(tmp_path: Path) -> None:
    """It is not in its input: a frame with anything else is refused, and other accuracies find the same."""
    whole = results().query("table == 'dose'")
    for frame in (whole, whole[["dataset", "row", "seed", "metric", "value"]]):
        for search in (program.search_matched, program.search_harmless):
            with pytest.raises(ConfigError, match="a search sees the columns dataset, row, seed, value of one metric"):
                search(frame)
    found = []
    for accuracy in (0, 1):
        write_csv(results(accuracy=accuracy), tmp_path / str(accuracy) / "laptop" / "dose.csv")
        found.append(program.searched(tmp_path / str(accuracy)))
    assert found[0] == found[1] and found[0]["laptop"]["matched"]["imagenette"]["weight"] == 0.1
    assert found[0]["laptop"]["seeds"] == [100, 101, 102, 103]


def test_the_file_is_what_the_committed_results_say() -> None:
    before = doses.FILE.read_text(encoding="utf-8")
    assert program.text(program.searched(ROOT / "runs" / "reference"), before).strip() == before.strip(), "python book/doses.py"


def test_what_was_found_stands_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matched dose beside .01, a harmless weight beside those that were tried; both of the preset that was searched."""
    found = {"matched": {"shapes-object": {"weight": 0.3}}, "harmless": {"total_variation": {"weight": 0.0001}}}
    monkeypatch.setattr(doses, "_load", lambda: {"laptop": found})
    for name, row in (("table1", "F"), ("table2", "ViT + SAR"), ("table9", "PVT + SAR"), ("headline", "ViT + SAR")):
        rows = {cell.row: cell.run for cell in experiments.declare(name, preset="laptop").cells}
        assert rows[f"{row}, matched dose"].regularizers[0].weight == 0.3 and rows[row].regularizers[0].weight == 0.01
        assert rows[f"{row}, matched dose"].model.variant == "C"
        assert f"{row}, matched dose" not in {cell.row for cell in experiments.declare(name, preset="tiny").cells}
    rows = {cell.row for cell in experiments.declare("appendix", preset="laptop").cells}
    assert {"spatial entropy, λ = 0.3", "total variation, λ = 0.0001"} <= rows


@pytest.mark.parametrize(
    ("name", "weight"), [("pacs-cartoon", 0.1), ("pacs-sketch", 0.1), ("imagenette", None), ("cifar10", 0.3), ("digits", None)]
)
def test_a_weight_serves_its_kind_of_set(name: str, weight: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    matched = {"pacs-cartoon": {"weight": 0.1}, "imagenette": {"weight": None}, "cifar10": {"weight": 0.3}}
    monkeypatch.setattr(doses, "_load", lambda: {"laptop": {"matched": matched}})
    assert doses.matched(name, "laptop") == weight and doses.matched(name, "tiny") is None


def test_the_headline_is_the_one_that_was_registered() -> None:
    """Its runs and those of the search, as they were declared before the first of them; and the page names that commit."""
    headline, dose = (experiments.declare(name, preset="laptop") for name in ("headline", "dose"))
    assert [cell.with_seed(200).key for cell in headline.cells][:3] == HEADLINE
    assert [cell.with_seed(100).key for cell in dose.cells][:6] == DOSE
    assert headline.seeds[0] == 200 and dose.seeds[0] == 100
    assert "d5e7588" in (ROOT / "book" / "notebooks" / "headline.ipynb").read_text(encoding="utf-8")


def test_the_file_can_be_read() -> None:
    assert isinstance(yaml.safe_load(doses.FILE.read_text(encoding="utf-8")), dict)
