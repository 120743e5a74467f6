"""Makes the chapter on speed: the benchmark's reports as Markdown, the reader's before those that came with the code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import markup
import pandas as pd
from bench import overhead, report

from sarlib.experiments import claims
from sarlib.report.judgement import CONTRADICTED, SUPPORTED, UNDECIDED
from sarlib.report.statistics import Interval

YOURS, REFERENCE = "Your own", "Reference"
NOT_MEASURED = "Not measured yet: there is no report. `make bench` puts your own here."
NO_OVERHEAD = "This report is older than this part of the benchmark: nothing was measured. `make bench` measures it."


def reports(runs: Path) -> list[tuple[str, report.Report]]:
    """Whose and what: the reports below `runs`, without trials."""
    found = [
        (whose, report.read(path))
        for whose, folder in ((YOURS, runs / "bench"), (REFERENCE, runs / "reference" / "bench"))
        for path in sorted(folder.glob("*.json"))
    ]
    return [(whose, outcome) for whose, outcome in found if not outcome["trial"]]


def sections(runs: Path) -> str:
    """One section a report, or a sentence where there is none."""
    return "\n\n".join(_section(whose, outcome) for whose, outcome in reports(runs)) or f":::{{warning}}\n{NOT_MEASURED}\n:::"


def bars(outcome: report.Report) -> str:
    """The table of the bars: limit, value with its interval, verdict."""
    verdicts = report.verdicts(outcome).to_dict("records")
    rows = [(bar["what"], bar["limit"], _interval(bar, bar["value"]), bar["verdict"]) for bar in verdicts]
    return markup.table(("ratio, with its 95 % interval", "bar", "measured", "verdict"), rows)


def overheads(outcome: report.Report) -> str:
    """What each regularizer adds to a step of each architecture, in percent with its interval, and what the paper says of SAR.

    A sentence where the report has no such measurement.
    """
    measured = [measurement for measurement in outcome["measurements"] if measurement["name"] == overhead.NAME]
    if not measured:
        return f":::{{warning}}\n{NO_OVERHEAD}\n:::"
    first, ratios = measured[0]["settings"], measured[0]["ratios"]
    shared = {name: value for name, value in first.items() if all(one["settings"][name] == value for one in measured)}
    rounds = sorted({measurement["sides"][0]["rounds"] for measurement in measured})
    names = (measurement["settings"]["architecture"] for measurement in measured)
    head = ("regulariser", "over", *names, "the paper, on average")
    rows = [("none", "", *(_median(measurement, overhead.NONE) for measurement in measured), "")]
    for side, over in [(ratio["side"], ratio["over"]) for ratio in ratios]:
        stated = claims.load()["overhead"].stated if (side, over) == (overhead.SAR, overhead.NONE) else ""
        rows.append((side, over, *(_percent(measurement, side, over) for measurement in measured), stated))
    settings = f"{report.in_words(shared)} ({' to '.join(map(str, rounds))} rounds):"
    return "\n\n".join([settings, markup.table(head, rows), _judged(outcome)])


def mean_overhead(outcome: report.Report) -> tuple[Interval, str] | None:
    """What SAR adds to a step in percent, as a mean over the architectures, and the verdict on the claim of section 5.2.

    The claim is read as "no more than that": supported where the interval lies below the paper's figure plus the smallest
    effect of interest, contradicted where it lies above. It is the interval of a mean of independent measurements. None where
    nothing was measured.
    """
    ratios = [ratio for each in outcome["measurements"] if each["name"] == overhead.NAME for ratio in each["ratios"]]
    found = [ratio for ratio in ratios if (ratio["side"], ratio["over"]) == (overhead.SAR, overhead.NONE)]
    if not found:
        return None
    mean = 100 * (sum(ratio["value"] for ratio in found) / len(found) - 1)
    half = 50 * math.hypot(*(ratio["high"] - ratio["low"] for ratio in found)) / len(found)
    claim = claims.load()["overhead"]
    most = float(str(claim.value).strip("+ %")) + claim.smallest
    verdict = SUPPORTED if mean + half < most else CONTRADICTED if mean - half > most else UNDECIDED
    return Interval(mean=mean, low=mean - half, high=mean + half, n=len(found), p=math.nan), verdict


def _judged(outcome: report.Report) -> str:
    claim, (mean, verdict) = claims.load()["overhead"], mean_overhead(outcome)
    return (
        f"SAR over none, the mean over {mean.n} architectures: {mean.mean:+.1f} % [{mean.low:+.1f}, {mean.high:+.1f}]. The "
        f"paper's {claim.stated} ({claim.where}), read as no more than that up to the smallest effect of interest "
        f"({claim.interest}): **{verdict}**."
    )


def _median(measurement: dict[str, Any], side: str) -> str:
    (timing,) = (timing for timing in measurement["sides"] if timing["name"] == side)
    return report.in_seconds(timing["median"])


def _percent(measurement: dict[str, Any], side: str, over: str) -> str:
    """By how much `side` takes longer than `over`, with the 95 % interval."""
    (ratio,) = (ratio for ratio in measurement["ratios"] if (ratio["side"], ratio["over"]) == (side, over))
    value, low, high = (100 * (ratio[name] - 1) for name in ("value", "low", "high"))
    return f"{value:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _section(whose: str, outcome: report.Report) -> str:
    commit = f"commit {(outcome['commit'] or 'unknown')[:7]}{' with changes' if outcome['dirty'] else ''}"
    when, torch, seconds = outcome["date"][:10], outcome["versions"]["torch"], outcome["seconds"]
    origin = f"{whose} results of {when}, {commit}, torch {torch}, in {seconds:.0f} s."
    parts = [f"## {outcome['device']}", origin]
    if outcome["bars"]:
        parts.append(bars(outcome))
    parts += ["### What each regulariser costs", overheads(outcome)]
    for name, frame in report.comparisons(outcome).groupby("measurement", sort=False):
        if name != overhead.NAME:
            parts += [f"### {name.capitalize()}", _comparison(frame)]
    if outcome["facts"]:
        facts = [
            (one["name"], report.in_words(one["settings"]), f"{one['value']:.4g} {one['unit']}") for one in outcome["facts"]
        ]
        parts += ["### Counts and shares", markup.table(("", "settings", "value"), facts)]
    parts += [f"Left out: {reason}." for reason in outcome["skipped"]]
    return "\n\n".join(parts)


def _comparison(frame: pd.DataFrame) -> str:
    rows = []
    for row in frame.to_dict("records"):
        ratio = "" if math.isnan(row["ratio"]) else f"{_interval(row, row['ratio'])} × {row['over']}"
        rows.append((row["settings"], row["side"], report.in_seconds(row["median"]), ratio, row["rounds"]))
    return markup.table(("settings", "side", "median", "ratio with 95 % interval", "rounds"), rows)


def _interval(row: dict[str, Any], value: float) -> str:
    return f"{value:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
