"""What SAR gains against the size of the network, and differences in words for a page without claims."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import ACCENT, BELOW, INK, drawing
from sarlib.report.notation import bounds, heading, number
from sarlib.report.statistics import from_baselines, mean_interval, paired_values, part, values


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


def learned(results: pd.DataFrame, experiment: Experiment, *, metric: str = "top1") -> pd.DataFrame:
    """What its interval alone says of every difference, from a baseline or as named in the declaration."""
    lines = []
    for contrast in (*from_baselines(experiment.cells), *experiment.contrasts):
        interval = mean_interval(paired_values(results, contrast.terms, metric=metric))
        said = "above 0" if interval.low > 0 else "below 0" if interval.high < 0 else "not settled"
        if interval.n:
            found = f"{number(interval.mean, metric, '+')} {bounds(interval, metric)}"
            lines.append(
                (*contrast.terms[0][1::2], contrast.label, interval.n, found, said if interval.n > 2 else "too few seeds")
            )
    return pd.DataFrame(lines, columns=["table", "dataset", "difference", "n", heading(metric), "learned"])
