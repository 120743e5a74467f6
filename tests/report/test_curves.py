"""Figure 3: epochs to the baseline's final accuracy by hand, and a picture that shows what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from sarlib import experiments, report
from sarlib.experiments.declaration import Cell
from sarlib.experiments.results import COLUMNS
from sarlib.report import curves

EPOCHS = (2, 4, 6)
#: Row: top-1 of each seed after 2, 4 and 6 epochs.
HEIGHTS = {
    "ViT": ([10, 20, 30], [10, 30, 40]),
    "ViT + SAR": ([20, 40, 50], [50, 10, 20]),
    "ViT + DRLoc": ([1, 2, 3], [1, 20, 60]),
}


def drawn(heights: dict[str, Sequence[Sequence[float]]]) -> tuple[pd.DataFrame, SimpleNamespace]:
    """Results and a declaration with one data set."""
    cells, lines = [], []
    for row, seeds in heights.items():
        for i, epoch in enumerate(EPOCHS):
            baseline = None if row == "ViT" else f"ViT, epoch {epoch}"
            cells.append(
                Cell(table="figure3", row=f"{row}, epoch {epoch}", dataset="d", run=None, baseline=baseline, epoch=epoch)
            )
            lines += [("figure3", cells[-1].row, "d", seed, "top1", curve[i], "%", "k") for seed, curve in enumerate(seeds)]
    return pd.DataFrame(lines, columns=list(COLUMNS)), SimpleNamespace(
        cells=tuple(cells), seeds=(0, 1), name="figure3", title="", tests=()
    )


def test_epochs_to_reach_by_hand() -> None:
    """Seed 0 of SAR crosses 30 half way from epoch 2 to 4; seed 1 starts above 40. DRLoc never gets there with seed 0 and with seed 1 half
    way from epoch 4 to 6. The baseline is there when it ends."""
    found = report.epochs_to_reach(*drawn(HEIGHTS)).loc["d"]
    assert found["reached"].to_dict() == {"ViT": 2, "ViT + SAR": 2, "ViT + DRLoc": 1} and set(found["n"]) == {2}
    assert found.loc["ViT + SAR", "epochs"].startswith("2.5 ± ") and found.loc["ViT + SAR", "share"] == "42 %"
    assert found.loc["ViT + DRLoc", "epochs"] == "5.0" and found.loc["ViT", "epochs"].startswith("6.0")


def test_a_row_that_never_gets_there_shows_a_gap() -> None:
    found = report.epochs_to_reach(*drawn({"ViT": ([1, 2, 3],), "ViT + SAR": ([0, 1, 2],)})).loc["d"]
    assert found.loc["ViT + SAR", "reached"] == 0 and found.loc["ViT + SAR", "epochs"] == report.GAP


def test_the_figure_has_a_curve_a_row_and_the_goal() -> None:
    (axes,) = report.curves(*drawn(HEIGHTS)).axes
    *lines, goal = axes.get_lines()
    assert [line.get_label() for line in lines] == list(HEIGHTS)
    assert list(lines[1].get_xdata()) == list(EPOCHS) and list(lines[1].get_ydata()) == [35, 25, 35]
    assert goal.get_ydata()[0] == 35, "where the baseline ends"
    assert len({line.get_marker() for line in lines}) == 3, "rows differ in more than colour"


def test_rows_without_results_are_left_out() -> None:
    results, declared = drawn(HEIGHTS)
    (axes,) = report.curves(results[~results["row"].str.contains("DRLoc")], declared).axes
    assert len(axes.get_lines()) == 3


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_the_curves_are_those_of_table_4(preset: str, image_folder: Path) -> None:
    for data in (None, image_folder):
        table, figure = (experiments.declare(name, preset=preset, data=data) for name in ("table4", "figure3"))
        assert {run.key for run in figure.runs()} == {run.key for run in table.runs()}
        assert all(len({cell.epoch for cell in cells}) == 6 for cells in curves.groups(figure.cells).values())
