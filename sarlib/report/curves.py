"""Accuracy against epochs: the curves of Figure 3, and how many epochs a row needs to reach the baseline's final accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from sarlib.report.cells import Cell, Experiment, groups, values
from sarlib.report.notation import GAP
from sarlib.report.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EpochCell(Cell, Protocol):
    """A place of a table that shows a row after an `epoch`; its `row` ends in ", epoch <number>"."""

    epoch: int


def rows(cells: Sequence[EpochCell]) -> dict[str, list[EpochCell]]:
    """The cells of each row, in the order of epochs, under the row's name without its epoch."""
    found: dict[str, list[EpochCell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.epoch):
        found.setdefault(cell.row.removesuffix(f", epoch {cell.epoch}"), []).append(cell)
    return found


def epochs_to_reach(results: pd.DataFrame, experiment: Experiment, *, metric: str = "top1") -> pd.DataFrame:
    """After how many epochs each row first is where the baseline of the same seed ends, by straight lines between the evaluations.

    One line a data set and row: `n` seeds, `reached` (how many of them get there at all), `epochs` (mean and 95 % interval over those that
    do) and `share` of the whole training. A row that starts above counts from its first evaluation.
    """
    lines = []
    for (_, dataset), cells in groups(experiment.cells).items():
        curves = {name: _frame(results, own, metric) for name, own in rows(cells).items()}
        baseline = next(name for name, own in rows(cells).items() if own[0].baseline is None)
        goals = curves[baseline].iloc[:, -1]
        for name, curve in curves.items():
            needed = [_first_at(curve.loc[seed], goals[seed]) for seed in curve.index.intersection(goals.index)]
            reached = mean_interval([epoch for epoch in needed if not math.isnan(epoch)])
            told = GAP if not reached.n else f"{reached.mean:.1f}" + (f" ± {reached.half_width:.1f}" if reached.n > 1 else "")
            share = GAP if not reached.n else f"{100 * reached.mean / curve.columns[-1]:.0f} %"
            lines.append(
                {"dataset": dataset, "row": name, "n": len(needed), "reached": reached.n, "epochs": told, "share": share}
            )
    return pd.DataFrame(lines).set_index(["dataset", "row"])


def figure(results: pd.DataFrame, experiment: Experiment, *, metric: str = "top1") -> Figure:
    """A panel a data set: each row's mean over seeds with its 95 % interval against epochs; dashed, where the baseline ends."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    from sarlib.report.figures import ACCENT, BELOW, INK, STYLE, WIDTH
    from sarlib.report.notation import heading

    panels = groups(experiment.cells)
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        whole, grid = plt.subplots(
            len(panels), 1, figsize=(WIDTH, 3.2 * len(panels)), dpi=144, layout="constrained", squeeze=False
        )
        plt.close(whole)
        for axes, ((_, dataset), cells) in zip(grid[:, 0], panels.items(), strict=True):
            drawn = list(_means(results, rows(cells), metric))
            marks, colours = ("o", "s", "D", "^"), (INK, BELOW, ACCENT, "#8a6fc4")
            for (name, epochs, means, low, high), mark, colour in zip(drawn, marks, colours, strict=False):
                axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(epochs, means, color=colour, marker=mark, markersize=5, label=name)
            if drawn:
                axes.axhline(drawn[0][2][-1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
                axes.set_xticks(drawn[0][1])
            axes.set_title(dataset, loc="left")
            axes.set_xlabel("epochs")
            axes.set_ylabel(heading(results, metric))
            axes.legend(frameon=False, labelcolor=INK, loc="lower right")
            sns.despine(ax=axes)
    return whole


def _means(
    results: pd.DataFrame, by_row: dict[str, list[EpochCell]], metric: str
) -> Iterator[tuple[str, list[int], list[float], list[float], list[float]]]:
    """(row, epochs, means, lower and upper ends of the intervals); rows without results are left out."""
    for name, cells in by_row.items():
        intervals = {cell.epoch: mean_interval(values(results, cell, metric)) for cell in cells}
        known = {epoch: interval for epoch, interval in intervals.items() if interval.n}
        if known:
            ends = [(interval.low, interval.high) if interval.n > 1 else (interval.mean,) * 2 for interval in known.values()]
            yield (
                name,
                list(known),
                [interval.mean for interval in known.values()],
                [end[0] for end in ends],
                [end[1] for end in ends],
            )


def _frame(results: pd.DataFrame, cells: Sequence[EpochCell], metric: str) -> pd.DataFrame:
    """The metric of a row by seed (index) and epoch (columns); seeds that lack a value are left out."""
    return pd.concat({cell.epoch: values(results, cell, metric) for cell in cells}, axis=1).dropna()


def _first_at(curve: pd.Series, goal: float) -> float:
    """The epoch at which the broken line through `curve` (by epoch) first is at `goal`; NaN if it never is."""
    epochs, heights = np.asarray(curve.index, dtype=float), np.asarray(curve, dtype=float)
    above = np.flatnonzero(heights >= goal)
    if not len(above):
        return math.nan
    i = above[0]
    if i == 0:
        return float(epochs[0])
    return float(epochs[i - 1] + (goal - heights[i - 1]) / (heights[i] - heights[i - 1]) * (epochs[i] - epochs[i - 1]))
