"""Writes the README's tables and its picture from the committed reference results: `python book/readme.py`.

What stands between `<!-- NAME -->` and `<!-- /NAME -->` is made here, so that no figure of the README is typed by hand; a test
holds the two together.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import attention
import findings
import front
import markup
import pictures
import results as tables
import speed
from results import Found

from sarlib import experiments, report
from sarlib.durable import write_durably
from sarlib.report.judgement import VERDICTS, verdicts
from sarlib.runner.estimate import estimate
from sarlib.runner.execute import Job, Work
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REFERENCE = ROOT / "runs" / "reference"
PICTURE = REFERENCE / "explained.png"
PRESET = tables.MAIN_PRESET

#: Of a table about which the paper's text claims nothing.
NO_CLAIM = "differences with intervals; the text claims nothing that can be tested here"


@functools.lru_cache(maxsize=1)
def reference() -> tuple[Found, ...]:
    """The committed results, of every table that has some."""
    everything, refused = tables.collect(REFERENCE.parent)
    if refused:
        raise ValueError(f"reference results that cannot be read: {'; '.join(refused)}")
    return tuple(found for found in everything if found.whose == tables.REFERENCE)


def state() -> str:
    """One line for each table: its command, and the verdicts of the reference results."""
    rows = [
        (findings.title(name), experiments.declare(name, preset="tiny").title, f"`make {name}`", _verdicts(name))
        for name in tables.ordered(experiments.TABLES)
    ]
    return markup.table(("", "what it is about", "command", f"verdicts at `{PRESET}`"), rows)


def _verdicts(name: str) -> str:
    """How many claims met which verdict, e.g. "2 supported, 1 contradicted"."""
    found = _reference(name)
    if found is None:
        return "declared; no reference results yet"
    if found.earlier:
        return "the results are of an earlier declaration"
    counts = Counter(verdicts(found.results, found.declared).verdict)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or NO_CLAIM


def output() -> str:
    """How `make table2` begins and ends with its default seeds, which are the first ones of the reference results: the time is
    estimated from their records, as it would be from the reader's own."""
    experiment, found = experiments.declare("table2", preset=PRESET), _reference("table2")
    works = tuple(Work(run) for run in {run.key: run for run in experiment.runs()}.values())
    job = Job(Store(REFERENCE / "store"), None, Machine(device="cpu", workers=2, threads=1), works)
    printed = report.text(found.results[found.results.seed.isin(experiment.seeds)], experiment)
    end = printed[printed.index("what the paper claims") :]
    begins = f"table2: {estimate(job, works)}"
    return f"```text\n{begins}\n…\n{end}\nwrote runs/{PRESET}/table2.ipynb and table2.csv\n```"


def bars() -> str:
    """What `make bench` found on each device of the reference results, against the bars; empty where there is none."""
    outcomes = [outcome for whose, outcome in speed.reports(REFERENCE.parent) if whose == speed.REFERENCE]
    return "\n\n".join(f"Measured on {outcome['device']}:\n\n{speed.bars(outcome)}" for outcome in outcomes if outcome["bars"])


def found() -> str:
    """What the headline experiment found, or that it is not there yet and what stands in for it."""
    return front.headline(tables.telling(reference()))


def picture(*, drawing: bool = False) -> str:
    """The first page's picture with what it shows in words; `drawing` it into the repository as well."""
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch) / PICTURE.name
        alternative = pictures.explained(attention.kept(REFERENCE.parent), drawn)
        if drawing:
            shutil.copyfile(drawn, PICTURE)
    return f"![{alternative}]({PICTURE.relative_to(ROOT)})"


def _reference(name: str) -> Found | None:
    return next((one for one in reference() if (one.name, one.preset) == (name, PRESET)), None)


BLOCKS = {"picture": picture, "found": found, "output": output, "state": state, "bars": bars}


def rendered(text: str) -> str:
    """The README's text with every block made anew. `ValueError` if a block is missing."""
    for name, make in BLOCKS.items():
        block = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text, n = re.subn(rf"<!-- {name} -->\n.*?\n<!-- /{name} -->", lambda _, block=block: block, text, flags=re.S)
        if n != 1:
            raise ValueError(f"README.md needs the block {name} once, it has it {n} times")
    return text


if __name__ == "__main__":
    picture(drawing=True)
    write_durably(README, rendered(README.read_text(encoding="utf-8")).encode())
    print(f"wrote {README.name}", file=sys.stderr)
