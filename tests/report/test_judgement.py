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
from scipy import stats

from sarlib import experiments, report
from sarlib.config import ConfigError
from sarlib.experiments import claims, doses
from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.results import COLUMNS
from sarlib.report.judgement import CONTRADICTED, NO_EFFECT, SUPPORTED, UNDECIDED, UNTESTABLE, decide, judge
from sarlib.report.statistics import Interval, mean_interval, seeds_needed

# Per-seed values whose 95 % intervals lie clearly above 0, clearly below, and across it.
ABOVE, BELOW, ACROSS = [2.0, 3.0, 2.5, 2.8], [-2.0, -3.0, -2.5, -2.8], [2.0, -3.0, 2.5, -1.0]
#: 95 % interval above 0 (t = 3.7 at 3 degrees of freedom), but not the 98.3 % interval, which three contrasts ask for.
BARELY = [0.2, 0.9, 0.6, 1.0]
#: Inside .14 points on both sides of 0: clearly, though above 0, and at 95 % but not at 98.3 %.
NOTHING, SMALL, NARROWLY = [0.02, -0.03, 0.01, -0.01], [0.05, 0.06, 0.05, 0.06], [0.06, -0.06, 0.08, -0.05]


#: Tables of runs of which the paper's text claims nothing.
OWN = ("appendix", "dose", "figure1", "figure2", "future_work")


def results_of(samples: Sequence[Sequence[float]]) -> pd.DataFrame:
    """Cells whose paired differences "F" - "A" on data set i are samples[i]; A varies more between seeds than F differs from
    it."""
    lines = []
    for index, sample in enumerate(samples):
        for seed, gain in enumerate(sample):
            for row, value in (("A", 10.0 * seed), ("F", 10.0 * seed + gain)):
                lines.append(("table2", row, f"set{index}", seed, "top1", value, "%", ""))
    return pd.DataFrame(lines, columns=["table", "row", "dataset", "seed", "metric", "value", "unit", "key"])


def gains(count: int, *, rule: str = "all", sign: int = 1) -> ClaimTest:
    contrasts = (
        Contrast(f"set{i}", ((sign, "table2", "F", f"set{i}"), (-sign, "table2", "A", f"set{i}"))) for i in range(count)
    )
    return ClaimTest("t1c-B", tuple(contrasts), rule=rule)  # of which .14 points are too small to matter


def test_claims_parse_with_unique_ids_and_say_where_they_stand() -> None:
    every = claims.load()
    assert len(every) == 30
    assert all(name == claim.id and claim.where and claim.claim for name, claim in every.items())
    assert {claim.delta for claim in every.values() if claim.delta is not None} == {0.42, 1.5, 4.42, 18.17, 30.78, 10.5, 6.9}
    assert every["overhead"].stated == "+2.9 %" and every["t1c-E"].stated == ">0 but small" and every["t1c-B"].stated == "+0.42"
    assert every["t4-base"].stated == "79.8" and every["t9"].stated == ""


def test_an_effect_of_exactly_one_is_one_point() -> None:
    every = claims.load()
    assert every["t1c-D"].interest == "1 point of top-1" and every["t1c-F"].interest == "0.5 points of top-1"
    assert not any(claim.interest.startswith("1 points") for claim in every.values())


def test_every_declared_table_tests_claims_of_its_own_by_contrasts_between_its_cells() -> None:
    for name in experiments.TABLES:
        experiment = experiments.declare(name, preset="tiny")
        cells = {(cell.table, cell.row, cell.dataset) for cell in experiment.cells}
        assert experiment.tests or name in OWN, "of whose runs the text claims nothing"
        for test in experiment.tests:
            where = test.claim.where.lower().replace(" ", "")
            elsewhere = {"self_supervised": "appendix", "multilabel": "appendix", "headline": "sampleefficiency"}
            assert where.startswith(name) or where == elsewhere.get(name)
            assert {tuple(cell) for contrast in test.contrasts for _, *cell in contrast.terms} <= cells


@pytest.mark.parametrize(
    ("samples", "rule", "verdict"),
    [
        ([ABOVE], "all", SUPPORTED),
        ([ABOVE, ABOVE], "all", SUPPORTED),
        ([ABOVE, ACROSS], "all", UNDECIDED),
        ([ABOVE, BELOW], "all", CONTRADICTED),
        ([BARELY, BARELY, BARELY], "all", SUPPORTED),  # a conjunction needs no correction
        ([np.negative(BARELY), ABOVE, ABOVE], "all", UNDECIDED),  # one of three chances does
        ([np.negative(BARELY)], "all", CONTRADICTED),
        ([ABOVE, BELOW], "any", SUPPORTED),
        ([ACROSS, BELOW], "any", UNDECIDED),
        ([BARELY, ACROSS, ACROSS], "any", UNDECIDED),
        ([BELOW, BELOW], "any", CONTRADICTED),
        ([np.negative(BARELY), BELOW, BELOW], "any", CONTRADICTED),
        ([NOTHING], "all", NO_EFFECT),
        ([NOTHING, ABOVE], "all", NO_EFFECT),  # one of the gains is none
        ([NOTHING, ACROSS], "all", NO_EFFECT),
        ([NOTHING, BELOW], "all", CONTRADICTED),
        ([SMALL], "all", SUPPORTED),  # too small to matter, and above 0 all the same
        ([NARROWLY], "all", NO_EFFECT),
        ([NARROWLY, ABOVE, ABOVE], "all", UNDECIDED),  # one of three chances
        ([NOTHING, NOTHING], "any", NO_EFFECT),
        ([NOTHING, BELOW], "any", NO_EFFECT),
        ([NOTHING, ACROSS], "any", UNDECIDED),
        ([NOTHING, ABOVE], "any", SUPPORTED),
    ],
)
def test_rules(samples: list[list[float]], rule: str, verdict: str) -> None:
    assert judge(gains(len(samples), rule=rule), results_of(samples)).verdict == verdict


def test_one_contrast_is_judged_alike_by_both_rules_and_the_other_way_round_with_its_sign_flipped() -> None:
    opposite = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, UNDECIDED: UNDECIDED}
    for sample in (ABOVE, BELOW, ACROSS, BARELY):
        results = results_of([sample])
        verdict = judge(gains(1), results).verdict
        assert judge(gains(1, rule="any"), results).verdict == verdict
        assert judge(gains(1, sign=-1), results).verdict == opposite[verdict]


def test_a_failed_run_takes_its_seed_out_of_both_cells() -> None:
    results = results_of([[*ABOVE, -90.0]])
    assert judge(gains(1), results).verdict == UNDECIDED
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


@pytest.mark.parametrize(("gain", "verdict"), [(4.0, SUPPORTED), (-4.0, CONTRADICTED), (0.0, NO_EFFECT)])
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


def limit(rate: float, trials: int) -> float:
    """What a rate is below in all but one of a thousand simulations."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / trials)


def verdict_rates(effect: float, *, n: int, smallest: float, trials: int = 2000) -> dict[str, float]:
    """How often a study of n seeds with a true effect and a spread of 1 ends in each verdict."""
    draws = np.random.default_rng(1).normal(effect, 1.0, size=(trials, n))
    found = [decide([draw], rule="all", smallest=[smallest])[0] for draw in draws]
    return {verdict: found.count(verdict) / trials for verdict in (SUPPORTED, CONTRADICTED, NO_EFFECT, UNDECIDED)}


@pytest.mark.parametrize("effect", [0.0, 0.7, -2.0])
def test_intervals_cover_a_known_effect_at_their_level(effect: float) -> None:
    draws = np.random.default_rng(2).normal(effect, 1.0, size=(2000, 8))
    missed = sum(not mean_interval(draw).contains(effect) for draw in draws) / 2000
    assert 0.05 - (limit(0.05, 2000) - 0.05) <= missed <= limit(0.05, 2000)


def test_each_verdict_is_wrong_no_more_often_than_its_level_allows() -> None:
    """2.5 % on either side of 0, and 2.5 % for `no effect` where the effect is just as large as the smallest of interest."""
    nothing = verdict_rates(0.0, n=8, smallest=1.0)
    assert max(nothing[SUPPORTED], nothing[CONTRADICTED]) <= limit(0.025, 2000)
    assert nothing[NO_EFFECT] > 0.3, "and it is found"
    edge = verdict_rates(1.0, n=8, smallest=1.0)
    assert edge[NO_EFFECT] <= limit(0.025, 2000) and edge[CONTRADICTED] == 0
    assert verdict_rates(-4.0, n=8, smallest=1.0) == {SUPPORTED: 0, CONTRADICTED: 1, NO_EFFECT: 0, UNDECIDED: 0}


@pytest.mark.parametrize("effect", [0.5, 1.0])
def test_as_many_seeds_as_an_undecided_verdict_names_find_the_effect_four_times_in_five(effect: float) -> None:
    deviation = 1.0
    half = stats.t.ppf(0.975, 7) * deviation / math.sqrt(8)
    n = seeds_needed(Interval(mean=0.1, low=0.1 - half, high=0.1 + half, n=8, p=0.8), effect)

    def power(n: int) -> float:
        return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n))

    assert power(n - 1) < 0.8 <= power(n)
    assert verdict_rates(effect, n=n, smallest=0.0)[SUPPORTED] == pytest.approx(0.8, abs=0.04)


def table1_results(*, lowered: float) -> tuple[pd.DataFrame, experiments.Experiment]:
    """Table 1 as if the block gained 3 points and the loss another 2, and lowered the entropy by so much, on 8 seeds."""
    experiment, rng, lines = experiments.declare("table1", preset="tiny", seeds=8), np.random.default_rng(3), []
    for cell in experiment.cells:
        block, loss = cell.run.model.variant == "C", bool(cell.run.regularizers)
        for seed in experiment.seeds:
            gain = 3.0 * block + 2.0 * loss * block - 4.0 * (cell.run.model.variant == "D")
            for name, value in (("top1", 50 + gain), ("entropy", 0.3 - lowered * loss)):
                spread = 0.3 if name == "top1" else 0.01
                lines.append((cell.table, cell.row, cell.dataset, seed, name, value + rng.normal(0, spread), "", ""))
    return pd.DataFrame(lines, columns=list(COLUMNS)), experiment


def test_a_loss_that_does_nothing_to_the_entropy_cannot_be_tested() -> None:
    """Whatever the accuracies: the claims about the loss alone are not judged, those about SAR as a whole are."""
    shown = report.verdicts(*table1_results(lowered=0.0))
    for name in ("t1a-best-lambda", "t1c-E"):
        assert shown.loc[name, "verdict"] == UNTESTABLE and "entropy that the loss takes away" in shown.loc[name, "note"]
    assert shown.loc["t1c-C", "verdict"] == shown.loc["t1c-F", "verdict"] == SUPPORTED
    shown = report.verdicts(*table1_results(lowered=0.1))
    assert shown.loc["t1c-E", "verdict"] == SUPPORTED, "no worse than A, and below the block's gain"


def on_real_and_embedded(real: Sequence[float], embedded: Sequence[float]) -> pd.Series:
    """The verdict on t2-min with these gains on a real set and on an embedded one."""
    cells = [
        constructed.cell("table2", row, name, None if row == "A" else "A") for name in ("photos", "digits") for row in "AF"
    ]
    contrasts = tuple(difference("F", "A", table="table2", dataset=name) for name in ("digits", "photos"))
    results = results_of([real, embedded]).replace({"set0": "photos", "set1": "digits"})
    return report.verdicts(results, constructed.declared(cells, tests=(ClaimTest("t3-75", contrasts),))).loc["t3-75"]


def test_real_images_decide_and_each_set_has_its_own_verdict() -> None:
    line = on_real_and_embedded(BELOW, ABOVE)
    assert (line["verdict"], line["judged on"]) == (CONTRADICTED, "photos")
    assert line["each set"].startswith("digits: supported, +2.5") and "photos: contradicted, -2.5" in line["each set"]
    assert on_real_and_embedded(ABOVE, BELOW)["verdict"] == SUPPORTED


def test_a_matched_dose_is_judged_beside_the_papers_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doses, "_load", lambda: {"laptop": {"matched": {"shapes-object": {"weight": 0.3}}}})
    experiment = experiments.declare("table2", preset="laptop")
    assert [(test.claim_id, test.dose) for test in experiment.tests] == [
        (name, dose) for name in ("t2-min", "t2-max") for dose in ("", "matched dose")
    ]
    with_dose = [cell for cell in experiment.cells if cell.row == "ViT + SAR, matched dose"]
    assert {cell.run.data.name for cell in with_dose} == {"shapes-object", "shapes-sketch"}, "a weight serves its kind of set"
    assert {cell.run.regularizers[0].weight for cell in with_dose} == {0.3}
    terms = [contrast.terms for contrast in experiment.tests[1].contrasts]
    assert {above[2] for above, _ in terms} == {"ViT + SAR, matched dose"} and {below[2] for _, below in terms} == {"ViT"}
    table1 = {(test.claim_id, test.dose): test for test in experiments.declare("table1", preset="laptop").tests}
    (required,) = table1["t1c-E", "matched dose"].requires
    assert [term[2] for term in required.terms] == ["C", "F, matched dose"]


def test_a_contrast_with_a_margin_is_never_too_small_to_matter() -> None:
    test = dataclasses.replace(gains(1), contrasts=tuple(dataclasses.replace(one, margin=1.0) for one in gains(1).contrasts))
    judgement = judge(test, results_of([NOTHING]))
    assert judgement.verdict == SUPPORTED and judgement.intervals[0].mean == pytest.approx(0.9975)
    assert judge(test, results_of([ACROSS])).verdict == UNDECIDED


def test_the_smallest_effect_counts_in_its_own_unit_alone() -> None:
    """A second metric of a claim is never too small to matter, and no number of seeds is named for it."""
    metrics = ("top1", "entropy")
    contrasts = tuple(dataclasses.replace(gains(1).contrasts[0], metric=metric) for metric in metrics)
    results = pd.concat(results_of([sample]).assign(metric=metric) for metric, sample in zip(metrics, (ABOVE, NOTHING)))
    assert judge(dataclasses.replace(gains(1), contrasts=contrasts), results).verdict == UNDECIDED
    assert judge(dataclasses.replace(gains(1), contrasts=contrasts[::-1]), results).verdict == NO_EFFECT
