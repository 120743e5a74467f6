"""The list of claims, and the rules that turn intervals into verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import constructed
import numpy as np
import pandas as pd
import pytest
from constructed import SETS, TABLE2

from sarlib import experiments, report
from sarlib.config import ConfigError
from sarlib.experiments import claims
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.report.judgement import CONTRADICTED, NOT_SUPPORTED, SUPPORTED, UNTESTABLE, decide, judge

# Per-seed values whose 95 % intervals lie clearly above 0, clearly below, and across it.
ABOVE, BELOW, ACROSS = [2.0, 3.0, 2.5, 2.8], [-2.0, -3.0, -2.5, -2.8], [2.0, -3.0, 2.5, -1.0]
#: 95 % interval above 0 (t = 3.7 at 3 degrees of freedom), but not the 98.3 % interval, which three contrasts ask for.
BARELY = [0.2, 0.9, 0.6, 1.0]


#: Tables of runs of which the paper's text claims nothing.
OWN = ("appendix", "dose", "headline")


def results_of(samples: Sequence[Sequence[float]]) -> pd.DataFrame:
    """Cells whose paired differences "F" - "A" on data set i are samples[i]; A varies more between seeds than F differs from
    it."""
    lines = []
    for index, sample in enumerate(samples):
        for seed, difference in enumerate(sample):
            for row, value in (("A", 10.0 * seed), ("F", 10.0 * seed + difference)):
                lines.append(("table2", row, f"set{index}", seed, "top1", value, "%", ""))
    return pd.DataFrame(lines, columns=["table", "row", "dataset", "seed", "metric", "value", "unit", "key"])


def gains(count: int, *, rule: str = "all", sign: int = 1) -> ClaimTest:
    contrasts = (
        Contrast(f"set{i}", ((sign, "table2", "F", f"set{i}"), (-sign, "table2", "A", f"set{i}"))) for i in range(count)
    )
    return ClaimTest("t2-min", tuple(contrasts), rule=rule)


def test_claims_parse_with_unique_ids_and_say_where_they_stand() -> None:
    every = claims.load()
    assert len(every) == 29
    assert all(name == claim.id and claim.where and claim.claim for name, claim in every.items())
    assert {claim.delta for claim in every.values() if claim.delta is not None} == {0.42, 1.5, 4.42, 18.17, 30.78, 10.5, 6.9}
    assert every["overhead"].stated == "+2.9 %" and every["t1c-E"].stated == ">0 but small" and every["t1c-B"].stated == "+0.42"
    assert every["t4-base"].stated == "79.8" and every["t9"].stated == ""


def test_every_declared_table_tests_claims_of_its_own_by_contrasts_between_its_cells() -> None:
    for name in experiments.TABLES:
        experiment = experiments.declare(name, preset="tiny")
        cells = {(cell.table, cell.row, cell.dataset) for cell in experiment.cells}
        assert experiment.tests or name in OWN, "of whose runs the text claims nothing"
        for test in experiment.tests:
            assert test.claim.where.lower().replace(" ", "").startswith(name)
            assert {tuple(cell) for contrast in test.contrasts for _, *cell in contrast.terms} <= cells


@pytest.mark.parametrize(
    ("samples", "rule", "verdict"),
    [
        ([ABOVE], "all", SUPPORTED),
        ([ABOVE, ABOVE], "all", SUPPORTED),
        ([ABOVE, ACROSS], "all", NOT_SUPPORTED),
        ([ABOVE, BELOW], "all", CONTRADICTED),
        ([BARELY, BARELY, BARELY], "all", SUPPORTED),  # a conjunction needs no correction
        ([np.negative(BARELY), ABOVE, ABOVE], "all", NOT_SUPPORTED),  # one of three chances does
        ([np.negative(BARELY)], "all", CONTRADICTED),
        ([ABOVE, BELOW], "any", SUPPORTED),
        ([ACROSS, BELOW], "any", NOT_SUPPORTED),
        ([BARELY, ACROSS, ACROSS], "any", NOT_SUPPORTED),
        ([BELOW, BELOW], "any", CONTRADICTED),
        ([np.negative(BARELY), BELOW, BELOW], "any", CONTRADICTED),
    ],
)
def test_rules(samples: list[list[float]], rule: str, verdict: str) -> None:
    assert judge(gains(len(samples), rule=rule), results_of(samples)).verdict == verdict


def test_one_contrast_is_judged_alike_by_both_rules_and_the_other_way_round_with_its_sign_flipped() -> None:
    opposite = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, NOT_SUPPORTED: NOT_SUPPORTED}
    for sample in (ABOVE, BELOW, ACROSS, BARELY):
        results = results_of([sample])
        verdict = judge(gains(1), results).verdict
        assert judge(gains(1, rule="any"), results).verdict == verdict
        assert judge(gains(1, sign=-1), results).verdict == opposite[verdict]


def test_a_failed_run_takes_its_seed_out_of_both_cells() -> None:
    results = results_of([[*ABOVE, -90.0]])
    assert judge(gains(1), results).verdict == NOT_SUPPORTED
    results.loc[(results["row"] == "A") & (results["seed"] == 4), "value"] = math.nan
    judgement = judge(gains(1), results)
    assert (judgement.verdict, judgement.intervals[0].n) == (SUPPORTED, 4)


def test_seeds_that_only_one_cell_has_are_ignored() -> None:
    results = results_of([[*ABOVE, -90.0]])
    judgement = judge(gains(1), results[(results["row"] == "F") | (results["seed"] != 4)])
    assert (judgement.verdict, judgement.intervals[0].n) == (SUPPORTED, 4)


@pytest.mark.parametrize("samples", [[ABOVE, ABOVE[:2]], [ABOVE, []]], ids=["two seeds", "no such cell"])
def test_too_few_paired_seeds_cannot_be_tested(samples: list[list[float]]) -> None:
    judgement = judge(gains(2), results_of(samples))
    assert judgement.verdict == UNTESTABLE
    assert judgement.reason.startswith(f"set1: {len(samples[1])} paired seeds")


def test_seeds_without_any_spread_cannot_be_tested() -> None:
    judgement = judge(gains(1), results_of([[2.5, 2.5, 2.5]]))
    assert judgement.verdict == UNTESTABLE and "no spread" in judgement.reason


def test_a_declaration_can_say_why_a_claim_is_untestable() -> None:
    judgement = judge(ClaimTest("t4-sar", untestable="IN-1K is not here"), results_of([ABOVE]))
    assert (judgement.verdict, judgement.reason, judgement.intervals) == (UNTESTABLE, "IN-1K is not here", ())


def test_a_claim_cannot_be_tested_unless_its_preconditions_lie_above_zero() -> None:
    results = results_of([ABOVE, ACROSS])
    holds, fails = gains(2).contrasts
    assert judge(dataclasses.replace(gains(1), requires=(holds,)), results).verdict == SUPPORTED
    judgement = judge(dataclasses.replace(gains(1), requires=(holds, fails)), results)
    assert judgement.verdict == UNTESTABLE and fails.label in judgement.reason and "above 0" in judgement.reason


def test_the_carrying_contrast_is_the_weakest_of_all_and_the_strongest_of_any() -> None:
    samples = [ABOVE, BARELY, np.add(ABOVE, 5)]
    assert judge(gains(3), results_of(samples)).carrying == 1
    assert judge(gains(3, rule="any"), results_of(samples)).carrying == 2


@pytest.mark.parametrize("rule", claims.RULES)
def test_a_false_claim_is_supported_no_more_often_than_its_level_allows(rule: str) -> None:
    """Two gains over one shared baseline. `all`: one gain is truly 0, the other large; `any`: both are 0."""
    rng, trials, n = np.random.default_rng(0), 2000, 4
    base, rows = rng.normal(size=(trials, 1, n)), rng.normal(size=(trials, 2, n))
    rows[:, 1] += 50.0 if rule == "all" else 0.0
    supported = sum(decide(sample, rule=rule)[0] == SUPPORTED for sample in rows - base)
    limit = 0.025  # one side of 95 %; under `any` two chances at half of it each
    assert supported <= trials * limit + 3 * math.sqrt(trials * limit)
    if rule == "all":
        assert supported >= trials * limit - 3 * math.sqrt(trials * limit)  # at this worst case the level is exhausted


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClaimTest("t2-mean", untestable="x"), "unknown claim 't2-mean'"),
        (lambda: ClaimTest("t2-min", gains(1).contrasts, rule="most"), "unknown rule 'most'"),
        (lambda: ClaimTest("t2-min"), "needs either contrasts or the reason"),
        (lambda: Contrast("nothing", ()), "has no terms"),
    ],
)
def test_a_wrong_declaration_is_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(("gain", "verdict"), [(4.0, SUPPORTED), (-4.0, CONTRADICTED), (0.0, NOT_SUPPORTED)])
def test_verdicts_follow_the_intervals_and_show_the_papers_figure(gain: float, verdict: str) -> None:
    shown = report.verdicts(constructed.results_of(TABLE2, gain=gain), TABLE2)
    assert list(shown["verdict"]) == [verdict, verdict, UNTESTABLE]
    assert list(shown["paper"]) == ["+18.17", "+30.78", "almost 1"]
    assert list(shown["magnitude"]) == ["not compared at this size"] * 2 + ["–"]
    assert (
        shown.loc["t2-min", "note"].startswith("weakest of 2 contrasts: ")
        and "a note of the declaration" in shown.loc["t2-min", "note"]
    )
    assert shown.loc["t4-sar", "note"] == "no IN-1K here" and shown.loc["t4-sar", "n"] == 0


@pytest.mark.parametrize(
    ("gains_by_set", "magnitudes"),
    [
        ((18.2, 30.8), ["inside our interval", "inside our interval"]),  # the smallest against 18.17, the largest against 30.78
        ((30.8, 18.2), ["inside our interval", "inside our interval"]),
        ((24.0, 25.0), ["outside our interval", "outside our interval"]),
    ],
)
def test_the_papers_magnitude_is_compared_at_the_papers_preset_only(
    gains_by_set: tuple[float, float], magnitudes: list[str]
) -> None:
    results = constructed.results_of(TABLE2, gain=0.0)
    for name, gain in zip(SETS, gains_by_set, strict=True):
        here = (results["dataset"] == name) & (results["row"] == "ViT + SAR") & (results["metric"] == "top1")
        results.loc[here, "value"] += gain
    shown = report.verdicts(results, dataclasses.replace(TABLE2, preset="paper"))
    assert list(shown["magnitude"])[:2] == magnitudes
    assert list(shown["verdict"])[:2] == [SUPPORTED, SUPPORTED]  # the direction decides


def test_a_verdict_says_when_it_stands_on_fewer_seeds_than_declared() -> None:
    results = constructed.results_of(TABLE2)
    results.loc[(results["row"] == "ViT") & (results["seed"] == 3), "value"] = math.nan
    assert "3 of 4 seeds" in report.verdicts(results, TABLE2).loc["t2-min", "note"]
