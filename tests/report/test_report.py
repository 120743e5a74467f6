"""Frames, text and CSV from constructed results, whole and with everything missing that can be missing."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sarlib import report
from sarlib.config import ConfigError
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.results import COLUMNS
from sarlib.report.verdicts import CONTRADICTED, NOT_SUPPORTED, SUPPORTED, UNTESTABLE

UNITS = {"top1": "%", "jaccard": "1", "entropy": "nats", "components": "per map", "jaccard_random": "1", "seconds": "s"}
SETS = ("shapes-object, 500 images", "digits, 500 images")


@dataclass(frozen=True)
class Cell:
    table: str
    row: str
    dataset: str
    baseline: str | None = None


@dataclass(frozen=True)
class Experiment:
    cells: tuple[Cell, ...]
    tests: tuple[ClaimTest, ...] = ()
    name: str = "table2"
    title: str = "Training from scratch"
    preset: str = "laptop"
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    contrasts: tuple[Contrast, ...] = ()
    shown: tuple[str, ...] = ()


def gains(rule: str) -> ClaimTest:
    contrasts = (Contrast(name, ((1, "table2", "ViT + SAR", name), (-1, "table2", "ViT", name))) for name in SETS)
    return ClaimTest("t2-min" if rule == "all" else "t2-max", tuple(contrasts), rule=rule, note="a note of the declaration")


TABLE2 = Experiment(
    cells=tuple(Cell("table2", row, name, None if row == "ViT" else "ViT") for name in SETS for row in ("ViT", "ViT + SAR")),
    tests=(gains("all"), gains("any"), ClaimTest("t4-sar", untestable="no IN-1K here")),
)


def results_of(experiment: Experiment, *, gain: float = 4.0, seed: int = 0) -> pd.DataFrame:
    """Every metric of every cell and seed; digits have no masks. The gain varies little between seeds, the seeds vary much."""
    rng = np.random.default_rng(seed)
    difficulty = dict(zip(experiment.seeds, rng.normal(50, 8, len(experiment.seeds)), strict=True))
    lines = []
    for cell in experiment.cells:
        for index in experiment.seeds:
            for metric, unit in UNITS.items():
                value = (
                    difficulty[index] + rng.normal(gain * (cell.baseline is not None), 0.5)
                    if metric == "top1"
                    else rng.uniform(0.1, 0.9)
                )
                if not (metric.startswith("jaccard") and "digits" in cell.dataset):
                    lines.append(
                        (cell.table, cell.row, cell.dataset, index, metric, value, unit, f"{cell.row}{cell.dataset}{index}")
                    )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def damaged() -> Iterable[tuple[str, pd.DataFrame]]:
    whole = results_of(TABLE2)
    yield "one seed", whole[whole["seed"] == 0]
    yield "a missing cell", whole[~((whole["row"] == "ViT") & (whole["dataset"] == SETS[0]))]
    yield "a failed run", whole.assign(value=whole["value"].mask((whole["seed"] == 1) & (whole["row"] == "ViT + SAR")))
    yield "all runs failed", whole.assign(value=math.nan)
    yield "top1 alone", whole[whole["metric"] == "top1"]
    yield "nothing", whole.iloc[:0]


@pytest.mark.parametrize("results", [pytest.param(results, id=what) for what, results in damaged()])
def test_whatever_is_missing_the_declared_cells_and_claims_are_shown(results: pd.DataFrame, tmp_path: Path) -> None:
    report.write_csv(results, tmp_path / "table2.csv")
    assert list(report.table(results, TABLE2).index.get_level_values("row")) == ["ViT", "ViT + SAR"] * 2
    assert list(report.verdicts(results, TABLE2).index) == ["t2-min", "t2-max", "t4-sar"]
    assert len(report.agreement(results, TABLE2, tmp_path / "table2.csv")) == len(TABLE2.cells)
    report.differences(results, TABLE2)
    text = report.text(results, TABLE2)
    assert "nan" not in text and all(name in text for name in SETS)


def test_the_table_says_mean_half_width_and_on_how_many_seeds() -> None:
    results = results_of(TABLE2)
    shown = report.table(results, TABLE2)
    sample = results.query("metric == 'top1' and row == 'ViT' and dataset == @SETS[0]")["value"]
    bounds = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    first = shown.loc[("table2", SETS[0], "ViT")]
    assert first["top1 (%)"] == f"{sample.mean():.2f} ± {(bounds.high - bounds.low) / 2:.2f}" and first["n"] == 4
    assert list(shown.columns) == ["n", "top1 (%)", "jaccard", "entropy (nats)", "components (per map)"]
    assert shown.loc[("table2", SETS[1], "ViT"), "jaccard"] == "–"
    failed = results.assign(value=results["value"].mask((results["metric"] == "jaccard") & (results["seed"] > 1)))
    assert report.table(failed, TABLE2).loc[("table2", SETS[0], "ViT"), "jaccard"].endswith("(n=2)")
    alone = report.table(results[results["seed"] == 0], TABLE2).loc[("table2", SETS[0], "ViT")]
    assert alone["top1 (%)"] == f"{sample.iloc[0]:.2f}" and alone["n"] == 1


def test_differences_are_paired_by_seed() -> None:
    results = results_of(TABLE2)
    shown = report.differences(results, TABLE2)
    assert list(shown["metric"]) == ["top1", "jaccard", "entropy", "components", "top1", "entropy", "components"]
    line = shown.iloc[0]
    both = results[(results["metric"] == "top1") & (results["dataset"] == SETS[0])].pivot(
        index="seed", columns="row", values="value"
    )
    expected = stats.ttest_rel(both["ViT + SAR"], both["ViT"])
    bounds = expected.confidence_interval(0.95)
    assert (line["low"], line["high"], line["p"]) == pytest.approx((bounds.low, bounds.high, expected.pvalue))
    assert line["per_seed"] == " ".join(f"{value:+.2f}" for value in both["ViT + SAR"] - both["ViT"])
    assert (line["baseline"], line["n"]) == ("ViT", 4)


@pytest.mark.parametrize(("gain", "verdict"), [(4.0, SUPPORTED), (-4.0, CONTRADICTED), (0.0, NOT_SUPPORTED)])
def test_verdicts_follow_the_intervals_and_show_the_papers_figure(gain: float, verdict: str) -> None:
    shown = report.verdicts(results_of(TABLE2, gain=gain), TABLE2)
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
    results = results_of(TABLE2, gain=0.0)
    for name, gain in zip(SETS, gains_by_set, strict=True):
        here = (results["dataset"] == name) & (results["row"] == "ViT + SAR") & (results["metric"] == "top1")
        results.loc[here, "value"] += gain
    shown = report.verdicts(results, replace(TABLE2, preset="paper"))
    assert list(shown["magnitude"])[:2] == magnitudes
    assert list(shown["verdict"])[:2] == [SUPPORTED, SUPPORTED]  # the direction decides


def test_a_verdict_says_when_it_stands_on_fewer_seeds_than_declared() -> None:
    results = results_of(TABLE2)
    results.loc[(results["row"] == "ViT") & (results["seed"] == 3), "value"] = math.nan
    assert "3 of 4 seeds" in report.verdicts(results, TABLE2).loc["t2-min", "note"]


def test_agreement_bit_by_bit_then_by_intervals(tmp_path: Path) -> None:
    results, path = results_of(TABLE2), tmp_path / "table2.csv"

    def judged(theirs: pd.DataFrame) -> list[str]:
        report.write_csv(theirs, path)
        return list(report.agreement(results, TABLE2, path)["agreement"])

    def changed(by: np.ndarray | float, *, metric: str = "top1") -> pd.DataFrame:
        return results.assign(value=results["value"] + np.where(results["metric"] == metric, by, 0.0))

    noise = np.random.default_rng(1).normal(0, 1e-3, len(results))
    assert judged(results) == ["bit-equal"] * 4
    assert judged(changed(1.0, metric="seconds")) == ["bit-equal"] * 4  # another machine
    assert judged(changed(1e-12, metric="entropy")) == ["agrees"] * 4
    assert judged(changed(noise)) == ["agrees"] * 4
    assert judged(changed(noise + 1.0)) == ["differs"] * 4  # far less than the seeds differ among themselves: paired
    assert judged(results.assign(seed=results["seed"] + 10)) == ["agrees"] * 4  # no shared seed: Welch
    assert judged(changed(80.0).assign(seed=results["seed"] + 10)) == ["differs"] * 4
    assert judged(changed(1.0)[results["seed"] == 0]) == ["too few seeds"] * 4
    assert judged(results[results["dataset"] == SETS[0]]) == ["bit-equal"] * 2 + ["no reference"] * 2
    assert judged(results.assign(key="another")) == ["no reference"] * 4
    assert list(report.agreement(results, TABLE2, tmp_path / "absent.csv")["agreement"]) == ["no reference"] * 4
    assert list(report.agreement(results.iloc[:0], TABLE2, path)["agreement"]) == ["no result"] * 4


def test_a_run_that_failed_on_both_sides_is_no_difference(tmp_path: Path) -> None:
    results = results_of(TABLE2)
    results.loc[results["seed"] == 1, "value"] = math.nan
    report.write_csv(results, tmp_path / "table2.csv")
    assert list(report.agreement(results, TABLE2, tmp_path / "table2.csv")["agreement"]) == ["bit-equal"] * 4


def test_agreement_in_words_counts_what_chance_would_give(tmp_path: Path) -> None:
    results = results_of(TABLE2)
    report.write_csv(results.assign(value=results["value"] * 1.0001), tmp_path / "table2.csv")
    words = report.agreement_in_words(report.agreement(results, TABLE2, tmp_path / "table2.csv"))
    assert (
        words
        == "4 cells beside the reference: 4 differs; of 4 compared by a 95 % interval, 0.2 are expected to differ by chance."
    )


def test_contrasts_are_the_declared_combinations_paired_by_seed() -> None:
    first, second = (
        Contrast(f"gain on {name}", ((1, "table2", "ViT + SAR", name), (-1, "table2", "ViT", name))) for name in SETS
    )
    growth = Contrast("gain of gains", (*second.terms, *((-weight, *place) for weight, *place in first.terms)))
    experiment = replace(TABLE2, contrasts=(first, second, growth))
    results = results_of(experiment)
    found = report.contrasts(results, experiment, metric=["top1", "jaccard"])
    gains = report.differences(results, experiment, metric=["top1"])
    assert list(found["mean"][found["metric"] == "top1"][:2]) == list(gains["mean"])
    wide = results[results["metric"] == "top1"].pivot(index="seed", columns=["dataset", "row"], values="value")
    by_hand = (wide[SETS[1]]["ViT + SAR"] - wide[SETS[1]]["ViT"]) - (wide[SETS[0]]["ViT + SAR"] - wide[SETS[0]]["ViT"])
    line = found[found["contrast"] == "gain of gains"]
    assert line["mean"].item() == pytest.approx(by_hand.mean()) and line["p"].item() == pytest.approx(
        stats.ttest_1samp(by_hand, 0).pvalue
    )
    assert line["dataset"].item() == " and ".join(reversed(SETS)), "digits have no masks: top1 alone"
    text = report.text(results, experiment)
    assert "other differences, paired by seed" in text and "gain of gains" in text
    assert "other differences" not in report.text(results, TABLE2)


def test_what_masks_score_without_a_model_is_told_once_for_each_grid() -> None:
    results = results_of(TABLE2)
    fixed = results.assign(value=results["value"].mask(results["metric"] == "jaccard_random", 0.25))
    assert "jaccard without a model: random cells 0.250" in report.text(fixed, TABLE2)
    other = fixed["row"].eq("ViT + SAR") & (fixed["metric"] == "jaccard_random")
    text = report.text(fixed.assign(value=fixed["value"].mask(other, 0.5)), TABLE2)
    assert "without a model (ViT): random cells 0.250" in text and "without a model (ViT + SAR): random cells 0.500" in text


def test_a_table_shows_the_costs_that_it_declares() -> None:
    results = results_of(TABLE2)
    assert "seconds" not in " ".join(report.table(results, TABLE2).columns)
    shown = replace(TABLE2, shown=("seconds",))
    assert "seconds (s)" in report.table(results, shown).columns and "seconds (s)" in report.text(results, shown)


def test_text_fits_the_terminal_whatever_the_labels() -> None:
    rows = [("A" * 70, None), ("a row with a name that is far too long for a terminal, 80 epochs", "A" * 70)]
    cells = tuple(Cell("table1b", row, "a data set with a long name, 500 images", baseline) for row, baseline in rows)
    long = replace(TABLE2, cells=(*TABLE2.cells, *cells), seeds=tuple(range(8)), title="A title of many words " * 8)
    text = report.text(results_of(long), long)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" in text and "SUPPORTED: ours" in text and "jaccard without a model (" in text and "random cells 0." in text
    assert all(f"{name}" in text for name in ("t2-min", "t2-max", "no IN-1K here", "seed by seed"))


def test_csv_round_trip_is_bit_exact(tmp_path: Path) -> None:
    values = [
        0.1 + 0.2,
        1 / 3,
        1e-310,
        5e-324,
        -0.0,
        math.nan,
        math.inf,
        np.nextafter(1, 2),
        float(np.float32(0.7)),
        12345678.9,
    ]
    rows = ["0", "0.10", "nan", "NA", "1e3", "A", "ViT + SAR", "ViT, 80 epochs", 'quoted "x"', "λ"]
    lines = [
        ("table1a", row, "shapes", seed, "top1", value, "%", "0012e456")
        for seed, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    results = pd.DataFrame(lines, columns=list(COLUMNS))
    path = tmp_path / "laptop" / "table1.csv"
    report.write_csv(results, path)
    again = report.read_csv(path)
    assert again["value"].to_numpy().tobytes() == results["value"].to_numpy().tobytes()
    assert again.drop(columns="value").equals(results.drop(columns="value").astype({"seed": "int64"}))
    assert [file.name for file in path.parent.iterdir()] == ["table1.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there are no results at"),
        ("", "cannot read results"),
        ("table,row\ntable2,A\n", "lacks the columns dataset, seed, metric, value, unit, key"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0,top1,many,%,k\n", "cannot read results"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0\n", "cannot read results"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0,top1,1.0,%,k,more,and more\n" * 2, "cannot read results"),
        (",".join(COLUMNS) + "\n" + "table2,A,shapes,0,top1,1.0,%,k\n" * 2, "a measurement twice \\(table2 A shapes 0 top1\\)"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_in_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table2.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        report.read_csv(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write .*table2.csv"):
        report.write_csv(results_of(TABLE2), tmp_path / "file" / "table2.csv")


def test_a_report_needs_no_plotting_library_and_nothing_of_jupyter() -> None:
    absent = ("seaborn", "matplotlib", "IPython", "ipykernel", "sarlib.experiments")
    code = f"import sys, sarlib.report; print([name for name in {absent} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
