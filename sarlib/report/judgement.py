"""The paper's claims, and the rule by which results decide one.

`claims.yml` holds what the paper's text states. A table declares a `ClaimTest` for each claim it can test: contrasts between
its cells, written so that the claim says they are above 0. `judge` turns results into one of four verdicts. Only intervals
decide; a mean on the right side of 0 does not.

The rules, for m contrasts with intervals over paired seeds:

`all`  the claim says that every contrast is above 0 ("SAR is better on each data set").
    supported      every 95 % interval lies above 0. Intersection-union test (Berger 1982): the claim is false as soon as one
                   contrast is not above 0, and that one alone passes with probability 2.5 % at most; so does the conjunction,
                   without any correction for m.
    contradicted   some interval at level 1 - 0.05 / m lies below 0. One of m chances to find a negative contrast is enough, so
                   here the level has to be divided by m (Bonferroni).
`any`  the claim says that at least one contrast is above 0.
    supported      some interval at level 1 - 0.05 / m lies above 0 (one of m chances: Bonferroni).
    contradicted   every 95 % interval lies below 0 (a conjunction: intersection-union).

Otherwise `not supported`: the intervals do not decide. `cannot be tested at this size`: the declaration says why, a
precondition (`ClaimTest.requires`) does not lie above 0, or a contrast has fewer than three paired seeds, or its seeds all
give the same value, which estimates no variance. Each verdict holds at its own level; over a book full of claims some will be
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from sarlib.experiments.claims import ClaimTest
from sarlib.experiments.declaration import Experiment
from sarlib.report.notation import GAP, bounds, number
from sarlib.report.statistics import LEVEL, Interval, mean_interval, paired_values

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
CONTRADICTED = "contradicted"
UNTESTABLE = "cannot be tested at this size"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, CONTRADICTED, UNTESTABLE)

#: Two seeds leave one degree of freedom: an interval 12.7 standard errors to either side, which decides nothing.
FEWEST_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, why, and what it rests on.

    `intervals` (95 %) has one entry per contrast of the test, none where the declaration says that it is untestable. `carrying`
    is the index of the contrast that the verdict hangs on: the one that stands in its way, else the one with the least evidence
    of being above 0 under `all` and the one with the most under `any`.
    """

    verdict: str
    reason: str
    intervals: tuple[Interval, ...] = ()
    carrying: int = 0


def judge(test: ClaimTest, results: pd.DataFrame) -> Judgement:
    """Decide one claim from tidy `results` by the rules in this module's docstring."""
    if test.untestable:
        return Judgement(verdict=UNTESTABLE, reason=test.untestable)
    for contrast in test.requires:
        interval = mean_interval(paired_values(results, contrast.terms, metric=contrast.metric))
        if interval.n < FEWEST_SEEDS or not interval.low > 0:
            found = f"{contrast.label} = {number(interval.mean, contrast.metric, '+')} {bounds(interval, contrast.metric)}"
            return Judgement(verdict=UNTESTABLE, reason=f"it asks for {found} to lie above 0 ({interval.n} paired seeds)")
    samples = [paired_values(results, contrast.terms, metric=contrast.metric).to_numpy() for contrast in test.contrasts]
    intervals = tuple(mean_interval(sample) for sample in samples)
    for index, (contrast, interval) in enumerate(zip(test.contrasts, intervals, strict=True)):
        why = ""
        if interval.n < FEWEST_SEEDS:
            why = f"{contrast.label}: {interval.n} paired seeds, {FEWEST_SEEDS} are needed"
        elif interval.degenerate:
            why = f"{contrast.label}: all {interval.n} seeds give the same value, so there is no spread to judge by"
        if why:
            return Judgement(verdict=UNTESTABLE, reason=why, intervals=intervals, carrying=index)
    # Above 1, an interval lies above 0; below -1, below 0.
    evidence = [interval.mean / interval.half_width for interval in intervals]
    carrying = evidence.index(min(evidence) if test.rule == "all" else max(evidence))
    verdict, reason = decide(samples, rule=test.rule)
    return Judgement(verdict=verdict, reason=reason, intervals=intervals, carrying=carrying)


def decide(samples: Sequence[Sequence[float]], *, rule: str) -> tuple[str, str]:
    """(verdict, reason) from the per-seed values of a claim's contrasts, at least three for each; never `UNTESTABLE`."""
    m = len(samples)
    plain = [mean_interval(sample) for sample in samples]
    corrected = [mean_interval(sample, level=1 - (1 - LEVEL) / m) for sample in samples]
    if rule == "all":
        supported = all(interval.low > 0 for interval in plain)
        contradicted = any(interval.high < 0 for interval in corrected)
        almost = any(interval.high < 0 for interval in plain)
    else:
        supported = any(interval.low > 0 for interval in corrected)
        contradicted = all(interval.high < 0 for interval in plain)
        almost = any(interval.low > 0 for interval in plain)
    if supported:
        return SUPPORTED, ""
    if contradicted:
        return CONTRADICTED, ""
    side = "below" if rule == "all" else "above"
    return NOT_SUPPORTED, f"{side} 0 at 95 %, but not after correction for {m} contrasts" if almost else ""


def verdicts(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """What becomes of each claim that the table tests; indexed by the claim's id. The rules are in this module's docstring.

    `ours`, `interval` (95 %) and `n` are of the contrast that carries the verdict, which `note` names. The direction decides.
    The paper's magnitude is set against our interval at PRESET=paper only: other data and other sizes have other magnitudes.
    """
    lines = []
    for test in experiment.tests:
        claim, judgement = test.claim, judge(test, results)
        line = {"id": claim.id, "claim": claim.claim, "where": claim.where, "paper": claim.stated or GAP}
        line |= {"ours": GAP, "interval": GAP, "n": 0, "verdict": judgement.verdict, "magnitude": GAP}
        if judgement.intervals:
            metric, interval = test.contrasts[judgement.carrying].metric, judgement.intervals[judgement.carrying]
            line |= {"ours": number(interval.mean, metric, "+"), "interval": bounds(interval, metric), "n": interval.n}
        if claim.delta is not None and judgement.verdict != UNTESTABLE:
            extreme = min if test.rule == "all" else max  # the smallest of all gains, or the largest of any
            interval = extreme(judgement.intervals, key=lambda interval: interval.mean)
            where = "inside our interval" if interval.contains(claim.delta) else "outside our interval"
            line["magnitude"] = where if experiment.preset == "paper" else "not compared at this size"
        line["note"] = "; ".join((*_about(test, judgement, seeds=len(experiment.seeds)), *filter(None, [test.note])))
        lines.append(line)
    columns = ["id", "claim", "where", "paper", "ours", "interval", "n", "verdict", "magnitude", "note"]
    return pd.DataFrame(lines, columns=columns).set_index("id")


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
