"""A benchmark's report: a plain dictionary as JSON keeps it, one file a device, and the tables that a reader sees.

Times are in seconds. What a page says of speed it takes from `comparisons` and `verdicts` of a report and from nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.bars import judge
from bench.interleaved import Fact, Measurement, Timing
from sarlib.config import ConfigError
from sarlib.durable import write_durably
from sarlib.runner.provenance import provenance

LIBRARIES = ("opencv-python-headless", "kornia", "triton")

Report = dict[str, Any]


def assemble(
    measurements: Iterable[Measurement],
    facts: Iterable[Fact],
    *,
    device: torch.device,
    seconds: float,
    skipped: Iterable[str],
    trial: bool,
) -> Report:
    """The report of one run: where it came from, what was measured, what was left out and why, and the verdicts on the bars.

    A trial's times mean nothing, so that it has no verdicts.
    """
    origin = provenance(device)
    versions = origin["versions"] | {name: version for name in LIBRARIES if (version := _version(name))}
    report = {
        **origin,
        "versions": versions,
        "kind": device.type,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "trial": trial,
        "measurements": [_measurement(measurement) for measurement in measurements],
        "facts": [dataclasses.asdict(fact) for fact in facts],
        "skipped": list(skipped),
    }
    return report | {"bars": [] if trial else judge(report)}


def file_name(report: Report) -> str:
    """<device>.json; a trial's name says so, and takes no measured report's place."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", report["device"].lower())).strip("-")
    return f"{slug}{'-trial' if report['trial'] else ''}.json"


def write(report: Report, path: Path) -> None:
    """Write the report in one step. `ConfigError` if it cannot be written."""
    try:
        write_durably(path, (json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another file with --out") from error


def read(path: Path) -> Report:
    """Inverse of `write`. `ConfigError` where there is no report, or no readable one."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"there is no report at {path}: run make bench first") from error
    except ValueError as error:
        raise ConfigError(f"cannot read a report from {path}: remove it and run make bench again") from error


def comparisons(report: Report) -> pd.DataFrame:
    """One line a side of a measurement: its settings in words, median seconds, and its ratio over each other side that it was
    set against with the interval (NaN for a side that is only a base); `difference` is the largest one of its checks."""
    no_ratio = {"over": "", "value": math.nan, "low": math.nan, "high": math.nan}
    rows = []
    for measurement in report["measurements"]:
        for side in measurement["sides"]:
            checks, ratios = ([one for one in measurement[of] if one["side"] == side["name"]] for of in ("checks", "ratios"))
            line = {"measurement": measurement["name"], "settings": in_words(measurement["settings"]), "side": side["name"]}
            line |= {"median": side["median"], "rounds": side["rounds"]}
            line |= {"difference": max((check["difference"] for check in checks), default=math.nan)}
            for one in ratios or [no_ratio]:
                rows.append(line | {"over": one["over"], "ratio": one["value"], "low": one["low"], "high": one["high"]})
    return pd.DataFrame(rows)


def verdicts(report: Report) -> pd.DataFrame:
    """One line a bar: what, limit in words, value, low, high, verdict."""
    rows = [{**bar, "limit": f"{'≥' if bar['at_least'] else '≤'} {bar['limit']:g}"} for bar in report["bars"]]
    return pd.DataFrame(rows, columns=["what", "limit", "value", "low", "high", "verdict"])


def text(report: Report) -> str:
    """The report for a terminal."""
    commit = f"commit {(report['commit'] or 'unknown')[:10]}{' with changes' if report['dirty'] else ''}"
    lines = [f"{report['device']}, {report['date']}, {commit}, measured in {report['seconds']:.0f} s"]
    if report["trial"]:
        lines.append("A trial: these times mean nothing.")
    frame = comparisons(report)
    for (name, settings), group in frame.groupby(["measurement", "settings"], sort=False):
        lines += ["", f"{name}: {settings} ({group['rounds'].iloc[0]} rounds)", *map(_line, group.to_dict("records"))]
    if report["facts"]:
        lines.append("")
    for fact in report["facts"]:
        lines.append(f"{fact['name']}: {fact['value']:.4g} {fact['unit']} ({in_words(fact['settings'])})")
    if report["bars"]:
        table = verdicts(report).to_string(index=False, float_format="{:.4g}".format)
        lines += ["", "values and their 95 % intervals against the bars", table]
    if report["skipped"]:
        lines += ["", *(f"left out: {reason}" for reason in report["skipped"])]
    return "\n".join(lines)


def in_words(settings: dict[str, Any]) -> str:
    """Settings of a measurement, e.g. "B 256, H 6, k 14"."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _line(row: dict[str, Any]) -> str:
    ratio = f"{row['ratio']:8.3f} x {row['over']} [{row['low']:.3f}, {row['high']:.3f}]" if row["over"] else ""
    return f"  {row['side']:32} {in_seconds(row['median']):>9}  {ratio}".rstrip()


def in_seconds(value: float) -> str:
    """A time with its unit, e.g. "1.92 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {
        "name": measurement.name,
        "settings": measurement.settings,
        "sides": [_timing(timing) for timing in measurement.timings],
        "ratios": [dataclasses.asdict(ratio) for ratio in measurement.ratios],
        "checks": [dataclasses.asdict(check) for check in measurement.checks],
    }


def _timing(timing: Timing) -> dict[str, Any]:
    low, high = timing.interval
    return {
        "name": timing.name,
        "median": timing.median,
        "low": low,
        "high": high,
        "quantiles": list(timing.quantiles),
        "rounds": len(timing.samples),
        "calls": timing.calls,
    }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
