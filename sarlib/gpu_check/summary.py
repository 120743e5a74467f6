"""What the check has found, for a terminal and as one file; and the parts of the benchmark as the report that they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sarlib.bench import report
from sarlib.durable import write_durably
from sarlib.gpu_check.records import DONE, Record

BENCHMARK = ("benchmark-kernel", "benchmark-step")


def write(records: Sequence[Record], folder: Path) -> None:
    """`summary.json`, and `bench-<device>.json` if there is anything of it. `ConfigError` if they cannot be written."""
    kept = [{name: record.get(name) for name in ("part", "status", "error", "seconds", "notes", "bars")} for record in records]
    origin = {name: records[0].get(name) for name in ("device", "commit", "dirty", "code", "versions", "date", "trial")}
    write_durably(folder / "summary.json", (json.dumps({**origin, "parts": kept}, indent=1) + "\n").encode())
    if parts := [record for record in records if record["part"] in BENCHMARK and record["status"] == DONE]:
        merged = _merged(parts)
        report.write(merged, folder / f"bench-{report.file_name(merged)}")


def text(records: Sequence[Record]) -> str:
    """Notes, tables of what was measured, bars and the fate of every part."""
    blocks = [line for record in records for line in _part(record)]
    bars = {"bars": [bar for record in records for bar in record["bars"]]}
    if bars["bars"]:
        table = report.verdicts(bars).to_string(index=False, float_format="{:.4g}".format)
        blocks += [f"values and their 95 % intervals against the bars\n{table}"]
    fate = "\n".join(f"  {record['part']:18} {record['status']:8} {record['error'] or ''}".rstrip() for record in records)
    return "\n\n".join([*blocks, f"parts\n{fate}"])


def _part(record: Record) -> list[str]:
    lines = [f"{name}: {value}" for name, value in record.get("notes", {}).items()]
    if record.get("checks"):
        worst = max(check["difference"] for check in record["checks"])
        lines.append(f"{len(record['checks'])} checks passed, largest relative difference {worst:.2g}")
    if record.get("measurements"):
        lines.append(report.text(record | {"bars": []}))
    else:
        lines += [f"left out: {reason}" for reason in record.get("skipped", ())]
    return ["\n".join([f"== {record['part']}", *lines])] if lines else []


def _merged(parts: Sequence[Record]) -> dict[str, Any]:
    """One report of the benchmark from the records of its parts."""
    fields = ("commit", "dirty", "versions", "device", "threads", "kind", "date", "trial")
    merged = {name: parts[0][name] for name in fields} | {"seconds": sum(part["seconds"] for part in parts)}
    return merged | {
        name: [each for part in parts for each in part[name]] for name in ("measurements", "facts", "skipped", "bars")
    }
