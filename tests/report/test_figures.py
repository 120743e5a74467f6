"""Figures of constructed tables: what they show, that they survive gaps, and that they read on light and dark pages."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from constructed import EPOCHS, HEIGHTS, cell, curves_of, declared

matplotlib = pytest.importorskip("matplotlib", reason="the book extra is not installed")
pytest.importorskip("seaborn", reason="the book extra is not installed")
matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from sarlib import data, report  # noqa: E402
from sarlib.config import ConfigError  # noqa: E402
from sarlib.experiments.declaration import Experiment  # noqa: E402
from sarlib.experiments.results import COLUMNS  # noqa: E402
from sarlib.report import figures  # noqa: E402
from sarlib.report.attention import draw_map  # noqa: E402
from sarlib.run import Measurement, Run  # noqa: E402
from sarlib.tasks import metrics  # noqa: E402

SEEDS = 4


def test_a_seeds_line_joins_a_baseline_with_what_is_compared_with_it() -> None:
    rows = [
        cell("table9", name, "shapes", baseline)
        for name, baseline in (("ViT", None), ("ViT + SAR", "ViT"), ("PVT", None), ("PVT + SAR", "PVT"))
    ]
    assert figures.Layout.of(rows).joined == [[0, 1], [2, 3]]
    one = [cell("table1c", name, "shapes", None if name == "A" else "A") for name in "ABC"]
    assert figures.Layout.of(one).joined == [[0, 1, 2]]


SETS = ("shapes", "digits")
WEIGHTS = tuple(cell("table1a", weight, "shapes", "0" if weight != "0" else None) for weight in ("0.1", "0", "0.001", "0.01"))
LENGTHS = tuple(
    cell("table1b", f"{row}, {e} epochs", "shapes", f"ViT, {e} epochs" if "SAR" in row else None)
    for e in (80, 240)
    for row in ("ViT", "ViT + SAR")
)
PARTS = tuple(cell("table1c", row, name, "A" if row != "A" else None) for name in SETS for row in "ABCDEF")
TABLE1 = declared((*WEIGHTS, *LENGTHS, *PARTS), name="table1", title="Ablations")
TABLE2 = declared(
    tuple(cell("table2", row, name, "ViT" if "SAR" in row else None) for name in SETS for row in ("ViT", "ViT + SAR")),
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
    expected = report.differences(results, TABLE2, ["top1"], exact=True)
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


def luminance(colour: tuple[float, ...] | str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(colour: tuple[float, ...] | str, page: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    darker, lighter = sorted((luminance(colour), luminance(page)))
    return (lighter + 0.05) / (darker + 0.05)


LIGHT, DARK = "#ffffff", "#14181e"  # pages of the book's theme
STYLE_SHEET = Path(__file__).resolve().parents[2] / "book" / "_assets" / "book.css"


def on_dark_page(colour: str) -> tuple[float, ...]:
    """As the style sheet of the book shows it there."""
    rule = re.search(r'html\[data-theme="dark"\][^{]* img\b[^{]*\{([^}]*)\}', STYLE_SHEET.read_text())[1]
    factor = float(re.search(r"filter: brightness\(([\d.]+)\)", rule)[1])
    return tuple(min(1.0, factor * channel) for channel in to_rgb(colour))


def test_text_reads_on_light_and_dark_pages() -> None:
    """4.5:1 is what text of this size needs (WCAG 2.2, 1.4.3). One tone cannot have it on both pages, hence the brightness."""
    assert contrast(figures.INK, LIGHT) >= 4.5 and contrast(on_dark_page(figures.INK), DARK) >= 4.5
    assert contrast(LIGHT, DARK) < 4.5**2


@pytest.mark.parametrize("page", [LIGHT, DARK])
@pytest.mark.parametrize("colour", [figures.INK, figures.ACCENT, figures.BELOW, "#8a6fc4"])
def test_marks_read_on_light_and_dark_pages(colour: str, page: str) -> None:
    """Also where nothing is brightened: in a notebook on a dark page. Marks need 3:1 (1.4.11)."""
    assert contrast(colour, page) >= 3.5
    assert page == LIGHT or contrast(on_dark_page(colour), page) >= 4.5


def test_the_background_is_the_pages_and_all_text_has_a_colour_of_ours() -> None:
    figure = drawn(results_of(TABLE1), TABLE1)
    patches = [figure.patch, *(pane.patch for pane in figure.subfigs), *(axes.patch for axes in figure.axes)]
    assert all(patch.get_facecolor()[3] == 0 for patch in patches)
    assert {text.get_color() for text in figure.findobj(Text) if text.get_text()} == {figures.INK}


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


@pytest.mark.parametrize("better", ["higher", "lower", None])
def test_blue_is_better_and_vermilion_worse_by_the_metrics_direction(
    better: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rise that its interval decides; grey, but filled, where the metric has no better direction."""
    monkeypatch.setitem(metrics.METRICS, "entropy", dataclasses.replace(metrics.METRICS["entropy"], better=better))
    marker = drawn(results_of(TABLE2), TABLE2).axes[4].containers[0].lines[0]
    expected = {"higher": figures.ACCENT, "lower": figures.BELOW, None: figures.INK}[better]
    assert marker.get_color() == expected == marker.get_markerfacecolor()


def test_a_rise_of_the_entropy_is_not_painted_as_a_gain() -> None:
    forests = drawn(results_of(TABLE2), TABLE2).axes[2:]
    top1, entropy = (axes.containers[0].lines[0].get_color() for axes in (forests[0], forests[2]))
    assert forests[2].get_xlabel() == "entropy (nats)" and top1 == figures.ACCENT != entropy


def test_the_figure_leads_with_what_the_table_declares() -> None:
    figure = drawn(results_of(TABLE2), dataclasses.replace(TABLE2, leads=("jaccard", "entropy")))
    assert [axes.get_xlabel() for axes in figure.axes] == ["jaccard"] * 2 + ["jaccard", "entropy (nats)"]
    assert any("Table 2: jaccard of each seed" in text for text in texts(figure))


def test_cells_with_a_measurement_show_what_it_measured(smallest_run: Run) -> None:
    measurement = Measurement(name="collapse", data=smallest_run.data)
    cells = [cell("maps", row, "d", base, measurement=measurement) for row, base in (("none", None), ("softmax", "none"))]
    lines = [
        ("maps", each.row, "d", seed, name, 0.1 * seed + (each.baseline is not None), "1", "k")
        for each in cells
        for seed in range(SEEDS)
        for name in ("peak", "single")
    ]
    figure = drawn(pd.DataFrame(lines, columns=list(COLUMNS)), declared(cells))
    assert [axes.get_xlabel() for axes in figure.axes] == ["peak", "peak", "single (points)"]
    assert [points(axes) for axes in figure.axes] == [2 * SEEDS, SEEDS, SEEDS]


def test_curves_have_a_line_a_row_and_the_goal() -> None:
    (axes,) = report.curves(*curves_of(HEIGHTS)).axes
    *lines, goal = axes.get_lines()
    assert [line.get_label() for line in lines] == list(HEIGHTS)
    assert list(lines[1].get_xdata()) == list(EPOCHS) and list(lines[1].get_ydata()) == [35, 25, 35]
    assert goal.get_ydata()[0] == 35, "where the baseline ends"
    assert len({line.get_marker() for line in lines}) == 3, "rows differ in more than colour"
    assert axes.get_ylabel() == "top1 (%)"


def test_curves_have_the_intervals_of_the_table() -> None:
    results, experiment = curves_of({"ViT": ([10, 20, 30], [12, 30, 50], [11, 22, 31])})
    (axes,) = report.curves(results, dataclasses.replace(experiment, seeds=(0, 1, 2))).axes
    (band,) = axes.collections
    ends = band.get_paths()[0].vertices
    for epoch, cell_ in zip(EPOCHS, experiment.cells, strict=True):
        interval = figures.mean_interval(results[results["row"] == cell_.row]["value"])
        here = ends[ends[:, 0] == epoch][:, 1]
        assert (here.min(), here.max()) == pytest.approx((interval.low, interval.high))


def test_rows_without_results_are_left_out_of_the_curves() -> None:
    results, experiment = curves_of(HEIGHTS)
    (axes,) = report.curves(results[~results["row"].str.contains("DRLoc")], experiment).axes
    assert len(axes.get_lines()) == 3
    (axes,) = report.curves(results.iloc[:0], experiment).axes
    assert not axes.get_lines()


def test_every_row_has_a_curve_of_its_own_look() -> None:
    heights = {"ViT": ([1, 2, 3],)} | {f"ViT + {i}": ([i, i, i],) for i in range(9)}
    *lines, _ = report.curves(*curves_of(heights)).axes[0].get_lines()
    assert len({(line.get_marker(), line.get_color()) for line in lines}) == len(heights)


class Measured:
    """A store that holds the maps of some runs."""

    root = Path("runs/store")

    def __init__(self, maps: dict[str, np.ndarray], measurement: Measurement) -> None:
        self.maps, self.measurement = maps, measurement

    def read_measured(self, run: Run, measurement: Measurement) -> dict[str, dict] | None:
        if measurement != self.measurement or run.key not in self.maps:
            return None
        return {"metrics": {}, "arrays": {"attention": self.maps[run.key].round(4).tolist()}}


@pytest.fixture
def collapsed(smallest_run: Run) -> tuple[pd.DataFrame, Experiment, Measured]:
    """Two rows of which the collapse and the maps are measured, a cell that shows neither, and the maps of three images."""
    longer = dataclasses.replace(smallest_run, recipe=dataclasses.replace(smallest_run.recipe, epochs=4))
    rows = {"no loss": smallest_run, "collapsed": longer}
    shown, drawn = (Measurement(name=name, data=smallest_run.data, images=n) for name, n in (("collapse", 6), ("maps", 3)))
    cells = [
        cell(f"appendix-{of.name}", row, "d", run=run, measurement=of) for of in (shown, drawn) for row, run in rows.items()
    ]
    other = cell("appendix-losses", "no loss", "e", run=dataclasses.replace(smallest_run, seed=9))
    experiment = declared((other, *cells), name="appendix", seeds=(0, 1))
    random = torch.Generator().manual_seed(0)
    maps = {
        run.key: (factor * torch.rand(3, 2, 16, generator=random)).softmax(-1).reshape(3, 2, 4, 4).numpy()
        for run, factor in zip(rows.values(), (1.0, 50.0), strict=True)
    }
    lines = [
        ("appendix-collapse", row, "d", seed, name, value + seed / 10, unit, "k")
        for i, row in enumerate(rows)
        for seed in (0, 1)
        for name, value, unit in (("peak", 0.2 + 0.5 * i, "1"), ("single", 10.0 + 80 * i, "%"))
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS)), experiment, Measured(maps, drawn)


def maps_of(collapsed: tuple[pd.DataFrame, Experiment, Measured], **rest: int) -> Figure:
    results, experiment, store = collapsed
    return report.maps(results, experiment, store=store, **rest)


def test_maps_are_shown_below_the_first_test_images(collapsed: tuple[pd.DataFrame, Experiment, Measured]) -> None:
    _, experiment, store = collapsed
    *panels, bar = maps_of(collapsed, head=1).axes
    assert len(panels) == 3 * 3 and plt.get_fignums() == []
    run = experiment.cells[1].with_seed(0)
    _, test = data.load(run.data, seed=0)
    assert np.array_equal(np.asarray(panels[2].images[0].get_array()), test.pixels[2].permute(1, 2, 0).numpy())
    attention = store.maps[run.key][2, 1].round(4)
    shown = np.asarray(panels[5].images[0].get_array())
    np.testing.assert_allclose(shown, attention / attention.max(), rtol=1e-6)
    assert {panel.images[0].get_clim() for panel in panels[3:]} == {(0, 1)}
    assert "softmax(S)" in bar.get_ylabel()


def test_the_rows_of_the_maps_say_how_collapsed_they_are(collapsed: tuple[pd.DataFrame, Experiment, Measured]) -> None:
    labels = [axes.get_ylabel() for axes in maps_of(collapsed).axes[:9:3]]
    assert labels == ["test images\nd", "no loss\npeak 0.25, single 10 %", "collapsed\npeak 0.75, single 90 %"]


def test_a_line_surrounds_the_tokens_above_the_mean() -> None:
    """The second token of the third row: its edges are at 0.5 and 1.5 across, 1.5 and 2.5 down. A flat map has no line."""
    _, axes = plt.subplots()
    attention = np.full((4, 4), 0.01)
    attention[2, 1] = 0.85
    draw_map(axes, attention)
    (contour,) = axes.collections
    (line,) = contour.get_paths()
    np.testing.assert_allclose([line.vertices.min(0), line.vertices.max(0)], [[0.5, 1.5], [1.5, 2.5]], atol=0.1)
    for flat in (1 / 16, 1 / 49):
        axes.clear()
        draw_map(axes, np.full((7, 7), flat))
        assert not axes.collections
    plt.close()


def test_maps_read_on_any_page_and_are_reproducible(collapsed: tuple[pd.DataFrame, Experiment, Measured]) -> None:
    files, both = [], [maps_of(collapsed, head=1) for _ in range(2)]
    figure = both[0]
    assert all(patch.get_facecolor()[3] == 0 for patch in (figure.patch, *(axes.patch for axes in figure.axes)))
    assert {text.get_color() for text in figure.findobj(Text) if text.get_text()} == {figures.INK}
    for one in both:
        file = io.BytesIO()
        one.savefig(file, format="svg", metadata={"Date": None})
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_maps_of_one_data_set_whose_collapse_is_measured_can_be_compared(
    collapsed: tuple[pd.DataFrame, Experiment, Measured],
) -> None:
    results, experiment, store = collapsed
    elsewhere = dataclasses.replace(experiment.cells[1], dataset="e")
    for cells in (experiment.cells[:1], (*experiment.cells, elsewhere), experiment.cells[:3]):
        with pytest.raises(ConfigError, match="rows on one data set.*appendix"):
            report.maps(results, dataclasses.replace(experiment, cells=cells), store=store)


def test_a_run_whose_maps_are_not_in_the_store_is_named(collapsed: tuple[pd.DataFrame, Experiment, Measured]) -> None:
    _, experiment, store = collapsed
    run = experiment.cells[2].with_seed(0)
    del store.maps[run.key]
    with pytest.raises(ConfigError, match=f"{run.key} are not in runs/store: run the table first"):
        maps_of(collapsed)
