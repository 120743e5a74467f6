"""Figures of constructed tables: what they show, that they survive gaps, and that they read on light and dark pages."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the book extra is not installed")
pytest.importorskip("seaborn", reason="the book extra is not installed")
matplotlib.use("agg")

from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from sarlib import report  # noqa: E402
from sarlib.config import ConfigError  # noqa: E402
from sarlib.experiments.claims import ClaimTest  # noqa: E402
from sarlib.experiments.results import COLUMNS  # noqa: E402
from sarlib.report import figures  # noqa: E402

SEEDS = 4


@dataclass(frozen=True)
class Cell:
    table: str
    row: str
    dataset: str
    baseline: str | None = None


@dataclass(frozen=True)
class Experiment:
    cells: tuple[Cell, ...]
    name: str = "table1"
    title: str = "Ablations"
    preset: str = "laptop"
    seeds: tuple[int, ...] = tuple(range(SEEDS))
    tests: tuple[ClaimTest, ...] = ()


def test_a_seeds_line_joins_a_baseline_with_what_is_compared_with_it() -> None:
    rows = [
        Cell("table9", name, "shapes", baseline)
        for name, baseline in (("ViT", None), ("ViT + SAR", "ViT"), ("PVT", None), ("PVT + SAR", "PVT"))
    ]
    assert figures.Layout.of(rows).joined == [[0, 1], [2, 3]]
    one = [Cell("table1c", name, "shapes", None if name == "A" else "A") for name in "ABC"]
    assert figures.Layout.of(one).joined == [[0, 1, 2]]


SETS = ("shapes", "digits")
WEIGHTS = tuple(Cell("table1a", weight, "shapes", "0" if weight != "0" else None) for weight in ("0.1", "0", "0.001", "0.01"))
EPOCHS = tuple(
    Cell("table1b", f"{row}, {e} epochs", "shapes", f"ViT, {e} epochs" if "SAR" in row else None)
    for e in (80, 240)
    for row in ("ViT", "ViT + SAR")
)
PARTS = tuple(Cell("table1c", row, name, "A" if row != "A" else None) for name in SETS for row in "ABCDEF")
TABLE1 = Experiment((*WEIGHTS, *EPOCHS, *PARTS))
TABLE2 = Experiment(
    tuple(Cell("table2", row, name, "ViT" if "SAR" in row else None) for name in SETS for row in ("ViT", "ViT + SAR")),
    name="table2",
)


def results_of(experiment: Experiment) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = [
        (cell.table, cell.row, cell.dataset, seed, metric, rng.normal(5.0 if cell.baseline else 1.0, 0.1), unit, "")
        for cell in experiment.cells
        for seed in experiment.seeds
        for metric, unit in (("top1", "%"), ("jaccard", "1"), ("entropy", "nats"))
        if not (metric == "jaccard" and cell.dataset == "digits")
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def drawn(results: pd.DataFrame, experiment: Experiment, *, table: str | None = None) -> Figure:
    """The figure, rendered, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = report.figure(results, experiment, table=table)
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def points(axes: matplotlib.axes.Axes) -> int:
    return sum(
        len(collection.get_offsets()) for collection in axes.collections if type(collection).__name__ == "PathCollection"
    )


def test_listed_rows_show_every_seed_mean_and_interval_by_data_set_and_a_forest_by_metric() -> None:
    figure = drawn(results_of(TABLE1), TABLE1, table="table1c")
    values, forests = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title(loc="left") for axes in values] == list(SETS)
    assert [axes.get_xlabel() for axes in figure.axes] == ["top1 (%)"] * 2 + ["top1 (points)", "jaccard", "entropy (nats)"]
    assert [label.get_text() for label in values[0].get_yticklabels()] == list("ABCDEF")
    assert [points(axes) for axes in values] == [6 * SEEDS] * 2 and [len(axes.containers) for axes in values] == [6, 6]
    lines = [f"{row} − A" for row in "BCDEF"]
    assert [label.get_text() for label in forests[0].get_yticklabels()] == ["shapes", *lines, "digits", *lines]
    assert [points(axes) for axes in forests] == [10 * SEEDS, 5 * SEEDS, 10 * SEEDS]  # digits have no masks
    assert (
        values[0].get_ylim()[0] > values[0].get_ylim()[1] and forests[0].get_ylim()[0] > forests[0].get_ylim()[1]
    )  # first row on top


def test_intervals_in_the_figure_are_those_of_the_table() -> None:
    results = results_of(TABLE2)
    forest = drawn(results, TABLE2).axes[2]
    expected = report.differences(results, TABLE2, ["top1"])
    for container, (_, line) in zip(forest.containers, expected.iterrows(), strict=True):
        (bar,) = container.lines[2]
        assert list(bar.get_segments()[0][:, 0]) == pytest.approx([line["low"], line["high"]])
        assert container.lines[0].get_xdata()[0] == pytest.approx(line["mean"])


def test_one_comparison_a_data_set_is_named_once_and_the_data_sets_are_the_lines() -> None:
    figure = drawn(results_of(TABLE2), TABLE2)
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == list(SETS)
    assert any(text.startswith("Table 2: ViT + SAR − ViT, paired by seed") for text in texts(figure))


def test_numbers_become_an_ordinal_axis_in_ascending_order() -> None:
    results = results_of(TABLE1)
    axes = drawn(results, TABLE1, table="table1a").axes[0]
    ticks = dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))
    assert [ticks[place] for place in sorted(ticks)] == ["0", "0.001", "0.01", "0.1"]
    assert axes.get_xlabel().startswith("λ") and axes.get_ylabel() == "top1 (%)"
    means = {ticks[container.lines[0].get_xdata()[0]]: container.lines[0].get_ydata()[0] for container in axes.containers}
    expected = results[(results["table"] == "table1a") & (results["metric"] == "top1")].groupby("row")["value"].mean()
    assert means == pytest.approx(expected.to_dict())


def test_model_and_setting_are_grouped_by_setting_with_the_models_named_in_the_panel() -> None:
    figure = drawn(results_of(TABLE1), TABLE1, table="table1b")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["80 epochs", "240 epochs"]
    assert [text.get_text() for text in axes.texts] == ["ViT", "ViT + SAR"]
    places = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert places == sorted(places) and all(abs(place - round(place)) < 0.4 for place in places)


def test_a_difference_is_filled_and_coloured_only_where_its_interval_decides() -> None:
    results = results_of(TABLE2)
    baseline = results["row"] == "ViT"
    results.loc[baseline & (results["metric"] == "jaccard"), "value"] += 10.0
    entropy = (results["metric"] == "entropy") & ~baseline
    results.loc[entropy, "value"] = results.loc[entropy, "seed"].map(lambda seed: 1.0 + (-1) ** seed)
    forests = drawn(results, TABLE2).axes[2:]
    markers = [axes.containers[0].lines[0] for axes in forests]
    assert [marker.get_color() for marker in markers] == [figures.ACCENT, figures.BELOW, figures.INK]
    assert [marker.get_markerfacecolor() == "none" for marker in markers] == [False, False, True]


def test_all_parts_of_a_table_stand_in_one_figure_and_unknown_ones_are_refused() -> None:
    figure = drawn(results_of(TABLE1), TABLE1)
    titles = [pane._suptitle.get_text() for pane in figure.subfigs]
    assert [title.split(":")[0] for title in titles] == ["Table 1a"] * 2 + ["Table 1b"] * 2 + ["Table 1c"] * 2
    with pytest.raises(ConfigError, match="no part 'table1d'; choose from table1a, table1b, table1c"):
        report.figure(results_of(TABLE1), TABLE1, table="table1d")


@pytest.mark.parametrize("experiment", [TABLE1, TABLE2], ids=["table1", "table2"])
@pytest.mark.parametrize("what", ["one seed", "failed", "missing cell", "nothing"])
def test_gaps_leave_gaps(experiment: Experiment, what: str) -> None:
    results = results_of(experiment)
    row = experiment.cells[0].row
    match what:
        case "one seed":
            results = results[results["seed"] == 0]
        case "failed":
            results = results.assign(value=results["value"].mask(results["seed"] == 1, math.nan))
        case "missing cell":
            results = results[results["row"] != row]
        case "nothing":
            results = results.iloc[:0]
    figure = drawn(results, experiment)
    assert points(figure.axes[0]) == {"one seed": 1, "failed": SEEDS - 1, "missing cell": SEEDS, "nothing": 0}[what] * (
        len([cell for cell in experiment.cells if (cell.table, cell.dataset) == (experiment.cells[0].table, "shapes")])
        - (what == "missing cell")
    )


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("page", ["#ffffff", "#14181e"])
@pytest.mark.parametrize(("colour", "contrast"), [(figures.INK, 4.0), (figures.ACCENT, 3.5), (figures.BELOW, 3.5)])
def test_colours_read_on_light_and_dark_pages(colour: str, contrast: float, page: str) -> None:
    darker, lighter = sorted((luminance(colour), luminance(page)))
    assert (lighter + 0.05) / (darker + 0.05) >= contrast


def test_the_background_is_the_pages_and_all_text_has_a_colour_of_ours() -> None:
    figure = drawn(results_of(TABLE1), TABLE1)
    patches = [figure.patch, *(pane.patch for pane in figure.subfigs), *(axes.patch for axes in figure.axes)]
    assert all(patch.get_facecolor()[3] == 0 for patch in patches)
    assert {text.get_color() for text in figure.findobj(Text) if text.get_text()} <= {figures.INK, figures.ACCENT}


def test_equal_results_give_equal_files() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        drawn(results_of(TABLE2), TABLE2).savefig(file, format="svg", metadata={"Date": None})
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_the_figure_is_not_left_open_in_pyplot() -> None:
    drawn(results_of(TABLE2), TABLE2)
    assert not matplotlib.pyplot.get_fignums()
