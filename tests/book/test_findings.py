"""What the book says of results is made from them: other results, other sentences. Claims and sets are put together by
the rules of their sources."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import attention
import chapter
import findings
import front
import interactions
import nbformat
import numpy as np
import pandas as pd
import pictures
import pytest
import results as tables
import stage
import staged_book
import synthesis
from claims_page import lines, page
from PIL import Image
from scipy import stats

from sarlib import experiments
from sarlib.report.judgement import VERDICTS, verdicts
from sarlib.report.statistics import mean_interval
from sarlib.tasks import metrics


@pytest.fixture
def found(tmp_path: Path) -> tables.Found:
    """Committed results of Table 9, in a folder of their own."""
    staged_book.copy_reference(tmp_path, ("table9",))
    everything, refused = tables.collect(tmp_path)
    assert refused == [] and [one.whose for one in everything] == [tables.REFERENCE]
    return everything[0]


def shifted(found: tables.Found, row: str, points: float) -> tables.Found:
    """The same table with this many points of top-1 more in one row, written and read again."""
    results = pd.read_csv(found.path, dtype={"key": str})
    results.loc[(results["row"] == row) & (results["metric"] == "top1"), "value"] += points
    results.to_csv(found.path, index=False)
    return tables.read(found.path, found.whose)


def test_a_changed_csv_changes_what_every_page_says(found: tables.Found, tmp_path: Path) -> None:
    row = found.experiment.cells[1].row
    other = shifted(found, row, -60.0)
    for say in (findings.sentences, findings.verdict_sentence, lambda one: findings.alternative(one, kind="figure")):
        assert say(found) != say(other)
    before, after = (page([one], [], out=tmp_path, pages=["table9"]) for one in (found, other))
    assert before["summary"] != after["summary"] and before["table"] != after["table"]
    assert "contradicted" in after["table"] and 'href="table9.html#table9-verdicts"' in after["table"]
    one, two = (float(re.search(r" = ([-+][\d.]+)", findings.sentences(each)[0])[1]) for each in (found, other))
    assert one - two == pytest.approx(60)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("table8", "Error on corrupted images"),
        ("table11", "Jaccard index"),
        ("self_supervised", "accuracy of nearest neighbours"),
    ],
)
def test_what_was_measured_of_finished_runs_is_told_too(tmp_path: Path, name: str, metric: str) -> None:
    staged_book.copy_reference(tmp_path, (name,))
    [found], _ = tables.collect(tmp_path)
    assert any(metric.lower() in line.lower() for line in findings.sentences(found))


def test_what_a_table_leads_with_has_a_name() -> None:
    tiny = [experiments.declare(name, preset="tiny") for name in experiments.TABLES]
    assert {next(filter(lambda lead: metrics.metric(lead).better, one.leads), "entropy") for one in tiny} <= {
        *findings.NAMES,
        "loss",
    }


def test_the_command_makes_the_same_results_again(found: tables.Found) -> None:
    """Which have more seeds than the preset."""
    assert found.results["seed"].nunique() == 8 and not found.declared.real and found.again == "make table9 SEEDS=8"
    fewer = dataclasses.replace(found, results=found.results[found.results["seed"] < 3])
    assert fewer.again == "make table9"


def test_after_all_seeds_the_slider_is_at_the_verdict(tmp_path: Path) -> None:
    """Which is over the real sets, where there are others beside them."""
    staged_book.copy_reference(tmp_path, ("table2",))
    [found], _ = tables.collect(tmp_path)
    assert 0 < len(found.declared.real) < len({cell.dataset for cell in found.declared.cells})
    judged = list(verdicts(found.results, found.declared)["verdict"].items())
    moved = [(claim["id"], claim["after"][-1]["verdict"]) for claim in interactions.seeds([found])["claims"]]
    assert moved and set(moved) <= set(judged)


def test_what_cheap_methods_reach_is_no_part_of_the_table(tmp_path: Path) -> None:
    staged_book.copy_reference(tmp_path, ("table2",))
    [found], _ = tables.collect(tmp_path)
    assert set(found.results["table"]) == {"table2", "table2-floors"}
    assert {cell.table for cell in found.experiment.cells} == {"table2"}


def test_the_first_page_leads_with_the_headline_once_it_is_there(found: tables.Found) -> None:
    missing = front.headline([found])
    assert "has no committed results yet" in missing
    there = tables.Found("headline", "laptop", "reference", found.path, found.results, found.declared, found.experiment)
    told = front.headline([found, there])
    assert told != missing and "top-1" in told and "no committed results" not in told


def test_what_the_loss_adds_is_said_at_each_of_its_weights(tmp_path: Path) -> None:
    staged_book.copy_reference(tmp_path, ("headline",))
    [found], _ = tables.collect(tmp_path)
    said = [line for line in front.parts(found) if "the entropy loss adds" in line]
    assert [re.search(r"λ = ([\d.]+)", line)[1] for line in said] == ["0.01", "0.3"]
    assert "matched dose, is better than ViT on imagenette and cifar10; " in front.in_words(found)


def test_a_row_that_only_the_results_have_is_shown_with_its_stored_run(found: tables.Found) -> None:
    results = found.results.replace({"row": {found.experiment.cells[1].row: "of an earlier declaration"}})
    experiment = tables.with_rows_of(results, found.declared, found.store)
    [cell] = [cell for cell in experiment.cells if cell.row == "of an earlier declaration"]
    key = results.loc[results["row"] == cell.row, "key"].iloc[0]
    stored = json.loads((found.store / key / "config.json").read_text())
    assert (cell.run.recipe.epochs, cell.run.data.train_size) == (stored["recipe"]["epochs"], stored["data"]["train_size"])
    assert cell.baseline == experiment.cells[0].row
    results = results.assign(dataset="another")
    assert {each.dataset for each in tables.with_rows_of(results, found.declared, found.store).cells} == {"another"}


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "laptop").mkdir()
    (tmp_path / "laptop" / "table9.csv").write_text("seed,key\n0,1\n")
    everything, [refused] = tables.collect(tmp_path)
    assert everything == [] and "table9.csv" in refused and str(tmp_path) not in refused
    assert refused in page(everything, [refused], out=tmp_path, pages=[])["untestable"]


def test_every_claim_of_the_paper_is_judged_or_has_its_reason(found: tables.Found, tmp_path: Path) -> None:
    from sarlib.experiments import claims

    made = page([found], [], out=tmp_path, pages=[])
    judged = {line.claim.id for line in lines([found])}
    for claim in claims.load().values():
        assert claim.id in judged or claim.claim in made["untestable"], claim.id


def test_a_claim_without_results_names_the_table_that_tests_it(tmp_path: Path) -> None:
    from sarlib import experiments
    from sarlib.experiments import claims

    tested: dict[str, set[str]] = {}
    for name in experiments.TABLES:
        for test in experiments.declare(name, preset="tiny", seeds=1).tests:
            tested.setdefault(test.claim_id, set()).add(name)
    said = page([], [], out=tmp_path, pages=[])["untestable"].splitlines()
    for claim, line in zip(claims.load().values(), said, strict=True):
        assert claim.claim in line and re.search(r"`make (\w+)`", line)[1] in tested.get(claim.id, {"bench"}), line


def test_runs_of_one_epoch_have_no_learning_curve(found: tables.Found, tmp_path: Path) -> None:
    """Their training is logged at epoch 0, their test at 1: two epochs, of which neither has two points."""
    course = pd.DataFrame([(0, "train", "loss", 2.0), (1, "test", "top1", 9.0)], columns=["epoch", "split", "metric", "value"])
    for key in found.results["key"].unique():
        course.to_csv(found.store / key / "metrics.csv", index=False)
    assert pictures.learning_curves(found, tmp_path / "curves.png") == "" and not (tmp_path / "curves.png").exists()


def test_pictures_of_the_first_page_do_not_say_who_drew_them(found: tables.Found, tmp_path: Path) -> None:
    """Another version of matplotlib would make other bytes of the same picture."""
    there = tables.Found("headline", "laptop", "reference", found.path, found.results, found.declared, found.experiment)
    assert front.figure([there], tmp_path)
    assert "Software" not in Image.open(tmp_path / "_figures" / "headline.png").text


def test_a_page_is_the_same_whatever_the_salt_of_hashes(tmp_path: Path) -> None:
    """Also of notebooks in the older format, whose cells have no id."""

    class Salted(str):
        __hash__ = object.__hash__

    staged_book.copy_reference(tmp_path, ("table9",))
    everything, _ = tables.collect(tmp_path)
    [shown] = stage.find_pages(stage.NOTEBOOKS / "table9.ipynb", runs=tmp_path, everything=everything)
    ids = set()
    for _ in range(2):
        shows = nbformat.v4.new_output("stream", name="stdout", text="a table")
        cell = nbformat.v4.new_code_cell(Salted("report.table(results, experiment)"), outputs=[shows])
        del cell["id"]
        ids |= {each.id for each in chapter._after(shown, cell, None, first=False)}
    assert len(ids) == 1


def test_the_command_that_keeps_maps_says_how_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.experiments, "run", lambda *_, **__: None)
    monkeypatch.setattr(attention, "_pictures", lambda *_, **__: {})
    monkeypatch.setattr(attention, "_maps", lambda *_, **__: {})
    usual, few = (attention.take("table2", None, preset="tiny", images=images)["command"] for images in (12, 3))
    assert usual == "python book/attention.py --table table2 --preset tiny" and few == f"{usual} --images 3"


def test_the_first_page_explains_every_verdict() -> None:
    chapter = (Path(staged_book.ROOT) / "book" / "intro.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^(.+)\n: ", chapter, re.MULTILINE)) == VERDICTS


def test_holms_correction_by_hand() -> None:
    assert synthesis.holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert synthesis.holm([0.9, 0.8]) == [1.0, 1.0]


def test_p_values_follow_the_rule_of_the_claim() -> None:
    draws = np.random.default_rng(0).normal(1.5, 1, size=(3, 9))
    intervals = [mean_interval(sample) for sample in draws]
    above = [stats.ttest_1samp(sample, 0, alternative="greater").pvalue for sample in draws]
    assert synthesis.p_value(intervals, "supported", rule="all") == pytest.approx(2 * max(above))
    assert synthesis.p_value(intervals, "supported", rule="any") == pytest.approx(min(1, 6 * min(above)))
    assert synthesis.p_value(intervals, "contradicted", rule="all") == 1.0


def sets_with(means: list[float], deviation: float, n: int) -> list:
    """Intervals of n values with these means and one standard error."""
    shape = np.linspace(-1, 1, n)
    shape *= deviation / shape.std(ddof=1)
    return [mean_interval(mean + shape) for mean in means]


def test_equally_precise_sets_have_the_t_interval_of_their_means() -> None:
    means = [3.0, -1.0, 4.0, 0.5]
    over, plain = synthesis.random_effects(sets_with(means, 1.0, 8)), mean_interval(means)
    variance = 1.0 / 8
    assert (over.mean.mean, over.mean.low, over.mean.high) == pytest.approx((plain.mean, plain.low, plain.high))
    between = np.var(means, ddof=1) - variance  # DerSimonian and Laird's estimate where all sets weigh the same
    assert over.between**2 == pytest.approx(between)
    half = stats.t.ppf(0.975, 2) * math.sqrt(between + (between + variance) / 4)
    assert (over.new.low, over.new.high) == pytest.approx((plain.mean - half, plain.mean + half))


def test_sets_that_agree_have_no_variance_between_them_and_two_sets_have_none_at_all() -> None:
    assert synthesis.random_effects(sets_with([1.0, 1.1, 0.9], 2.0, 8)).between == 0
    assert synthesis.random_effects(sets_with([1.0, 1.1], 2.0, 8)) is None


def test_every_figure_that_a_notebook_draws_has_words() -> None:
    """What draws a figure is a function of `sarlib.report` that returns one."""
    import inspect

    from sarlib import report

    called = set()
    for path in (Path(staged_book.ROOT) / "book" / "notebooks").glob("*.ipynb"):
        called |= set(re.findall(r"report\.(\w+)\(", path.read_text(encoding="utf-8")))
    figures = {name for name in called if "Figure" in str(inspect.signature(getattr(report, name)).return_annotation)}
    assert len(figures) > 5 and figures <= set(findings.SHOWS)
