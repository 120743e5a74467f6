"""How errors grow with the severity of each corruption, drawn from stored measurements: no weights are needed."""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure, SubFigure

from sarlib.config import require
from sarlib.data.released import CLEAN
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.report.figures import ACCENT, BELOW, INK, STYLE, WIDTH
from sarlib.report.statistics import groups, mean_interval
from sarlib.runner.store import Store

ACROSS = 4


def severities(experiment: Experiment, *, store: Store) -> Figure:
    """By data set the error in % of each row, a panel a corruption and one for their mean: the mean over the seeds that are in
    the `store` and its 95 % interval against severity, 0 being the images as they are.

    `ConfigError` where the table measures no corruptions, or none of them is in the store.
    """
    cells = [cell for cell in experiment.cells if cell.measurement and cell.measurement.name == "corrupted"]
    errors = {
        dataset: {cell.row: _errors(cell, experiment, store) for cell in own} for (_, dataset), own in groups(cells).items()
    }
    require(bool(errors), f"{experiment.name} measures no corruptions")
    heights = [0.6 + 1.9 * math.ceil(len(next(iter(rows.values()))) / ACROSS) for rows in errors.values()]
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        whole = plt.figure(figsize=(WIDTH, sum(heights)), dpi=144, layout="constrained")
        plt.close(whole)
        spaces = whole.subfigures(len(errors), squeeze=False, height_ratios=heights)[:, 0]
        for space, (dataset, rows) in zip(spaces, errors.items(), strict=True):
            space.suptitle(dataset, x=0.01, ha="left", fontsize=10)
            _draw(space, rows)
    return whole


def _draw(space: SubFigure, rows: dict[str, dict[str, pd.DataFrame]]) -> None:
    panels = list(next(iter(rows.values())))
    grid = space.subplots(math.ceil(len(panels) / ACROSS), ACROSS, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid.flat, panels):
        for (row, errors), colour, mark in zip(rows.items(), itertools.cycle((INK, BELOW, ACCENT)), itertools.cycle("osD")):
            intervals = errors[panel].apply(mean_interval)
            look = {"color": colour, "marker": mark, "markersize": 3.5, "label": row}
            axes.plot(intervals.index, [each.mean for each in intervals], **look)
            ends = ([getattr(each, end) for each in intervals] for end in ("low", "high"))
            axes.fill_between(intervals.index, *ends, color=colour, alpha=0.15, linewidth=0)
        axes.set_xticks(errors[panel].columns)
        axes.set_title(panel.replace("_", " "), loc="left")
        sns.despine(ax=axes)
    known = grid.flat[0].get_legend_handles_labels()
    space.legend(*known, loc="upper right", ncols=len(rows), frameon=False, labelcolor=INK)
    space.supxlabel("severity", fontsize=9)
    space.supylabel("error (%)", fontsize=9)


def _errors(cell: Cell, experiment: Experiment, store: Store) -> dict[str, pd.DataFrame]:
    """By corruption, and of all of them "mean": a line a seed, a column a severity."""
    found = [store.read_measured(cell.with_seed(seed), cell.measurement) for seed in experiment.seeds]
    arrays = [each["arrays"] for each in found if each is not None]
    require(bool(arrays), f"no errors of {cell.row} on corrupted images are in {store.root}: run the table first")
    clean = np.array([each.get(CLEAN, []) for each in arrays])  # none at ImageNet-C
    errors = {name: np.hstack([clean, [each[name] for each in arrays]]) for name in arrays[0] if name != CLEAN}
    errors = {"mean": np.mean(list(errors.values()), axis=0)} | errors
    return {name: pd.DataFrame(values, columns=range(1 - clean.shape[1], 6)) for name, values in errors.items()}
