"""Frames and text of constructed results, whole and with everything missing that can be missing."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
from constructed import HEIGHTS, SETS, TABLE2, cell, curves_of, results_of
from scipy import stats

from sarlib import experiments, report
from sarlib.config import ConfigError, Data
from sarlib.experiments.claims import Contrast
from sarlib.report.statistics import groups
from sarlib.run import Measurement


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
    shown = report.differences(results, TABLE2, exact=True)
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


def test_contrasts_are_the_declared_combinations_paired_by_seed() -> None:
    first, second = (
        Contrast(f"gain on {name}", ((1, "table2", "ViT + SAR", name), (-1, "table2", "ViT", name))) for name in SETS
    )
    growth = Contrast("gain of gains", (*second.terms, *((-weight, *place) for weight, *place in first.terms)))
    experiment = dataclasses.replace(TABLE2, contrasts=(first, second, growth))
    results = results_of(experiment)
    found = report.contrasts(results, experiment, metric=["top1", "jaccard"], exact=True)
    gains = report.differences(results, experiment, metric=["top1"], exact=True)
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
    shown = dataclasses.replace(TABLE2, shown=("seconds",))
    assert "seconds (s)" in report.table(results, shown).columns and "seconds (s)" in report.text(results, shown)


def _labels(text: str) -> list[str]:
    """What stands before the numbers of each line, without spaces."""
    return [re.split(r"  +\d", line.strip())[0].replace(" ", "") for line in text.splitlines()]


def test_text_fits_the_terminal_whatever_the_labels() -> None:
    rows = [("A" * 70, None), ("a row with a name that is far too long for a terminal, 80 epochs", "A" * 70)]
    cells = tuple(cell("table1b", row, "a data set with a long name, 500 images", baseline) for row, baseline in rows)
    long = dataclasses.replace(TABLE2, cells=(*TABLE2.cells, *cells), seeds=tuple(range(8)), title="A title of many words " * 8)
    text = report.text(results_of(long), long)
    assert max(map(len, text.splitlines())) <= 100
    assert "SUPPORTED: ours" in text and "jaccard without a model (" in text and "random cells 0." in text
    assert f"{rows[1][0]} − {rows[0][0]}".replace(" ", "") in "".join(_labels(text)), "a long label goes on, nothing is cut"
    assert all(f"{name}" in text for name in ("t2-min", "t2-max", "no IN-1K here", "seed by seed"))


def test_text_aligns_numbers_under_their_metrics() -> None:
    """Read back by the ends of the headings: every number of the frame stands in its column."""
    results = results_of(TABLE2)
    lines = report.text(results, TABLE2).splitlines()
    head = lines.index("table2 · shapes-object, 500 images") + 1
    ends = {name: lines[head].index(name) + len(name) for name in ("n", "top1 (%)", "jaccard", "entropy (nats)")}
    shown = report.table(results, TABLE2).xs(SETS[0], level="dataset").droplevel("table")
    for line, row in zip(lines[head + 1 : head + 3], ("ViT", "ViT + SAR"), strict=True):
        assert line.startswith(f"  {row}  ")
        for name, end in ends.items():
            assert line[:end].endswith(f" {shown.loc[row, name]}"), name


def test_more_columns_than_a_terminal_has_room_for_go_on_below() -> None:
    results = results_of(TABLE2)
    wide = dataclasses.replace(TABLE2, leads=("top1", "jaccard", "entropy", "components", "seconds", "jaccard_random"))
    text = report.text(results, wide)
    assert max(map(len, text.splitlines())) <= 100
    sample = results.query("metric == 'seconds' and row == 'ViT' and dataset == @SETS[0]")["value"]
    assert "seconds (s)" in text and f"{sample.mean():.1f} ± " in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", None])
def test_text_is_written_in_characters_that_the_terminal_has(encoding: str | None) -> None:
    """The same numbers in every encoding, and columns that stand under each other."""
    row = "spatial entropy, λ = 0.01"
    experiment = dataclasses.replace(TABLE2, cells=(*TABLE2.cells, cell("table2", row, SETS[0], "ViT")))
    results = results_of(experiment)
    text, whole = report.text(results, experiment, encoding=encoding), report.text(results, experiment)
    assert text.encode(encoding or "utf-8").decode(encoding or "utf-8") == text and "?" not in text
    assert max(map(len, text.splitlines())) <= 100

    def numbers(text: str) -> list[str]:
        return sorted(re.findall(r"\d+\.\d+", text))

    assert numbers(text) == numbers(whole)
    if encoding == "ascii":
        assert "lambda = 0.01" in text and "ViT + SAR - ViT" in text and re.search(r"\d \+/- \d", text)
        head = next(line for line in text.splitlines() if "top1 (%)" in line)
        line = next(line for line in text.splitlines() if line.startswith("  ViT  "))
        assert re.search(r"\d$", line[: head.index("top1 (%)") + len("top1 (%)")])
    if encoding == "utf-8":
        assert text == whole and "±" in text and "−" in text


def test_a_terminal_that_knows_ascii_only_is_printed_to() -> None:
    code = (
        "import sys; from constructed import *; from sarlib import report; "
        "print(report.text(results_of(TABLE2), TABLE2, encoding=sys.stdout.encoding))"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert printed.returncode == 0, printed.stderr.decode()
    assert "+/-" in printed.stdout.decode("ascii")


def test_differences_are_read_with_the_decimals_of_their_metric() -> None:
    results = results_of(TABLE2)
    exact = report.differences(results, TABLE2, exact=True)
    shown = report.differences(results, TABLE2)
    assert list(shown.columns) == ["table", "dataset", "row", "baseline", "metric", "n", "difference", "p"]
    decimals = {"top1": 2, "jaccard": 3, "entropy": 3, "components": 2}
    for (_, line), (_, numbers) in zip(shown.iterrows(), exact.iterrows(), strict=True):
        digits, half = decimals[line["metric"]], (numbers["high"] - numbers["low"]) / 2
        assert line["difference"] == f"{numbers['mean']:+.{digits}f} ± {half:.{digits}f}"
        assert line["p"] == f"{numbers['p']:.2g}" and line["n"] == numbers["n"]
    contrast = Contrast("gain", ((1, "table2", "ViT + SAR", SETS[0]), (-1, "table2", "ViT", SETS[0])))
    named = report.contrasts(results, dataclasses.replace(TABLE2, contrasts=(contrast,)))
    assert list(named.columns) == ["table", "dataset", "contrast", "metric", "n", "difference", "p"]
    assert list(named["difference"]) == list(shown["difference"][:4])
    for frame in (report.differences, report.contrasts):
        assert list(frame(results.iloc[:0], TABLE2).columns[-3:]) == ["n", "difference", "p"]


def test_a_table_leads_with_what_it_declares() -> None:
    results = results_of(TABLE2)
    experiment = dataclasses.replace(TABLE2, leads=("entropy", "top1"))
    assert list(report.table(results, experiment).columns[:3]) == ["n", "entropy (nats)", "top1 (%)"]
    assert list(report.differences(results, experiment)["metric"]) == ["entropy", "top1"] * 2
    text = report.text(results, experiment)
    assert "entropy, seed by seed" in text and "jaccard  " not in text


def test_one_part_of_a_table_has_its_own_columns() -> None:
    other = cell("table2b", "ViT", "elsewhere")
    both = dataclasses.replace(TABLE2, cells=(*TABLE2.cells, other))
    results = results_of(TABLE2)
    more = pd.DataFrame([("table2b", "ViT", "elsewhere", 0, "loss", 0.5, "nats", "k")], columns=results.columns)
    results = pd.concat([results, more], ignore_index=True)
    assert report.table(results, both).shape == (5, 6)
    own = report.table(results, both, table="table2b")
    assert list(own.columns) == ["n", "loss (nats)"] and own.loc[("table2b", "elsewhere", "ViT"), "loss (nats)"] == "0.500"
    with pytest.raises(ConfigError, match="no part 'table3'; choose from table2, table2b"):
        report.table(results, both, table="table3")


def test_cells_with_a_measurement_lead_with_all_that_it_measured() -> None:
    """Beside cells that show what every table shows; none of the four that those lead with is missed."""
    measurement = Measurement(name="collapse", data=Data(name="digits", image_size=32))
    measured = [cell("maps", row, "d", base, measurement=measurement) for row, base in (("none", None), ("softmax", "none"))]
    experiment = dataclasses.replace(TABLE2, cells=(*TABLE2.cells, *measured), tests=())
    values = {"peak": 0.25, "single": 50.0, "entropy": 1.5}
    lines = [
        ("maps", each.row, "d", seed, name, value * (1 + (each.row == "softmax")) + 0.01 * seed, "1", "k")
        for each in measured
        for seed in range(4)
        for name, value in values.items()
    ]
    results = pd.concat([results_of(TABLE2), pd.DataFrame(lines, columns=list(results_of(TABLE2).columns))], ignore_index=True)
    found = report.differences(results, experiment, exact=True)
    assert list(found[found["table"] == "maps"]["metric"]) == list(values)
    assert list(found[found["table"] == "maps"]["mean"]) == pytest.approx([0.25, 50.0, 1.5])
    own = report.table(results, experiment, table="maps")
    assert list(own.columns) == ["n", "entropy (nats)", "peak", "single (%)"]
    text = report.text(results, experiment)
    block = text[text.index("maps · d") :]
    assert all(name in block.splitlines()[1] for name in ("peak", "single (%)", "entropy (nats)"))
    assert "peak" not in text[: text.index("maps · d")]


def test_epochs_to_reach_by_hand() -> None:
    """Seed 0 of SAR crosses 30 half way from epoch 2 to 4; seed 1 starts above 40. DRLoc never gets there with seed 0 and with
    seed 1 half way from epoch 4 to 6. The baseline is there when it ends."""
    found = report.epochs_to_reach(*curves_of(HEIGHTS)).loc["d"]
    assert found["reached"].to_dict() == {"ViT": 2, "ViT + SAR": 2, "ViT + DRLoc": 1} and set(found["n"]) == {2}
    assert found.loc["ViT + SAR", "epochs"].startswith("2.5 ± ") and found.loc["ViT + SAR", "share"] == "42 %"
    assert found.loc["ViT + DRLoc", "epochs"] == "5.0" and found.loc["ViT", "epochs"].startswith("6.0")


def test_where_less_is_better_a_row_gets_there_from_above() -> None:
    falling = {row: [[100 - height for height in seed] for seed in seeds] for row, seeds in HEIGHTS.items()}
    found = report.epochs_to_reach(*curves_of(falling, metric="loss", leads=("loss",)))
    pd.testing.assert_frame_equal(found, report.epochs_to_reach(*curves_of(HEIGHTS)))


def test_a_row_that_never_gets_there_shows_a_gap() -> None:
    found = report.epochs_to_reach(*curves_of({"ViT": ([1, 2, 3],), "ViT + SAR": ([0, 1, 2],)})).loc["d"]
    assert found.loc["ViT + SAR", "reached"] == 0 and found.loc["ViT + SAR", "epochs"] == "–"


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_the_curves_are_those_of_table_4(preset: str, image_folder: Path) -> None:
    for data in (None, image_folder):
        table, figure = (experiments.declare(name, preset=preset, data=data) for name in ("table4", "figure3"))
        assert {run.key for run in figure.runs()} == {run.key for run in table.runs()}
        assert all(len({cell.epoch for cell in cells}) == 6 for cells in groups(figure.cells).values())
