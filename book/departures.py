"""Makes the page of what the text says, what the released code does, and what is done here: from departures.yml and results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import findings
import yaml
from results import Found

from sarlib.experiments.claims import difference

SOURCE = Path(__file__).with_name("departures.yml")


def load() -> list[dict[str, Any]]:
    return yaml.safe_load(SOURCE.read_text(encoding="utf-8"))


def section(everything: Sequence[Found], *, repository: str = "") -> str:
    """One heading a subject, with three lines below it; links to the files of `repository` where its address is known."""
    parts = []
    for entry in load():
        here = entry["here"]
        lines = [f"the text\n: {entry['text']['says']} ({entry['text']['source']})"]
        lines.append(f"the released code\n: {entry['code']['says']} ({entry['code']['source']})")
        where, test = (_link(here.get(name, ""), repository) for name in ("where", "test"))
        lines.append(f"here\n: {here['does']}." + (f" In {where}; tested by {test}." if "where" in here else ""))
        if effect := entry.get("effect"):
            lines.append(f"measured\n: {_effect(effect, everything)}")
        parts.append("\n\n".join([f"## {entry['subject'][0].upper()}{entry['subject'][1:]}", *lines]))
    return "\n\n".join(parts)


def _link(name: str, repository: str) -> str:
    path = name.split("::")[0]
    return f"[`{name}`]({repository}/blob/main/{path})" if repository else f"`{name}`"


def _effect(effect: dict[str, str], everything: Sequence[Found]) -> str:
    """Row minus row on every data set of the first results that have both."""
    for found in everything:
        if found.name == effect["table"]:
            measured = []
            for dataset in dict.fromkeys(found.results.loc[found.results["table"] == effect["part"], "dataset"]):
                contrast = difference(effect["row"], effect["than"], table=effect["part"], dataset=dataset)
                interval = found.interval(contrast, effect["metric"])
                if interval.n > 1:
                    measured.append(f"{findings.difference(interval, effect['metric'])} on {dataset}, {interval.n} seeds")
            if measured:
                label = f"{effect['row']} − {effect['than']}, {findings.NAMES.get(effect['metric'], effect['metric'])}"
                return f"{label}: {'; '.join(measured)} ({found.link})"
    return f"not yet: `make {effect['table']}`"
