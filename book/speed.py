"""What the chapter on speed shows: the benchmark's reports as Markdown, the reader's own before those that came with the code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from sarlib.bench import report

YOURS, REFERENCE = "Your own", "Reference"
NOT_MEASURED = "Not measured yet: there is no report. `make bench` puts your own here."


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
    return _table(("ratio, with its 95 % interval", "bar", "measured", "verdict"), rows)


def _section(whose: str, outcome: report.Report) -> str:
    commit = f"commit {(outcome['commit'] or 'unknown')[:7]}{' with changes' if outcome['dirty'] else ''}"
    origin = f"{whose} results of {outcome['date'][:10]}, {commit}, torch {outcome['versions']['torch']}, in {outcome['seconds']:.0f} s."
    parts = [f"## {outcome['device']}", origin]
    if outcome["bars"]:
        parts.append(bars(outcome))
    for name, frame in report.comparisons(outcome).groupby("measurement", sort=False):
        parts += [f"### {name.capitalize()}", _comparison(frame)]
    if outcome["facts"]:
        facts = [(fact["name"], report.in_words(fact["settings"]), f"{fact['value']:.4g} {fact['unit']}") for fact in outcome["facts"]]
        parts += ["### Counts and shares", _table(("", "settings", "value"), facts)]
    parts += [f"Left out: {reason}." for reason in outcome["skipped"]]
    return "\n\n".join(parts)


def _comparison(frame: pd.DataFrame) -> str:
    rows = []
    for row in frame.to_dict("records"):
        ratio = "" if math.isnan(row["ratio"]) else f"{_interval(row, row['ratio'])} × {row['over']}"
        rows.append((row["settings"], row["side"], report.in_seconds(row["median"]), ratio, row["rounds"]))
    return _table(("settings", "side", "median", "ratio with 95 % interval", "rounds"), rows)


def _interval(row: dict[str, Any], value: float) -> str:
    return f"{value:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
