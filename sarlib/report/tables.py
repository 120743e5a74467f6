"""The table and its differences, from the baseline and those that the declaration names: as frames, and for a terminal."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from sarlib.experiments.claims import Contrast
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.report.checks import unlearned
from sarlib.report.judgement import verdicts
from sarlib.report.notation import GAP, bounds, encodable, heading, number, plus_minus
from sarlib.report.statistics import (
    by_epoch,
    from_baselines,
    groups,
    leading,
    mean_interval,
    paired_values,
    part,
    values,
)
from sarlib.tasks import metrics as known

#: What is shown of a difference: to read, or exact.
_SHOWN = {False: ("n", "difference", "p_text"), True: ("n", "mean", "low", "high", "p", "per_seed")}
WIDTH = 100  # columns of a terminal
NARROWEST = 16  # columns that a label has there at least
Metrics = Sequence[str] | None


def table(results: pd.DataFrame, experiment: Experiment, *, table: str | None = None) -> pd.DataFrame:
    """Every metric of the model: its mean ± half-width of its 95 % interval as text, one line a cell in the order of the
    declaration, of the whole table or of one part (`table`, such as "table1c").

    Index (table, dataset, row), columns `n` (seeds) and one per metric with its unit. A metric that failed on some seeds says
    on how many its mean stands; a single seed has no ±; a cell without results shows gaps.
    """
    cells = part(experiment, table)
    left_out = {*itertools.chain(*known.REFERENCES.values()), *known.MACHINE_METRICS} - set(experiment.shown)
    there = results.loc[results["table"].isin({cell.table for cell in cells}), "metric"].unique()
    leads = [name for name in experiment.leads if name in there]
    metrics = [*leads, *(name for name in there if name not in left_out and name not in leads)]
    lines = []
    for cell in cells:
        intervals = {metric: mean_interval(values(results, cell, metric)) for metric in metrics}
        n = max((interval.n for interval in intervals.values()), default=0)
        line = {"table": cell.table, "dataset": cell.dataset, "row": cell.row, "n": n}
        lines.append(line | {heading(metric): plus_minus(intervals[metric], metric, n=n) for metric in metrics})
    return pd.DataFrame(lines).set_index(["table", "dataset", "row"])


def differences(results: pd.DataFrame, experiment: Experiment, metric: Metrics = None, *, exact: bool = False) -> pd.DataFrame:
    """Each cell minus its baseline, paired by seed, for each `metric` (default: what the table leads with) that both have.

    Columns table, dataset, row, baseline, metric, n (seeds), and as text difference (mean ± half-width of its 95 % interval)
    and p (two-sided). `exact`: the numbers mean, low, high and p instead, and every seed's difference as text.
    """
    compared = _compared(results, experiment, from_baselines(experiment.cells), metric)
    return compared[["table", "dataset", "row", "baseline", "metric", *_SHOWN[exact]]].rename(columns={"p_text": "p"})


def contrasts(results: pd.DataFrame, experiment: Experiment, metric: Metrics = None, *, exact: bool = False) -> pd.DataFrame:
    """The differences that the declaration names, each under its label `contrast`; otherwise as `differences`."""
    compared = _compared(results, experiment, experiment.contrasts, metric)
    return compared[["table", "dataset", "contrast", "metric", *_SHOWN[exact]]].rename(columns={"p_text": "p"})


def _compared(results: pd.DataFrame, experiment: Experiment, named: Iterable[Contrast], metric: Metrics = None) -> pd.DataFrame:
    """One line for each metric of each contrast that has values, with all that is shown of a difference."""
    lines = []
    for contrast in named:
        _, tables, rows, sets = zip(*contrast.terms, strict=True)
        place = {"table": " and ".join(dict.fromkeys(tables)), "dataset": " and ".join(dict.fromkeys(sets))}
        place |= {"contrast": contrast.label, "row": rows[0], "baseline": rows[-1]}
        cells = [cell for cell in experiment.cells if (cell.table, cell.row, cell.dataset) == contrast.terms[0][1:]]
        names = metric or leading(results, experiment, cells)
        samples = {name: paired_values(results, contrast.terms, metric=name) for name in names}
        for name, sample in samples.items():
            if len(sample):
                interval = mean_interval(sample)
                line = {"difference": plus_minus(interval, name, n=max(map(len, samples.values())), difference=True)}
                line |= {"p_text": GAP if math.isnan(interval.p) else f"{interval.p:.2g}"}
                line |= {"per_seed": " ".join(number(one, name, "+") for one in sample)}
                lines.append(place | {"metric": name} | vars(interval) | line)
    names = ["table", "dataset", "row", "baseline", "contrast", "metric"]
    return pd.DataFrame(lines, columns=[*names, *dict.fromkeys((*_SHOWN[True], *_SHOWN[False]))])


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


def epochs_to_reach(results: pd.DataFrame, experiment: Experiment, *, metric: str | None = None) -> pd.DataFrame:
    """After how many epochs each row first is where the baseline of the same seed ends, by straight lines between evaluations.

    One line a data set and row: `n` seeds, `reached` (how many of them get there at all), `epochs` (mean and 95 % interval over
    those that do) and `share` of the whole training. A row that starts above counts from its first evaluation. `metric`: by
    default the one that the table leads with; where less is better, a row gets there from above.
    """
    metric = metric or experiment.leads[0]
    sign = -1 if known.metric(metric).better == "lower" else 1
    lines = []
    for (_, dataset), cells in groups(experiment.cells).items():
        heights = {name: sign * own.dropna() for name, own in by_epoch(results, cells, metric).items()}
        baseline = next(cell for cell in cells if cell.baseline is None)
        goals = heights[baseline.row.removesuffix(f", epoch {baseline.epoch}")].iloc[:, -1]
        for name, curve in heights.items():
            needed = [_first_at(curve.loc[seed], goals[seed]) for seed in curve.index.intersection(goals.index)]
            reached = mean_interval(needed)
            line = {"dataset": dataset, "row": name, "n": len(needed), "reached": reached.n, "epochs": GAP, "share": GAP}
            if reached.n:
                line["epochs"] = f"{reached.mean:.1f}" + (f" ± {reached.half_width:.1f}" if reached.n > 1 else "")
                line["share"] = f"{100 * reached.mean / curve.columns[-1]:.0f} %"
            lines.append(line)
    return pd.DataFrame(lines).set_index(["dataset", "row"])


def _first_at(curve: pd.Series, goal: float) -> float:
    """The epoch at which the broken line through `curve` (by epoch) first is at `goal`; NaN if it never is."""
    epochs, heights = np.asarray(curve.index, dtype=float), np.asarray(curve, dtype=float)
    above = np.flatnonzero(heights >= goal)
    if not len(above):
        return math.nan
    span = slice(max(above[0] - 1, 0), above[0] + 1)
    return float(np.interp(goal, heights[span], epochs[span]))


def text(results: pd.DataFrame, experiment: Experiment, *, encoding: str | None = None) -> str:
    """Table, differences and verdicts for a terminal of 100 columns, in characters that `encoding` (None: UTF-8) has."""
    return "\n".join(_laid_out(block, encoding or "utf-8") for block in _blocks(results, experiment))


def _blocks(results: pd.DataFrame, experiment: Experiment) -> Iterator[str | pd.DataFrame]:
    """What is printed from top to bottom: paragraphs, and grids of text."""
    seeds = f"{len(experiment.seeds)} seed{'s' * (len(experiment.seeds) != 1)}"
    yield f"{experiment.name}: {experiment.title}"
    yield f"preset {experiment.preset}, {seeds}; mean ± half-width of the 95 % interval"
    whole = table(results, experiment).reset_index("row")
    for place, cells in groups(experiment.cells).items():
        yield from ("", " · ".join(place))
        own = whole[whole.index == place].set_index("row")
        for metrics in filter(len, (leading(results, experiment, cells), experiment.shown)):
            yield own.reindex(columns=["n", *map(heading, metrics)], fill_value=GAP)
        yield from _references(results, cells)
    if len(compared := _compared(results, experiment, from_baselines(experiment.cells))):
        yield from ("", "difference from the baseline, paired by seed", *_differences(compared, by_seed=True))
    if len(named := _compared(results, experiment, experiment.contrasts)):
        yield from ("", "other differences, paired by seed", *_differences(named, by_seed=False))
    for line in unlearned(results, experiment):
        yield from ("", line)
    if len(experiment.tests):
        yield from ("", "what the paper claims", *_verdicts(results, experiment))


def _references(results: pd.DataFrame, cells: Sequence[Cell]) -> Iterator[str]:
    """What is measured without a model: a line for all rows, or one for each grid of keys where rows have different ones."""
    for metric, names in known.REFERENCES.items():
        rows: dict[str, list[str]] = {}
        for cell in cells:
            samples = {what: values(results, cell, name) for name, what in names.items()}
            scores = ", ".join(f"{what} {number(sample.mean(), metric)}" for what, sample in samples.items() if len(sample))
            rows.setdefault(scores, []).append(cell.row)
        rows.pop("", None)
        for scores, alike in rows.items():
            which = f" ({', '.join(alike)})" if len(rows) > 1 else ""
            yield f"  {metric} without a model{which}: {scores}"


def _differences(compared: pd.DataFrame, *, by_seed: bool) -> Iterator[str | pd.DataFrame]:
    """For each data set a grid with a line a contrast and a column a metric, and the first metric seed by seed."""
    for place, own in compared.groupby(["table", "dataset"], sort=False):
        yield from ("", " · ".join(place))
        metrics = list(own["metric"].unique())
        grid = own.pivot(index="contrast", columns="metric", values="difference")[metrics].fillna(GAP)
        yield own.groupby("contrast", sort=False)["n"].max().to_frame().join(grid.rename(columns=heading))
        if by_seed:
            first = own[own["metric"] == metrics[0]]
            each = first["contrast"] + ": " + first["per_seed"] + " (p " + first["p_text"] + ")"
            yield f"  {metrics[0]}, seed by seed: {'; '.join(each)}"


def _verdicts(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    for claim_id, line in verdicts(results, experiment).iterrows():
        yield from ("", f"{line['where']}: {line['claim']} [{claim_id}]")
        ours = f"ours {line['ours']} {line['interval']}, {line['n']} seeds; " if line["n"] else ""
        magnitude = f" ({line['magnitude']})" if line["magnitude"] != GAP else ""
        yield f"  {line['verdict'].upper()}: {ours}paper {line['paper']}{magnitude}"
        yield from (f"  {label}{line[name]}" for name, label in (("note", ""), ("each set", "on each set: ")) if line[name])


def _laid_out(block: str | pd.DataFrame, encoding: str) -> str:
    """A paragraph folded, or a grid aligned, in which a label that is too long for its column goes on below its numbers."""
    if isinstance(block, str):
        return textwrap.fill(encodable(block, encoding), WIDTH, subsequent_indent="    ")
    grid = block.rename(columns=lambda name: encodable(name, encoding)).astype(str).map(encodable, encoding=encoding)
    room = max(NARROWEST, WIDTH - 4 - len(grid.set_axis([""] * len(grid)).to_string().splitlines()[0]))
    labels, lines = [], []
    for label, own in zip(grid.index, grid.to_numpy().tolist(), strict=True):
        folded = textwrap.wrap(encodable(label, encoding), room, subsequent_indent="  ") or [""]
        labels += folded
        lines += [own] + [[""] * len(own)] * (len(folded) - 1)
    printed = pd.DataFrame(lines, index=labels, columns=grid.columns).to_string(line_width=WIDTH - 2)
    return "\n".join(f"  {line}".rstrip() for line in printed.splitlines())
