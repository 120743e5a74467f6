"""The pictures of a table: every seed, means with 95 % intervals and paired differences.

Figures have no background of their own and are drawn in tones of middle lightness, so that one file reads on light pages and on
dark ones. Colour only repeats what position and marker already say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from sarlib.experiments.claims import Contrast
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.report.notation import heading
from sarlib.report.statistics import Interval, from_baselines, groups, leading, mean_interval, paired_values, part, values
from sarlib.tasks import metrics

# The ids inside an SVG are salted hashes; a fixed salt gives equal figures equal bytes.
matplotlib.rcParams["svg.hashsalt"] = "sarlib"

#: Text, axes and baselines: contrast 4.5:1 on white, and on the book's dark page, whose style sheet brightens figures; without
#: that, no tone has more than 4.2:1 on both.
INK = "#72767d"
#: Better and worse: blue and vermilion of seaborn's "colorblind" palette, the blue lifted until it stands out on the dark page.
ACCENT, BELOW = "#2b8ac9", matplotlib.colors.to_hex(sns.color_palette("colorblind")[3])
STYLE = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "grid.color", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 9),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8.5),
    "grid.alpha": 0.25,
}
WIDTH = 9.0  # inches
ACROSS = 3  # data sets side by side
LINE = 0.3  # inches a listed row takes
BESIDE = {True: 0.22, False: 0.1}  # seeds stand so far beside their mean, in a list or not, that neither hides the other


@contextmanager
def drawing(down: int, across: int, *, size: tuple[float, float], lines: bool = False) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of `size` inches and its axes (down, across), with grid `lines` or none, which pyplot will not show."""
    with sns.axes_style("whitegrid") if lines else nullcontext(), plt.rc_context(STYLE):
        whole, grid = plt.subplots(down, across, figsize=size, dpi=144, layout="constrained", squeeze=False)
        plt.close(whole)
        yield whole, grid


#: A band of a figure: its title, its height in inches, and what draws it.
Pane = tuple[str, float, Callable[[SubFigure], None]]


def figure(results: pd.DataFrame, experiment: Experiment, *, table: str | None = None) -> Figure:
    """By data set each cell's values of the metric that the table leads with, and below them the paired differences from the
    baseline of each leading metric, for every part of the table or for one (`table`, such as "table1c").

    A difference is filled where its interval decides: blue for better, vermilion for worse, grey where neither direction is
    better. Cells without results stay empty. `ConfigError` for a part that the table does not have.
    """
    panes: list[tuple[str, Pane]] = []
    for name in dict.fromkeys(cell.table for cell in part(experiment, table)):
        cells = part(experiment, name)
        leads = leading(results, experiment, cells)
        panes.append((name, _values_pane(results, cells, [*leads, *experiment.leads][0])))
        if leads and from_baselines(cells):
            compared = {dataset: from_baselines(own) for (_, dataset), own in groups(cells).items()}
            panes.append((name, _differences_pane(results, compared, leads)))
    return _of_panes([(f"{name.replace('table', 'Table ')}: ", pane) for name, pane in panes])


def forest(results: pd.DataFrame, experiment: Experiment) -> Figure:
    """The differences that the declaration names, by data set, in each metric that the table leads with: every seed, means and
    95 % intervals. Lines without results stay empty."""
    compared: dict[str, list[Contrast]] = {}
    for contrast in experiment.contrasts:
        own = compared.setdefault(contrast.dataset, [])
        if contrast.terms not in [each.terms for each in own]:
            own.append(contrast)
    leads = leading(results, experiment, experiment.cells) or list(experiment.leads)
    return _of_panes([("", _differences_pane(results, compared, leads, what="differences that were declared"))])


def _of_panes(panes: Sequence[tuple[str, Pane]]) -> Figure:
    """The panes below each other, each after what its title begins with."""
    heights = [height for _, (_, height, _) in panes]
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        whole = plt.figure(figsize=(WIDTH, sum(heights)), dpi=144, layout="constrained")
        plt.close(whole)  # the caller shows it; pyplot shall not show it a second time
        spaces = whole.subfigures(len(panes), squeeze=False, height_ratios=heights)[:, 0]
        for space, (name, (title, _, draw)) in zip(spaces, panes, strict=True):
            space.suptitle(f"{name}{title}", x=0.01, ha="left", fontsize=10)
            draw(space)
    return whole


class Layout(NamedTuple):
    """Where the cells of one panel stand along its categorical axis: a position each, labels at `ticks`, which of them a seed's
    thin line joins, and `names` inside the panel of some. Rows that are `listed` run from top to bottom."""

    listed: bool
    positions: list[float]
    ticks: dict[float, str]
    joined: list[list[int]]
    names: dict[int, str]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Layout:
        """By the labels of the rows: numbers (Table 1a) become an ordinal axis; of "model, setting" (Table 1b) each setting is
        a tick, its models side by side and named in the last one; names (Tables 1c, 2) are listed."""
        rows = [cell.row for cell in cells]
        numbers = pd.to_numeric(np.array(rows), errors="coerce")
        if np.isfinite(numbers).all():
            order = np.argsort(numbers)
            positions = np.argsort(order).astype(float).tolist()
            return cls(False, positions, dict(zip(positions, rows)), [order.tolist()], {})
        if all(", " in row for row in rows):
            model_of, setting_of = zip(*(row.rsplit(", ", 1) for row in rows))
            models, settings = (list(dict.fromkeys(labels)) for labels in (model_of, setting_of))
            step, middle = 0.6 / len(models), (len(models) - 1) / 2
            positions = [settings.index(b) + step * (models.index(a) - middle) for a, b in zip(model_of, setting_of)]
            joined = _alike(setting_of)
            return cls(False, positions, dict(enumerate(settings)), joined, {index: model_of[index] for index in joined[-1]})
        joined = _alike([cell.baseline or cell.row for cell in cells])
        return cls(True, list(range(len(rows))), dict(enumerate(rows)), joined, {})


def _alike(labels: Sequence[str]) -> list[list[int]]:
    """The places of each label."""
    return [[index for index, label in enumerate(labels) if label == one] for one in dict.fromkeys(labels)]


def _values_pane(results: pd.DataFrame, cells: Sequence[Cell], metric: str) -> Pane:
    """One part's values: a panel a data set."""
    panels = groups(cells)
    # A panel with an upright axis is no wider than half the figure: two settings across all of it would be lost.
    across = min(ACROSS, max(len(panels), 1 if Layout.of(cells).listed else 2))
    down = math.ceil(len(panels) / across)

    def draw(space: SubFigure) -> None:
        grid = space.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for index, (axes, ((_, dataset), own)) in enumerate(zip(grid.flat, panels.items())):
            layout = Layout.of(own)
            _draw_samples(axes, layout, own, [values(results, cell, metric) for cell in own])
            axis, set_limits = (axes.yaxis, axes.set_ylim) if layout.listed else (axes.xaxis, axes.set_xlim)
            axis.set_ticks(list(layout.ticks), list(layout.ticks.values()))
            axis.grid(visible=False)
            ends = min(layout.positions) - 0.5, max(layout.positions) + 0.6
            set_limits(*(ends[::-1] if layout.listed else ends))
            axes.set_title(dataset, loc="left")
            if layout.listed:
                axes.set_xlabel(heading(metric))
                axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
                if index % across:
                    axes.set_yticklabels([])
            else:
                axes.set(ylabel=heading(metric), xlabel="" if layout.names else "λ, weight of the entropy loss (ordinal)")
                axes.margins(y=0.15)
            sns.despine(ax=axes, left=layout.listed)

    tallest = max(LINE * len(own) if Layout.of(own).listed else 2.0 for own in panels.values())
    what = f"{metric} of each seed (small, a thin line joins a seed) and mean with 95 % interval (large)"
    return what, 0.4 + down * (tallest + 0.75), draw


def _differences_pane(
    results: pd.DataFrame,
    by_dataset: dict[str, list[Contrast]],
    leads: Sequence[str],
    what: str = "difference from the baseline",
) -> Pane:
    """Differences paired by seed: a forest a metric, all over the same lines."""
    compared = {dataset: own for dataset, own in by_dataset.items() if own}
    lines: list[tuple[str, Contrast | None]] = []  # from top to bottom; the heading of a data set with several has no contrast
    for dataset, own in compared.items():
        several = [(dataset, None)] * (len(compared) > 1) + [(each.label, each) for each in own]
        lines += several if len(own) > 1 else [(dataset, own[0])]

    def draw(space: SubFigure) -> None:
        grid = space.subplots(1, len(leads), squeeze=False, sharey=True)[0]
        for axes, metric in zip(grid, leads, strict=True):
            for position, (_, contrast) in enumerate(lines):
                sample = () if contrast is None else paired_values(results, contrast.terms, metric=metric)
                if len(sample):
                    colour, fill = _colours(mean_interval(sample), metric)
                    _draw_sample(axes, sample, position, colour, fill)
            axes.axvline(0, color=INK, linewidth=1)
            axes.set_xlabel(heading(metric).replace("%", "points"))
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.yaxis.grid(visible=False)
            axes.tick_params(left=False)
            sns.despine(ax=axes, left=True)
        grid[0].set_yticks(range(len(lines)), [label for label, _ in lines])
        for tick, (_, contrast) in zip(grid[0].get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if contrast is None else "normal")
        grid[0].set_ylim(len(lines) - 0.4, -0.5)

    labels = {each.label for own in compared.values() for each in own}
    what = labels.pop() if len(labels) == 1 else what
    how = "paired by seed, 95 % interval: filled if it excludes 0, blue if better, orange if worse"
    return f"{what}, {how}", 0.95 + LINE * len(lines), draw


def _colours(difference: Interval, metric: str) -> tuple[str, str]:
    """(colour, filling): filled if the interval decides, and coloured if one direction of the metric is better."""
    if not (difference.low > 0 or difference.high < 0):
        return INK, "none"
    better = metrics.metric(metric).better
    colour = INK if better is None else ACCENT if (difference.low > 0) == (better == "higher") else BELOW
    return colour, colour


def _draw_samples(axes: Axes, layout: Layout, cells: Sequence[Cell], samples: Sequence[pd.Series]) -> None:
    """Per cell its seeds as points, joined across cells by thin lines, and the mean with its interval."""
    for order in layout.joined:
        together = pd.concat({layout.positions[index] + BESIDE[layout.listed]: samples[index] for index in order}, axis=1)
        for _, seed in together.iterrows():
            axes.plot(*_oriented(seed, seed.index, layout.listed), color=INK, linewidth=0.6, alpha=0.45, zorder=1)
    for index, (cell, position, sample) in enumerate(zip(cells, layout.positions, samples, strict=True)):
        if len(sample):
            colour = INK if cell.baseline is None else ACCENT
            top = _draw_sample(axes, sample, position, colour, colour, listed=layout.listed)
            if index in layout.names:
                axes.annotate(layout.names[index], (position, top), (0, 4), textcoords="offset points", ha="center")


def _draw_sample(axes: Axes, sample: pd.Series, position: float, colour: str, fill: str, *, listed: bool = True) -> float:
    """The mean with its interval, and beside it the seeds; values run along x in a list. Returns the largest value drawn."""
    interval = mean_interval(sample)
    seeds = _oriented(sample, [position + BESIDE[listed]] * len(sample), listed)
    axes.scatter(*seeds, color=colour, s=13, alpha=0.7, linewidth=0, zorder=2)
    error = {} if interval.n < 2 else {"xerr" if listed else "yerr": interval.half_width}
    look = {"color": colour, "markerfacecolor": fill, "fmt": "D", "markersize": 5, "elinewidth": 2.2, "zorder": 3}
    axes.errorbar(*_oriented([interval.mean], [position], listed), **error, **look)
    return float(np.nanmax([*sample, interval.high]))


def _oriented(values: Sequence[float], positions: Sequence[float], listed: bool) -> tuple[Sequence[float], Sequence[float]]:
    return (values, positions) if listed else (positions, values)
