"""A table as a picture: every seed, the mean with its 95 % interval, and the paired differences from the baseline.

The only module that imports seaborn. Figures have no background of their own and are drawn in tones of middle lightness, so
that one file reads on a light page and on a dark one. Colour only repeats what position and marker already say. How a table is
laid out follows from the labels of its rows: numbers (Table 1a) become an ordinal axis, "model, setting" (Table 1b) is grouped
by setting, names (Tables 1c, 2) are listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from sarlib.config import ConfigError
from sarlib.report.cells import Cell, Experiment, groups, paired, present, values
from sarlib.report.notation import heading
from sarlib.report.statistics import mean_interval

# The ids inside an SVG are salted hashes; a fixed salt gives equal figures equal bytes.
matplotlib.rcParams["svg.hashsalt"] = "sarlib"

INK = "#7b7f86"  # text, axes and baselines: contrast 4:1 on white and on the book's dark page alike
# Blue and vermilion of seaborn's "colorblind" palette; the blue lifted until it stands out on the dark page.
ACCENT, BELOW = "#2b8ac9", matplotlib.colors.to_hex(sns.color_palette("colorblind")[3])
STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
WIDTH = 9.0  # inches
ACROSS = 3  # data sets side by side
LINE = 0.3  # inches a listed row takes
NUMBERED_AXIS = "λ, weight of the entropy loss (ordinal)"


def figure(results: pd.DataFrame, experiment: Experiment, *, table: str | None = None) -> Figure:
    """Top-1 of each cell by data set, and below it each metric's paired differences from the baseline, for every part of the
    table or for one (`table`, such as "table1c"). Cells without results stay empty. `ConfigError` for a part that the table
    does not have.
    """
    parts = list(dict.fromkeys(cell.table for cell in experiment.cells))
    if table is not None and table not in parts:
        raise ConfigError(f"{experiment.name} has no part {table!r}; choose from {', '.join(parts)}")
    sections = [section for part in parts if table in (None, part) for section in _sections(results, experiment, part)]
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        whole = plt.figure(figsize=(WIDTH, sum(section.height for section in sections)), dpi=144, layout="constrained")
        plt.close(whole)  # the caller shows it; pyplot shall not show it a second time
        panes = whole.subfigures(len(sections), squeeze=False, height_ratios=[section.height for section in sections])
        for pane, section in zip(panes[:, 0], sections, strict=True):
            pane.suptitle(section.title, x=0.01, ha="left", fontsize=10)
            section.draw(pane, results)
    return whole


@dataclass(frozen=True)
class Layout:
    """Where the cells of one panel stand along its categorical axis: a position and a colour each, labels at `ticks`, and which
    of them a seed's thin line joins."""

    horizontal: bool
    positions: list[float]
    colours: list[str]
    ticks: dict[float, str]
    joined: list[list[int]]
    names: dict[int, str]  # cells that carry a label of their own inside the panel

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Layout:
        rows = [cell.row for cell in cells]
        colours = [INK if cell.baseline is None else ACCENT for cell in cells]
        if all(map(_is_number, rows)):
            order = sorted(range(len(rows)), key=lambda index: float(rows[index]))
            positions = [float(order.index(index)) for index in range(len(rows))]
            ticks = dict(zip(positions, rows, strict=True))
            return cls(horizontal=False, positions=positions, colours=colours, ticks=ticks, joined=[order], names={})
        if all(", " in row for row in rows):
            return cls._grouped([row.rsplit(", ", 1) for row in rows], colours)
        positions = [float(index) for index in range(len(rows))]
        ticks = dict(zip(positions, rows, strict=True))
        compared: dict[str, list[int]] = {}  # by the baseline: itself and the rows that are compared with it
        for index, cell in enumerate(cells):
            compared.setdefault(cell.baseline or cell.row, []).append(index)
        joined = list(compared.values())
        return cls(horizontal=True, positions=positions, colours=colours, ticks=ticks, joined=joined, names={})

    @classmethod
    def _grouped(cls, labels: Sequence[Sequence[str]], colours: list[str]) -> Layout:
        """`labels` are (model, setting): a tick a setting, its models side by side and named in the last one."""
        models = list(dict.fromkeys(model for model, _ in labels))
        settings = list(dict.fromkeys(setting for _, setting in labels))
        step = 0.6 / len(models)
        positions = [
            settings.index(setting) + step * (models.index(model) - (len(models) - 1) / 2) for model, setting in labels
        ]
        joined = [[index for index, label in enumerate(labels) if label[1] == setting] for setting in settings]
        names = {index: labels[index][0] for index in joined[-1]}
        ticks = {float(index): setting for index, setting in enumerate(settings)}
        return cls(horizontal=False, positions=positions, colours=colours, ticks=ticks, joined=joined, names=names)

    def draw_axis(self, axes: Axes) -> None:
        """Ticks and limits of the categorical axis; listed rows run from top to bottom."""
        axis, set_limits = (axes.yaxis, axes.set_ylim) if self.horizontal else (axes.xaxis, axes.set_xlim)
        axis.set_ticks(list(self.ticks), list(self.ticks.values()))
        axis.grid(visible=False)
        low, high = min(self.positions) - 0.5, max(self.positions) + 0.6
        set_limits(*((high, low) if self.horizontal else (low, high)))


@dataclass(frozen=True)
class ValuesSection:
    """One part's top-1: a panel a data set."""

    part: str
    cells: list[Cell]
    metric: str = "top1"

    @property
    def title(self) -> str:
        what = "of each seed (small, a thin line joins a seed) and mean with 95 % interval (large)"
        return f"{_spoken(self.part)}: {self.metric} {what}"

    @property
    def height(self) -> float:
        panels = groups(self.cells)
        listed = max(LINE * len(cells) if Layout.of(cells).horizontal else 2.0 for cells in panels.values())
        return 0.4 + math.ceil(len(panels) / ACROSS) * (listed + 0.75)

    def draw(self, pane: SubFigure, results: pd.DataFrame) -> None:
        panels = groups(self.cells)
        # A panel with an upright axis is no wider than half the figure: two settings across all of it would be lost.
        across = min(ACROSS, max(len(panels), 1 if Layout.of(self.cells).horizontal else 2))
        grid = pane.subplots(math.ceil(len(panels) / across), across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for index, (axes, ((_, dataset), cells)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
            axes.set_title(dataset, loc="left")
            layout = Layout.of(cells)
            draw_samples(axes, layout, [values(results, cell, self.metric) for cell in cells])
            layout.draw_axis(axes)
            if layout.horizontal:
                axes.set_xlabel(heading(results, self.metric))
                axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
                if index % across:
                    axes.set_yticklabels([])
            else:
                axes.set_ylabel(heading(results, self.metric))
                axes.set_xlabel("" if layout.names else NUMBERED_AXIS)
                axes.margins(y=0.15)
            sns.despine(ax=axes, left=layout.horizontal)


@dataclass(frozen=True)
class DifferencesSection:
    """One part's differences from the baseline, paired by seed: a forest a metric, all over the same lines."""

    part: str
    cells: list[Cell]
    metrics: list[str]

    @property
    def title(self) -> str:
        comparisons = {_comparison(cell) for cell in self.cells}
        what = comparisons.pop() if len(comparisons) == 1 else "difference from the baseline"
        return f"{_spoken(self.part)}: {what}, paired by seed, with 95 % interval; hollow where it includes 0"

    @property
    def height(self) -> float:
        return 0.95 + LINE * len(self._lines())

    def _lines(self) -> list[tuple[str, Cell | None]]:
        """(label, cell) from top to bottom: the data set where it has one comparison; where it has several, they stand under a
        heading that has no cell. The comparison that all lines share is in the title."""
        lines: list[tuple[str, Cell | None]] = []
        panels = groups(self.cells)
        for (_, dataset), cells in panels.items():
            if len(cells) == 1:
                lines.append((dataset, cells[0]))
                continue
            if len(panels) > 1:
                lines.append((dataset, None))
            lines += [(_comparison(cell), cell) for cell in cells]
        return lines

    def draw(self, pane: SubFigure, results: pd.DataFrame) -> None:
        lines = self._lines()
        grid = pane.subplots(1, len(self.metrics), squeeze=False, sharey=True)[0]
        for axes, metric in zip(grid, self.metrics, strict=True):
            samples = {id(cell): sample for cell, _, sample in paired(results, self.cells, [metric])}
            for position, (_, cell) in enumerate(lines):
                if id(cell) in samples:
                    draw_difference(axes, float(position), samples[id(cell)])
            axes.axvline(0, color=INK, linewidth=1)
            axes.set_xlabel(heading(results, metric).replace("%", "points"))
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.yaxis.grid(visible=False)
            axes.tick_params(left=False)
            sns.despine(ax=axes, left=True)
        grid[0].set_yticks(range(len(lines)), [label for label, _ in lines])
        for tick, (_, cell) in zip(grid[0].get_yticklabels(), lines, strict=True):
            tick.set_fontweight("bold" if cell is None else "normal")
        grid[0].set_ylim(len(lines) - 0.4, -0.5)


def _sections(results: pd.DataFrame, experiment: Experiment, part: str) -> list[ValuesSection | DifferencesSection]:
    cells = [cell for cell in experiment.cells if cell.table == part]
    compared = [cell for cell in cells if cell.baseline is not None]
    metrics = present(results)
    forests = [DifferencesSection(part, compared, metrics)] if compared and metrics else []
    return [ValuesSection(part, cells), *forests]


def draw_samples(axes: Axes, layout: Layout, samples: Sequence[pd.Series]) -> None:
    """Per cell its seeds as points, joined across cells by thin lines, and the mean with its interval."""

    def oriented(along: Sequence[float], across: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
        return (across, along) if layout.horizontal else (along, across)

    beside = 0.22 if layout.horizontal else 0.1  # seeds stand beside their mean, so that neither hides the other
    for order in layout.joined:
        together = pd.concat({layout.positions[index] + beside: samples[index] for index in order}, axis=1)
        for _, seed in together.iterrows():
            axes.plot(*oriented(list(seed.index), list(seed)), color=INK, linewidth=0.6, alpha=0.45, zorder=1)
    for index, (position, colour, sample) in enumerate(zip(layout.positions, layout.colours, samples, strict=True)):
        if len(sample) == 0:
            continue
        x, y = oriented([position + beside] * len(sample), list(sample))
        sns.scatterplot(x=x, y=y, ax=axes, color=colour, s=14, alpha=0.7, linewidth=0, zorder=2)
        interval = mean_interval(sample)
        x, y = oriented([position], [interval.mean])
        error = {} if interval.n < 2 else {"xerr" if layout.horizontal else "yerr": interval.half_width}
        axes.errorbar(x, y, **error, color=colour, fmt="D", markersize=5, elinewidth=2.2, zorder=3)
        if index in layout.names:
            top = (position, max([*sample, *([interval.high] if interval.n > 1 else [])]))
            axes.annotate(layout.names[index], top, xytext=(0, 4), textcoords="offset points", color=colour, ha="center")


def draw_difference(axes: Axes, position: float, sample: pd.Series) -> None:
    """One line of a forest: mean difference with its interval, under it the seeds. Coloured and filled if that decides."""
    interval = mean_interval(sample)
    colour = ACCENT if interval.low > 0 else BELOW if interval.high < 0 else INK
    fill = colour if colour != INK else "none"
    sns.scatterplot(
        x=list(sample), y=[position + 0.25] * len(sample), ax=axes, color=colour, s=12, alpha=0.7, linewidth=0, zorder=2
    )
    error = {} if interval.n < 2 else {"xerr": interval.half_width}
    axes.errorbar(
        [interval.mean],
        [position],
        **error,
        color=colour,
        fmt="D",
        markersize=5,
        markerfacecolor=fill,
        elinewidth=2.2,
        zorder=3,
    )


def _comparison(cell: Cell) -> str:
    return f"{cell.row} − {cell.baseline}"


def _spoken(part: str) -> str:
    return part.replace("table", "Table ")


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
