"""From tidy results to what a reader sees: the table, paired differences, verdicts on the paper's claims, a figure.

`results` has one line a measurement (`sarlib.experiments.results`); the declaration gives the order of rows and data sets and each cell's
baseline, and cells without results stay visible as gaps. Every interval is a 95 % t interval over seeds (`sarlib.report.statistics`);
where many are shown at once, one in twenty is expected to miss.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.results import read_csv, write_csv
from sarlib.report.agreement import MACHINE_METRICS, agreement, agreement_in_words
from sarlib.report.cells import JACCARD_REFERENCES, MAIN_METRICS, Cell, Experiment, groups, paired, present, values
from sarlib.report.notation import GAP, bounds, heading, number, plus_minus, signed
from sarlib.report.statistics import mean_interval, paired_values
from sarlib.report.verdicts import UNTESTABLE, Judgement, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "agreement",
    "agreement_in_words",
    "contrasts",
    "curves",
    "differences",
    "epochs_to_reach",
    "figure",
    "read_csv",
    "table",
    "text",
    "verdicts",
    "write_csv",
]

WIDTH = 100  # columns of a terminal


def table(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Every metric of the model: its mean ± half-width of its 95 % interval as text, one line a cell in the order of the declaration.

    Index (table, dataset, row), columns `n` (seeds) and one per metric with its unit. A metric that failed on some seeds says
    on how many its mean stands; a single seed has no ±; a cell without results shows gaps.
    """
    left_out = {*JACCARD_REFERENCES, *MACHINE_METRICS} - set(experiment.shown)
    metrics = [name for name in results["metric"].unique() if name not in left_out]
    metrics = sorted(metrics, key=lambda name: MAIN_METRICS.index(name) if name in MAIN_METRICS else len(MAIN_METRICS))
    lines = []
    for cell in experiment.cells:
        intervals = {metric: mean_interval(values(results, cell, metric)) for metric in metrics}
        n = max((interval.n for interval in intervals.values()), default=0)
        line = {"table": cell.table, "dataset": cell.dataset, "row": cell.row, "n": n}
        lines.append(line | {heading(results, metric): plus_minus(intervals[metric], metric, n=n) for metric in metrics})
    return pd.DataFrame(lines).set_index(["table", "dataset", "row"])


def differences(results: pd.DataFrame, experiment: Experiment, metric: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """Each cell minus its baseline, paired by seed: mean, 95 % interval, two-sided p value, every seed's difference as text.

    One line per cell with a baseline and metric that both have; in units of the metric (points for top1).
    """
    lines = []
    for cell, name, per_seed in paired(results, experiment.cells, metric):
        line = {"table": cell.table, "dataset": cell.dataset, "row": cell.row, "baseline": cell.baseline, "metric": name}
        lines.append(line | _summary(per_seed, name))
    return pd.DataFrame(lines, columns=["table", "dataset", "row", "baseline", "metric", *_SUMMARY])


_SUMMARY = ("n", "mean", "low", "high", "p", "per_seed")


def _summary(per_seed: pd.Series, metric: str) -> dict[str, object]:
    interval = mean_interval(per_seed)
    numbers = {name: getattr(interval, name) for name in _SUMMARY[:-1]}
    return numbers | {"per_seed": " ".join(signed(one, metric) for one in per_seed)}


def contrasts(results: pd.DataFrame, experiment: Experiment, metric: Sequence[str] = MAIN_METRICS) -> pd.DataFrame:
    """The differences that the declaration names beside those from the baseline: mean, 95 % interval, p value, every seed's as text.

    One line for each metric that all cells of a contrast have, in units of the metric.
    """
    lines = []
    for contrast in experiment.contrasts:
        for name, per_seed in _of_each_metric(contrast, results, metric):
            line = dict(zip(("table", "dataset"), _place(contrast), strict=True)) | {"contrast": contrast.label, "metric": name}
            lines.append(line | _summary(per_seed, name))
    return pd.DataFrame(lines, columns=["table", "dataset", "contrast", "metric", *_SUMMARY])


def _place(contrast: Contrast) -> tuple[str, str]:
    """Table and data set that a contrast is about."""
    tables, sets = (dict.fromkeys(term[part] for term in contrast.terms) for part in (1, 3))
    return " and ".join(tables), " and ".join(sets)


def _of_each_metric(contrast: Contrast, results: pd.DataFrame, metrics: Sequence[str]) -> Iterator[tuple[str, pd.Series]]:
    """(metric, values by seed) of a contrast, for the metrics that it has values of."""
    for name in metrics:
        per_seed = paired_values(results, contrast.terms, metric=name)
        if len(per_seed):
            yield name, per_seed


def verdicts(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """What becomes of each claim that the table tests; indexed by the claim's id. The rules are in `sarlib.report.verdicts`.

    `ours`, `interval` (95 %) and `n` belong to the contrast that carries the verdict, which `note` names. The direction
    decides. The paper's magnitude is set against our interval at PRESET=paper only: other data and other sizes have other
    magnitudes.
    """
    lines = []
    for test in experiment.tests:
        claim, judgement = test.claim, judge(test, results)
        line = {"id": claim.id, "claim": claim.claim, "where": claim.where, "paper": claim.stated or GAP}
        line |= {"ours": GAP, "interval": GAP, "n": 0, "verdict": judgement.verdict, "magnitude": GAP}
        if judgement.intervals:
            metric, interval = test.contrasts[judgement.carrying].metric, judgement.intervals[judgement.carrying]
            line |= {"ours": signed(interval.mean, metric), "interval": bounds(interval, metric), "n": interval.n}
        if claim.delta is not None and judgement.verdict != UNTESTABLE:
            line["magnitude"] = (
                _magnitude(claim.delta, test, judgement) if experiment.preset == "paper" else "not compared at this size"
            )
        lines.append(
            line | {"note": "; ".join((*_about(test, judgement, seeds=len(experiment.seeds)), *filter(None, [test.note])))}
        )
    columns = ["id", "claim", "where", "paper", "ours", "interval", "n", "verdict", "magnitude", "note"]
    return pd.DataFrame(lines, columns=columns).set_index("id")


def _magnitude(delta: float, test: ClaimTest, judgement: Judgement) -> str:
    """Whether the paper's figure lies in our interval; the smallest gain's under `all`, the largest's under `any`."""
    extreme = min if test.rule == "all" else max
    interval = extreme(judgement.intervals, key=lambda interval: interval.mean)
    return "inside our interval" if interval.contains(delta) else "outside our interval"


def _about(test: ClaimTest, judgement: Judgement, *, seeds: int) -> Iterator[str]:
    """Why the verdict is what it is, which contrast the numbers belong to, and how many of the declared seeds it stands on."""
    if judgement.verdict == UNTESTABLE:
        yield judgement.reason
        return
    label, n = test.contrasts[judgement.carrying].label, judgement.intervals[judgement.carrying].n
    if len(test.contrasts) > 1:
        which = "weakest" if test.rule == "all" else "strongest"
        yield f"{which} of {len(test.contrasts)} contrasts: {label}" + (f" ({judgement.reason})" if judgement.reason else "")
    if n < seeds:
        yield f"{n} of {seeds} seeds; the others failed or are missing"


def text(results: pd.DataFrame, experiment: Experiment) -> str:
    """The table, its paired differences, its contrasts and its verdicts for a terminal of 100 columns."""
    seeds = f"{len(experiment.seeds)} seed{'s' * (len(experiment.seeds) != 1)}"
    title = textwrap.fill(f"{experiment.name}: {experiment.title}", WIDTH)
    blocks = [
        f"{title}\npreset {experiment.preset}, {seeds}; mean ± half-width of the 95 % interval",
        *_values_text(results, experiment),
    ]
    if compared := list(_differences_text(results, experiment)):
        blocks += ["difference from the baseline, paired by seed", *compared]
    if named := list(_contrasts_text(results, experiment)):
        blocks += ["other differences, paired by seed", *named]
    if len(experiment.tests):
        blocks += ["what the paper claims", *_verdicts_text(results, experiment)]
    return "\n\n".join(blocks)


def figure(results: pd.DataFrame, experiment: Experiment, *, table: str | None = None) -> Figure:
    """`sarlib.report.figures.figure`; loaded on demand, so that tables need no plotting library."""
    from sarlib.report import figures

    return figures.figure(results, experiment, table=table)


def curves(results: pd.DataFrame, experiment: Experiment) -> Figure:
    """`sarlib.report.curves.figure`."""
    from sarlib.report import curves

    return curves.figure(results, experiment)


def epochs_to_reach(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """`sarlib.report.curves.epochs_to_reach`."""
    from sarlib.report import curves

    return curves.epochs_to_reach(results, experiment)


def _values_text(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    for (name, dataset), cells in groups(experiment.cells).items():
        grids = []
        for metrics in filter(len, (present(results), experiment.shown)):
            samples = [(cell.row, [values(results, cell, metric) for metric in metrics]) for cell in cells]
            grids.append(_grid(results, metrics, samples))
        yield "\n".join([f"{name} · {dataset}", *grids, *_jaccard_references(results, cells)])


def _jaccard_references(results: pd.DataFrame, cells: Sequence[Cell]) -> Iterator[str]:
    """What masks score without a model: a line for all rows, or one for each grid of keys where rows have different ones."""
    known: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        samples = {what: values(results, cell, metric) for metric, what in JACCARD_REFERENCES.items()}
        if told := tuple(f"{what} {number(sample.mean(), 'jaccard')}" for what, sample in samples.items() if len(sample)):
            known.setdefault(told, []).append(cell)
    for told, own in known.items():
        rows = "" if len(known) == 1 else f" ({', '.join(cell.row for cell in own)})"
        line = f"jaccard without a model{rows}: {', '.join(told)}"
        yield textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _differences_text(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    metrics = present(results)
    for (name, dataset), cells in groups(experiment.cells).items():
        compared: dict[str, dict[str, pd.Series]] = {}  # row: metric: differences of its seeds
        for cell, metric, sample in paired(results, cells, metrics):
            compared.setdefault(f"{cell.row} − {cell.baseline}", {})[metric] = sample
        if compared:
            samples = [(row, [by_metric.get(metric, ()) for metric in metrics]) for row, by_metric in compared.items()]
            shown = [f"{row}: {_seeds_text(samples[0], metrics[0])}" for row, samples in samples if len(samples[0])]
            note = textwrap.fill(
                f"{metrics[0]}, seed by seed: {'; '.join(shown)}", WIDTH, initial_indent="  ", subsequent_indent="    "
            )
            yield "\n".join((f"{name} · {dataset}", _grid(results, metrics, samples, difference=True), note))


def _contrasts_text(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    metrics = present(results)
    by_place: dict[tuple[str, str], list[tuple[str, list[Sequence[float]]]]] = {}
    for contrast in experiment.contrasts:
        if found := dict(_of_each_metric(contrast, results, metrics)):
            samples = [found.get(metric, ()) for metric in metrics]
            by_place.setdefault(_place(contrast), []).append((contrast.label, samples))
    for place, rows in by_place.items():
        yield "\n".join((" · ".join(place), _grid(results, metrics, rows, difference=True)))


def _seeds_text(sample: pd.Series, metric: str) -> str:
    p = mean_interval(sample).p
    return " ".join(signed(one, metric) for one in sample) + ("" if math.isnan(p) else f" (p {p:.2g})")


def _verdicts_text(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    for claim_id, line in verdicts(results, experiment).iterrows():
        lines = [f"{line['where']}: {line['claim']} [{claim_id}]"]
        ours = f"ours {line['ours']} {line['interval']}, {line['n']} seeds; " if line["n"] else ""
        lines.append(
            f"  {line['verdict'].upper()}: {ours}paper {line['paper']}"
            + (f" ({line['magnitude']})" if line["magnitude"] != GAP else "")
        )
        if line["note"]:
            lines.append(f"  {line['note']}")
        yield "\n".join(textwrap.fill(one, WIDTH, subsequent_indent="    ") for one in lines)


def _grid(
    results: pd.DataFrame,
    metrics: Sequence[str],
    samples: Sequence[tuple[str, Sequence[Sequence[float]]]],
    *,
    difference: bool = False,
) -> str:
    """Aligned lines of (label, one sample a metric); a label that leaves no room for the columns stands on a line of its own."""
    lines = [("", "n", *(heading(results, metric) for metric in metrics))]
    for label, by_metric in samples:
        intervals = [mean_interval(sample) for sample in by_metric]
        n = max((interval.n for interval in intervals), default=0)
        shown = (
            plus_minus(interval, metric, n=n, difference=difference)
            for interval, metric in zip(intervals, metrics, strict=True)
        )
        lines.append((f"  {label}", str(n), *shown))
    numbers = [max(map(len, column)) for column in list(zip(*lines, strict=True))[1:]]
    room = WIDTH - sum(numbers) - 2 * len(numbers)
    width = max((len(label) for label, *_ in lines if len(label) <= room), default=0)
    return "\n".join(_aligned(label, rest, width, numbers) for label, *rest in lines)


def _aligned(label: str, values: Sequence[str], width: int, widths: Sequence[int]) -> str:
    columns = (value.rjust(room) for value, room in zip(values, widths, strict=True))
    if len(label) > width:
        return f"{label if len(label) <= WIDTH else label[: WIDTH - 1] + '…'}\n" + "  ".join((" " * width, *columns))
    return "  ".join((label.ljust(width), *columns))
