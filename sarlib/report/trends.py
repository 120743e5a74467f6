"""Figures of something against something: metrics and gradients against epochs, errors against severity, gains against size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sarlib.config import require
from sarlib.data.released import CLEAN
from sarlib.experiments.declaration import Experiment
from sarlib.report.checks import LOSS
from sarlib.report.figures import ACCENT, BELOW, INK, STYLE, WIDTH, drawing
from sarlib.report.notation import heading
from sarlib.report.statistics import (
    arrays,
    by_epoch,
    from_baselines,
    groups,
    mean_interval,
    paired_values,
    part,
    values,
)
from sarlib.run import Run
from sarlib.runner.store import Store

#: Looks of the rows of a panel, in turn: twenty different ones, as the two numbers have no factor in common.
COLOURS, MARKS = (INK, BELOW, ACCENT, "#8a6fc4"), "osD^v"


def curves(results: pd.DataFrame, experiment: Experiment, *, metric: str | None = None) -> Figure:
    """A panel a data set: each row's mean over seeds with its 95 % interval against epochs; dashed, where the baseline ends."""
    metric, panels = metric or experiment.leads[0], groups(experiment.cells)
    with drawing(len(panels), 1, size=(WIDTH, 3.2 * len(panels)), lines=True) as (whole, grid):
        for axes, ((_, dataset), cells) in zip(grid[:, 0], panels.items(), strict=True):
            looks = zip(itertools.cycle(MARKS), itertools.cycle(COLOURS))
            for (name, own), (mark, colour) in zip(by_epoch(results, cells, metric).items(), looks):
                curve = own.melt(var_name="epoch").dropna()
                if len(curve):
                    look = {"color": colour, "marker": mark, "markeredgewidth": 0, "err_kws": {"alpha": 0.15, "linewidth": 0}}
                    sns.lineplot(curve, x="epoch", y="value", errorbar=_ends, label=name, legend=False, ax=axes, **look)
            if lines := axes.get_lines():
                axes.axhline(lines[0].get_ydata()[-1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
                axes.set_xticks(lines[0].get_xdata())
                axes.legend(frameon=False, labelcolor=INK, loc="lower right")
            axes.set_title(dataset, loc="left")
            axes.set(xlabel="epochs", ylabel=heading(metric))
            sns.despine(ax=axes)
    return whole


def _ends(sample: pd.Series) -> tuple[float, float]:
    """Of the sample's 95 % interval."""
    interval = mean_interval(sample)
    return interval.low, interval.high


def gradients(experiment: Experiment, *, store: Store, table: str | None = None) -> Figure:
    """How strongly SAR's loss pulls over training, a panel a data set: the gradient of the weighted loss over the task's, both
    on the last block's query and key rows, in the first step of each epoch; geometric means over seeds.

    Of the whole table or of one part, from the histories in the `store`; runs that it lacks are left out.
    """
    cells = [cell for cell in part(experiment, table) if cell.shows_training and cell.run.regularizers[:1]]
    panels = groups([cell for cell in cells if cell.run.regularizers[0].name == LOSS])
    down = max(1, len(panels))
    with drawing(down, 1, size=(WIDTH, 2.6 * down), lines=True) as (whole, grid):
        for axes, ((name, dataset), own) in zip(grid[:, 0], panels.items()):
            for cell, colour in zip(own, sns.color_palette("viridis", len(own))):
                ratios = [_ratio(store, cell.with_seed(seed)) for seed in experiment.seeds]
                if ratios := [ratio for ratio in ratios if ratio is not None]:
                    mean = 10 ** pd.concat(ratios, axis=1).mean(axis=1)
                    axes.plot(mean.index, mean, color=colour, marker=".", markersize=4, label=cell.row)
            axes.set(title=f"{name}: {dataset}", xlabel="epoch", ylabel="gradient of λ · loss / of the task's", yscale="log")
            axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            if axes.get_legend_handles_labels()[1]:
                axes.legend(frameon=False, labelcolor=INK, ncols=2)
            sns.despine(ax=axes)
    return whole


def _ratio(store: Store, run: Run) -> pd.Series | None:
    """log10 of the ratio by epoch, where both gradients and the weight are above 0; None for a run that is not finished."""
    try:
        history = store.history(run)
    except FileNotFoundError:
        return None
    wide = history[history["split"] == "train"].pivot(index="epoch", columns="metric", values="value")
    ratio = wide["weight"] * wide["gradient_regularizer"] / wide["gradient_task"]
    return ratio[ratio > 0].map(math.log10)


def severities(experiment: Experiment, *, store: Store) -> Figure:
    """The error in % of each row against severity, 0 being the images as they are: a panel for the mean over corruptions and
    one for each, the mean over seeds with its 95 % interval. `ConfigError` where the table has not been measured.
    """
    lines = pd.DataFrame(_errors(experiment, store))
    require(len(lines) > 0, f"{experiment.name} measures no corruptions")
    mean = lines.groupby(["dataset", "row", "seed", "severity"], sort=False, as_index=False)["error (%)"].mean()
    shown = pd.concat([mean.assign(corruption="mean of all"), lines])
    shown["panel"] = shown["dataset"] + "\n" + shown["corruption"].str.replace("_", " ")
    order = [
        panel for dataset in lines["dataset"].unique() for panel in shown.loc[shown["dataset"] == dataset, "panel"].unique()
    ]
    look = {"dashes": False, "markeredgewidth": 0, "err_kws": {"alpha": 0.15, "linewidth": 0}}
    rows = lines["row"].nunique()
    look |= {"palette": COLOURS[:rows], "markers": tuple(MARKS[:rows])}
    places = {"x": "severity", "y": "error (%)", "hue": "row", "style": "row", "col": "panel", "col_order": order}
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE | {"figure.dpi": 144}):
        grid = sns.relplot(shown, kind="line", **places, **look, col_wrap=4, height=1.9, aspect=1.1, errorbar=_ends)
        plt.close(grid.figure)  # the caller shows it; pyplot shall not show it a second time
        grid.set(xticks=sorted(shown["severity"].unique()), title="")
        for axes, panel in zip(grid.axes.flat, order, strict=True):
            axes.set_title(panel, loc="left")
    return grid.figure


def _errors(experiment: Experiment, store: Store) -> Iterator[dict[str, Any]]:
    declared = [cell for cell in experiment.cells if cell.measurement and cell.measurement.name == "corrupted"]
    for cell, seed in ((cell, seed) for cell in declared for seed in experiment.seeds):
        found = arrays(store, cell.with_seed(seed), cell.measurement, what=f"errors of {cell.row}, seed {seed},")
        clean = found.pop(CLEAN, [])  # not known of ImageNet-C
        for name, errors in found.items():
            for severity, error in enumerate([*clean, *errors], start=1 - len(clean)):
                place = {"dataset": cell.dataset, "row": cell.row, "seed": seed, "corruption": name}
                yield place | {"severity": severity, "error (%)": error}


def gains(results: pd.DataFrame, experiment: Experiment, *, table: str, metric: str = "top1") -> Figure:
    """Differences from the baselines of one part of the table, against the baseline's millions of parameters (log axis): every
    seed, mean and 95 % interval, blue where it lies above 0, vermilion below. Cells without results stay empty."""
    cells = part(experiment, table)
    baselines = {cell.row: cell for cell in cells if cell.baseline is None}
    with drawing(1, 1, size=(5.5, 3.2), lines=True) as (whole, [[axes]]):
        samples = {each.terms: paired_values(results, each.terms, metric=metric) for each in from_baselines(cells)}
        for terms, sample in ((terms, sample) for terms, sample in samples.items() if len(sample)):
            size = values(results, baselines[terms[1][2]], "parameters").iloc[0]
            interval = mean_interval(sample)
            colour = ACCENT if interval.low > 0 else BELOW if interval.high < 0 else INK
            axes.scatter([1.04 * size] * len(sample), sample, s=13, color=colour, alpha=0.7, linewidth=0)
            error = interval.half_width if interval.n > 1 else None
            axes.errorbar([size], [interval.mean], yerr=error, fmt="D", markersize=5, color=colour, elinewidth=2.2)
            axes.annotate(terms[1][2], (size, interval.mean), (8, 6), textcoords="offset points")
        axes.axhline(0, color=INK, linewidth=1)
        axes.set(xscale="log", xlabel=heading("parameters"), ylabel=f"gain, {heading(metric).replace('%', 'points')}")
        axes.margins(x=0.3, y=0.15)
        sns.despine(ax=axes)
    return whole
