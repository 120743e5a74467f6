"""The file that keeps what a part has found: a benchmark's report with a little more."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import traceback
from pathlib import Path
from typing import Any

import torch

from sarlib.bench import report
from sarlib.gpu_check import bars
from sarlib.gpu_check.parts import Found, Part, Task

#: What became of a part: under way, or killed on the way; finished; ended by an error; by the time limit or a signal; not begun in time.
BEGUN, DONE, FAILED, STOPPED, LEFT = "begun", "done", "failed", "stopped", "left"


Record = dict[str, Any]


def path(folder: Path, part: str) -> Path:
    return folder / f"{part}.json"


def write(part: Part, task: Task, found: Found, *, status: str, seconds: float, error: BaseException | None = None) -> None:
    """Keep what a part has found so far, and the error that ended it: one line, and where it came from."""
    content = report.assemble(
        found.measurements,
        found.facts,
        device=torch.device(task.device),
        seconds=seconds,
        skipped=found.skipped,
        trial=task.plan.trial,
    )
    content |= {"part": part.name, "status": status, "code": task.code, "error": error and one_line(error)}
    content |= {"traceback": traceback.format_exception(error) if error else []}
    content |= {"checks": [dataclasses.asdict(check) for check in found.checks], "notes": found.notes}
    if not task.plan.trial:
        content["bars"] += bars.judge(content)
    report.write(content, path(task.folder, part.name))


def read(folder: Path, part: str) -> Record | None:
    """The record of a part; None if there is none that can be read."""
    try:
        return json.loads(path(folder, part).read_bytes())
    except (OSError, ValueError):
        return None


def close(part: Part, task: Task, *, status: str, error: str) -> Record:
    """Write how a part ended that could not say so itself, beside what it had found."""
    known = read(task.folder, part.name) or {"part": part.name, "code": task.code, "seconds": 0.0, "bars": []}
    closed = known | {"status": status, "error": error}
    report.write(closed, path(task.folder, part.name))
    return closed


def finished(record: Record | None, task: Task, *, device: str | None) -> bool:
    """Whether a record is whole, and by the task's code and plan on the device of that name."""
    wanted = {"status": DONE, "code": task.code, "device": device, "trial": task.plan.trial}
    return record is not None and wanted.items() <= record.items()


def one_line(error: BaseException) -> str:
    """What an error says: its type and the first line of its message."""
    told = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {told}"


def code() -> str:
    """16 hexadecimal digits that change with anything in the package: a commit's name for a checkout with changes, or without git."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(file for file in package.rglob("*") if file.suffix in (".py", ".yml", ".txt"))
    content = b"".join(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() for file in sources)
    return hashlib.sha256(content).hexdigest()[:16]
