"""The paper's claims, and the rule by which results decide one.

`claims.yml` holds what the paper's text states, and for each claim the smallest effect of interest. A table declares a
`ClaimTest` for each claim it can test: contrasts between its cells, written so that the claim says they are above 0. `judge`
turns results into one of five verdicts. Only intervals decide; a mean on the right side of 0 does not.

The rules, for m contrasts with intervals over paired seeds:

`all`  the claim says that every contrast is above 0 ("SAR is better on each data set").
    supported      every 95 % interval lies above 0. Intersection-union test (Berger 1982): the claim is false as soon as one
                   contrast is not above 0, and that one alone passes with probability 2.5 % at most; so does the conjunction,
                   without any correction for m.
    contradicted   some interval at level 1 - 0.05 / m lies below 0. One of m chances to find a negative contrast is enough, so
                   here the level has to be divided by m (Bonferroni).
    no effect      some interval at that level lies inside the smallest effect of interest on both sides of 0: what is there is
                   too small to matter (the two one-sided tests of equivalence of Schuirmann 1987, one of m chances).
`any`  the claim says that at least one contrast is above 0.
    supported      some interval at level 1 - 0.05 / m lies above 0 (one of m chances: Bonferroni).
    contradicted   every 95 % interval lies below 0 (a conjunction: intersection-union).
    no effect      every 95 % interval lies below 0 or inside the smallest effect of interest.

The first that holds is the verdict. Otherwise `undecided`: the intervals do not decide, and the verdict says how many seeds
would. `cannot be tested at this size`: the declaration says why, a precondition (`ClaimTest.requires`) does not lie above 0, or
a contrast has fewer than three paired seeds, or its seeds all give the same value, which estimates no variance. Each verdict
holds at its own level; over a book full of claims some will be wrong.

Where a table has real images, these decide: a claim's line is the verdict over them, and each set's own stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Experiment
from sarlib.report.notation import GAP, bounds, number
from sarlib.report.statistics import LEVEL, POWER, Interval, mean_interval, paired_values, seeds_needed

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
NO_EFFECT = "no effect"
UNDECIDED = "undecided"
UNTESTABLE = "cannot be tested at this size"
#: Of `verdicts`.
COLUMNS = ["id", "claim", "where", "paper", "ours", "interval", "n", "verdict", "magnitude", "judged on", "note", "each set"]
VERDICTS = (SUPPORTED, CONTRADICTED, NO_EFFECT, UNDECIDED, UNTESTABLE)

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
        interval = mean_interval(_values(contrast, results))
        if interval.n < FEWEST_SEEDS or not interval.low > 0:
            found = f"{contrast.label} = {number(interval.mean, contrast.metric, '+')} {bounds(interval, contrast.metric)}"
            return Judgement(verdict=UNTESTABLE, reason=f"it asks for {found} to lie above 0 ({interval.n} paired seeds)")
    samples = [_values(contrast, results).to_numpy() for contrast in test.contrasts]
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
    smallest = [test.smallest(contrast) for contrast in test.contrasts]
    verdict, reason = decide(samples, rule=test.rule, smallest=smallest)
    if verdict == NO_EFFECT and test.rule == "all":
        carrying = min(range(len(samples)), key=lambda index: _widest(intervals[index]) / (smallest[index] or 1e-9))
    return Judgement(verdict=verdict, reason=reason, intervals=intervals, carrying=carrying)


def _values(contrast: Contrast, results: pd.DataFrame) -> pd.Series:
    """What has to lie above 0, by paired seed."""
    return paired_values(results, contrast.terms, metric=contrast.metric) + contrast.margin


def decide(samples: Sequence[Sequence[float]], *, rule: str, smallest: Sequence[float] = ()) -> tuple[str, str]:
    """(verdict, reason) from the per-seed values of a claim's contrasts, at least three for each; never `UNTESTABLE`.

    smallest: of each contrast the smallest effect of interest, 0 or none where nothing is too small to matter.
    """
    m = len(samples)
    limits = smallest or [0.0] * m
    plain = [mean_interval(sample) for sample in samples]
    corrected = [mean_interval(sample, level=1 - (1 - LEVEL) / m) for sample in samples]
    if rule == "all":
        supported = all(interval.low > 0 for interval in plain)
        contradicted = any(interval.high < 0 for interval in corrected)
        nothing = any(map(_inside, corrected, limits))
        almost = any(interval.high < 0 for interval in plain)
    else:
        supported = any(interval.low > 0 for interval in corrected)
        contradicted = all(interval.high < 0 for interval in plain)
        nothing = all(interval.high < 0 or _inside(interval, limit) for interval, limit in zip(plain, limits, strict=True))
        almost = any(interval.low > 0 for interval in plain)
    for verdict, holds in ((SUPPORTED, supported), (CONTRADICTED, contradicted), (NO_EFFECT, nothing)):
        if holds:
            return verdict, ""
    side = "below" if rule == "all" else "above"
    return UNDECIDED, f"{side} 0 at 95 %, but not after correction for {m} contrasts" if almost else ""


def _widest(interval: Interval) -> float:
    return max(-interval.low, interval.high)


def _inside(interval: Interval, limit: float) -> bool:
    return _widest(interval) < limit


def decisive(test: ClaimTest, experiment: Experiment) -> ClaimTest:
    """What the verdict on a claim is about: its real data sets where there are any, else all."""
    real = experiment.real
    return test.on([dataset for dataset in test.datasets if dataset in real] or test.datasets)


def verdicts(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """What becomes of each claim that the table tests; indexed by the claim's id. The rules are in this module's docstring.

    `judged on`: the data sets behind the verdict, the real ones where there are any. `ours`, `interval` (95 %) and `n` are of
    the contrast that carries it, which `note` names. The direction decides. The paper's magnitude is set against our interval
    at PRESET=paper only: other data and other sizes have other magnitudes. `each set`: the verdict on each, where several are.
    """
    lines = []
    for whole in experiment.tests:
        test = decisive(whole, experiment)
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
        line["judged on"] = "; ".join(test.datasets) or GAP
        line["note"] = "; ".join((*_about(test, judgement, seeds=len(experiment.seeds)), *filter(None, [test.dose, test.note])))
        several = whole.datasets if len(whole.datasets) > 1 else ()
        line["each set"] = "; ".join(_in_short(whole.on([dataset]), results) for dataset in several)
        lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS).set_index("id")


def _in_short(test: ClaimTest, results: pd.DataFrame) -> str:
    """The verdict on one data set, with the interval that carries it."""
    judgement = judge(test, results)
    shown = f"{test.datasets[0]}: {judgement.verdict}"
    if judgement.verdict == UNTESTABLE:
        return f"{shown} ({judgement.reason})"
    interval, metric = judgement.intervals[judgement.carrying], test.contrasts[judgement.carrying].metric
    return f"{shown}, {number(interval.mean, metric, '+')} {bounds(interval, metric)}"


def _about(test: ClaimTest, judgement: Judgement, *, seeds: int) -> Iterator[str]:
    """Why the verdict is what it is, which contrast the numbers belong to, how many seeds would decide, and how many of the
    declared ones it stands on."""
    if judgement.verdict == UNTESTABLE:
        yield judgement.reason
        return
    contrast, interval = test.contrasts[judgement.carrying], judgement.intervals[judgement.carrying]
    if len(test.contrasts) > 1:
        which = "weakest" if test.rule == "all" else "strongest"
        reason = f" ({judgement.reason})" if judgement.reason else ""
        yield f"{which} of {len(test.contrasts)} contrasts: {contrast.label}{reason}"
    if contrast.margin:
        yield f"the figures include the margin of {contrast.margin:g} that the claim leaves"
    comparable = contrast.metric == test.contrasts[0].metric  # else its unit is another
    if comparable and judgement.verdict == UNDECIDED:
        enough = seeds_needed(interval, test.claim.smallest)
        yield f"about {enough:,} seeds would find an effect of {test.claim.interest} ({POWER:.0%} power at the spread of these)"
    elif comparable and not contrast.margin and _inside(interval, test.claim.smallest):
        yield f"inside the smallest effect of interest, {test.claim.interest}"
    if interval.n < seeds:
        yield f"{interval.n} of {seeds} seeds; the others failed or are missing"
