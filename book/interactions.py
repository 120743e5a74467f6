"""Writes the data of the book's interactions, as scripts that set one variable: a page from disk can load nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import findings
import markup
from results import Found

from sarlib.experiments.claims import ClaimTest
from sarlib.report.judgement import FEWEST_SEEDS, UNTESTABLE, decisive, judge
from sarlib.report.statistics import paired_values


def write(folder: Path, *, attention: dict[str, Any] | None, seeds: dict[str, Any] | None) -> None:
    for name, content in (("attention", attention), ("seeds", seeds)):
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (folder / f"{name}-data.js").write_text(f"window.SAR_{name.upper()} = {text};\n", encoding="utf-8")


def seeds(everything: Sequence[Found]) -> dict[str, Any] | None:
    """Each claim of the first table with the most seeds: its contrasts by seed, and the verdict of its first n seeds."""
    usable = [one for one in everything if one.declared.tests and one.results["seed"].nunique() > FEWEST_SEEDS]
    if not usable:
        return None
    found = max(usable, key=lambda one: one.results["seed"].nunique())  # the first of them: the headline where it is there
    known = sorted(found.results["seed"].unique().tolist())
    claims = [_claim(decisive(test, found.declared), found, known) for test in found.declared.tests]
    return {"table": found.name, "fewest": FEWEST_SEEDS, "seeds": known, "claims": [one for one in claims if one]}


def _claim(test: ClaimTest, found: Found, known: Sequence[int]) -> dict[str, Any] | None:
    contrasts = []
    for contrast in test.contrasts:
        values = paired_values(found.results, contrast.terms, metric=contrast.metric)
        if list(values.index) != list(known):
            return None
        contrasts.append({"label": contrast.label, "values": [round(float(value), 4) for value in values]})
    if not contrasts:
        return None
    after = []
    for n in range(FEWEST_SEEDS, len(known) + 1):
        judgement = judge(test, found.results[found.results["seed"].isin(known[:n])])
        intervals = [
            [round(float(one), 4) for one in (each.mean, each.low, each.high)] + [findings.difference(each, contrast.metric)]
            for each, contrast in zip(judgement.intervals, test.contrasts, strict=False)
        ]
        reason = judgement.reason if judgement.verdict == UNTESTABLE or not intervals else ""
        after.append({"verdict": judgement.verdict, "reason": reason, "carrying": judgement.carrying, "intervals": intervals})
    return {"id": test.claim_id, "name": test.name, "claim": test.claim.claim, "contrasts": contrasts, "after": after}


def as_table(found: dict[str, Any] | None) -> str:
    """The slider without moving it, from what `seeds` found: the verdict of each claim after three seeds and after each further
    one."""
    if not found or not found["claims"]:
        return "There are no results yet with more seeds than three."
    counts = [found["fewest"] + step for step in range(len(found["claims"][0]["after"]))]
    shown = sorted({counts[0], *counts[:: max(1, len(counts) // 6)], counts[-1]})
    rows = [(claim["name"], *(claim["after"][n - found["fewest"]]["verdict"] for n in shown)) for claim in found["claims"]]
    table = markup.table(("claim", *(f"{n} seeds" for n in shown)), rows)
    return f"The same in a table ({found['table']}):\n\n{table}"
