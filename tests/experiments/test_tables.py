"""Tables as declared: complete, alike at all presets, sharing what they can share, testing claims about cells that exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from declared import key

from sarlib import experiments, report
from sarlib.experiments import claims
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.results import read_csv

EMBEDDED_PRESETS = ("tiny", "laptop", "gpu")
EACH = pytest.mark.parametrize("name", experiments.TABLES)
ROWS = {
    "table1": list("ABCDEF"),
    "table2": ["ViT", "ViT + SAR"],
    "table4": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "table3": ["ViT", "ViT + DRLoc", "ViT + SAR", "ViT + SAR + DRLoc"],
    "table9": ["ViT", "ViT + SAR", "T2T", "T2T + SAR", "PVT", "PVT + SAR", "CvT", "CvT + SAR"],
    "table7": [
        "SAR in neither",
        "SAR in pre-training",
        "SAR in fine-tuning",
        "SAR in both",
        "no pre-training",
        "SAR in pre-training (stock block)",
    ],
    "table8": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "self_supervised": ["raw pixels", "random weights of DINO", "random weights of MoCo-v3"]
    + ["DINO", "DINO + SAR", "MoCo-v3", "MoCo-v3 + SAR"],
    "figure3": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "dose": ["0", "0.01", "0.03", "0.1", "0.3", "1"],
    "headline": ["ViT", "SAR's block", "ViT + SAR"],
    "appendix": ["no loss", "spatial entropy", "pixel entropy", "softmax entropy", "total variation", "disagreement"],
}
ROWS["table10"] = ROWS["table9"]
ROWS |= {"table6": ["ViT", "ViT + SAR", "no pre-training"], "multilabel": ["ViT", "ViT + SAR"]}
ROWS["table5"] = ROWS["table6"]
ROWS["table11"] = ROWS["table4"]
ROWS |= {"figure1": ["ViT", "ViT + SAR"], "figure2": ["ViT + SAR"], "figure4": ["ViT", "ViT + SAR"]}
ROWS["future_work"] = [
    f"{name}{sar}" for name in ("class token", "average pool", "small", "medium", "large") for sar in ("", " + SAR")
]
ROWS["future_work, clips"] = ["ViT", "SAR's block", "+ loss by frame", "+ loss over the clip"]
PARTS = {
    "table1": {"table1a", "table1b", "table1c"},
    "table10": {"table10", "table9"},  # the gain on few images, which that on many is to be smaller than
    "dose": {"dose", "dose-others"},
    "table8": {"table8a", "table8c"},
    "future_work": {"future-pool", "future-size", "future-video"},
    "appendix": {"appendix-losses", "appendix-collapse", "appendix-maps"},
}
ELSEWHERE = ("appendix", "multilabel", "self_supervised", "headline")  # what the text says of them stands at no table


@EACH
def test_every_declared_row_runs_at_tiny(name: str, runs_folder: Path) -> None:
    experiment = experiments.declare(name, preset="tiny", seeds=1)
    (seed,) = experiment.seeds
    results = experiments.run(experiment, workers=1, device="cpu")
    trained = [cell for cell in experiment.cells if cell.measurement is None]
    lead = results[(results.metric == experiment.leads[0]) & results.table.isin([cell.table for cell in trained])]
    assert list(zip(lead.table, lead.row, lead.dataset, lead.key, strict=True)) == [
        (cell.table, cell.row, cell.dataset, cell.with_seed(seed).key) for cell in trained
    ]
    shown = results[["table", "row", "dataset", "key"]].drop_duplicates()
    assert [*shown.itertuples(index=False, name=None)] == [
        (cell.table, cell.row, cell.dataset, cell.with_seed(seed).key) for cell in (*experiment.cells, *experiment.floors)
    ]
    assert np.isfinite(results.value).all()
    written = read_csv(runs_folder / "tiny" / f"{name}.csv")
    assert written.equals(results.astype(written.dtypes.to_dict()))
    assert experiment.cells[0].dataset in report.text(written, experiment)


@EACH
@pytest.mark.parametrize("preset", EMBEDDED_PRESETS)
def test_presets_change_sizes_only(name: str, preset: str) -> None:
    experiment = experiments.declare(name, preset=preset)
    tables = {cell.table for cell in experiment.cells}
    assert tables == PARTS.get(name, {name})
    for dataset in {cell.dataset for cell in experiment.cells}:
        # parts that show some of the rows again, or other ones
        left_out = {"table1a", "table1b", "dose-others"} | ({"table9"} if name == "table10" else set())
        rows = [cell.row for cell in experiment.cells if cell.table not in left_out and cell.dataset == dataset]
        if not rows:
            continue
        own = f"{name}, clips" if dataset.endswith("clips") else name
        assert list(dict.fromkeys(row.partition(",")[0] for row in rows)) == ROWS[own]


@EACH
@pytest.mark.parametrize("preset", EMBEDDED_PRESETS)
def test_claims_and_baselines_are_about_declared_cells(name: str, preset: str) -> None:
    experiment = experiments.declare(name, preset=preset)
    declared = {(cell.table, cell.row, cell.dataset) for cell in experiment.cells}
    for test in experiment.tests:
        assert all(term[1:] in declared for contrast in test.contrasts for term in contrast.terms), test.claim_id
    assert all(term[1:] in declared for contrast in experiment.contrasts for term in contrast.terms)
    assert all((cell.table, cell.baseline, cell.dataset) in declared for cell in experiment.cells if cell.baseline)


@pytest.mark.parametrize(
    ("name", "where"), [(name, name.capitalize().replace("e", "e ")) for name in experiments.TABLES if name not in ELSEWHERE]
)
def test_every_claim_of_the_paper_about_the_table_is_tested(name: str, where: str) -> None:
    tested = [test.claim_id for test in experiments.declare(name, preset="tiny").tests]
    assert sorted(tested) == sorted(
        claim.id for claim in claims.load().values() if re.fullmatch(rf"{where}[a-c]?", claim.where)
    )


HYBRIDS = ("ViT", "T2T", "PVT", "CvT")
#: Claim: what the paper says is above what, by rows.
ABOVE = {
    "t1a-best-lambda": {("0.01", "0"), ("0.01", "0.001"), ("0.01", "0.1")},
    "t1b-300": {("ViT + SAR, 600 epochs", "ViT, 600 epochs")},
    "t1c-B": {("B", "A")},
    "t1c-C": {("C", "A")},
    "t1c-D": {("A", "D")},
    "t1c-E": {("E", "A"), ("C", "E")},
    "t1c-F": {("F", "A")},
    "t2-min": {("ViT + SAR", "ViT")},
    "t2-max": {("ViT + SAR", "ViT")},
    "t3-75": {("ViT + SAR", "ViT")},
    "t3-75-drloc": {("ViT + SAR", "ViT + DRLoc")},
    "t3-order": {("ViT + SAR", "ViT + DRLoc"), ("ViT + DRLoc", "ViT")},
    "fig4": {("ViT", "ViT + SAR")},
    "t11": {("ViT + SAR", "ViT")},
    "t5": {("ViT + SAR", "ViT")},
    "t6": {("ViT + SAR", "ViT")},
    "multilabel": {("ViT + SAR", "ViT")},
    "t4-sar": {("ViT + SAR", "ViT"), ("ViT + SAR", "ViT + DRLoc")},
    "t7": {(row, "SAR in neither") for row in ("SAR in pre-training", "SAR in fine-tuning", "SAR in both")},
    "t8-a": {("ViT + SAR", "ViT")},
    "t8-c": {("ViT", "ViT + SAR")},
    "t9": {(f"{name} + SAR", name) for name in HYBRIDS},
    "t10": {(f"{name} + SAR", name) for name in HYBRIDS} | {("ViT + SAR", name) for name in HYBRIDS[1:]},
    "ssl": {("DINO + SAR", "DINO"), ("MoCo-v3 + SAR", "MoCo-v3")},
    "fig3-250": {("ViT + SAR, epoch 30", "ViT, epoch 36")},
}
#: On how many data sets, where it is not one.
ON = {"t11": 4, "t2-min": 3, "t2-max": 3, "t3-order": 4, "t7": 4}


def test_claims_are_about_the_rows_that_the_text_compares() -> None:
    tests = {test.claim_id: test for name in experiments.TABLES for test in experiments.declare(name, preset="laptop").tests}
    assert set(tests) - set(ABOVE) == {"t1b-grows", "t4-base", "fig3-100", "few-labels"}
    for name, rows in ABOVE.items():
        terms = [contrast.terms for contrast in tests[name].contrasts if len(contrast.terms) == 2]
        assert {(above[2], below[2]) for above, below in terms} == rows, name
        assert all((above[0], below[0]) == (1, -1) and above[1::2] == below[1::2] for above, below in terms), name
        assert len({above[3] for above, _ in terms}) == ON.get(name, 1), name
    assert {test.claim_id for test in tests.values() if test.rule == "any"} == {"t2-max"}


def test_marginal_comparable_and_smaller_are_contrasts_too() -> None:
    """t1c-E and t10: "not worse" leaves a margin, the smallest effect of interest; a smaller gain is a difference."""
    tests = {test.claim_id: test for name in ("table1", "table10") for test in experiments.declare(name, preset="laptop").tests}
    assert [one.margin for one in tests["t1c-E"].contrasts] == [1.0, 0.0]
    margins = [(one.label, one.margin) for one in tests["t10"].contrasts if one.margin]
    assert margins == [(f"ViT + SAR - {name}", 1.0) for name in HYBRIDS[1:]]
    (smaller,) = [one for one in tests["t10"].contrasts if len(one.terms) == 4]
    assert {(weight, table, row) for weight, table, row, _ in smaller.terms} == {
        (1, "table9", "ViT + SAR"),
        (-1, "table9", "ViT"),
        (-1, "table10", "ViT + SAR"),
        (1, "table10", "ViT"),
    }
    for name in ("t1a-best-lambda", "t1c-E"):
        assert [one.metric for one in tests[name].requires] == ["entropy"]


def test_claims_are_tested_on_every_set_that_has_the_rows(image_folder: Path) -> None:
    for name in ("table1", "table2", "table3", "table4", "table9", "table10", "figure3"):
        experiment = experiments.declare(name, preset="tiny", data=image_folder)
        sets = {cell.dataset for cell in experiment.cells}
        on = {dataset for test in experiment.tests for dataset in test.datasets}
        assert on == sets or name == "table10" and on == sets - {"shapes-object, 48 images"}, name
        assert experiment.real == {dataset for dataset in sets if dataset.startswith("pets")}


def test_a_restricted_table_is_judged_on_the_sets_that_are_left(image_folder: Path) -> None:
    table2 = experiments.declare("table2", preset="tiny", data=image_folder, datasets="pets, 12 images")
    assert {dataset for test in table2.tests for dataset in test.datasets} == {"pets, 12 images"}
    assert {cell.dataset for cell in table2.floors} == {"pets, 12 images"}


def test_table1_shares_its_runs() -> None:
    table1 = experiments.declare("table1", preset="laptop")
    assert key(table1, "table1a", "0") == key(table1, "table1c", "C")
    assert key(table1, "table1a", "0.01") == key(table1, "table1c", "F") == key(table1, "table1b", "ViT + SAR, 200 epochs")
    assert key(table1, "table1b", "ViT, 200 epochs") == key(table1, "table1c", "A")
    assert len({cell.run.key for cell in table1.cells}) == 10, "six rows, two more weights, two longer trainings"


def test_tables_1_and_2_share_runs() -> None:
    one, two = experiments.declare("table1", preset="laptop"), experiments.declare("table2", preset="laptop")
    dataset = "shapes-object, 500 images"
    assert key(one, "table1c", "A") == key(two, "table2", "ViT", dataset)
    assert key(one, "table1c", "F") == key(two, "table2", "ViT + SAR", dataset)


def test_what_stands_in_for_in100_is_trained_once() -> None:
    one, two, three, nine, ten, rest = (
        experiments.declare(name, preset="laptop") for name in ("table1", "table2", "table3", "table9", "table10", "appendix")
    )
    whole = "shapes-object, 500 images (100 %)"
    assert key(one, "table1c", "A") == key(three, "table3", "ViT", whole) == key(nine, "table9", "ViT")
    assert key(one, "table1c", "F") == key(three, "table3", "ViT + SAR", whole) == key(nine, "table9", "ViT + SAR")
    assert key(one, "table1c", "C") == key(rest, "appendix-losses", "no loss") == key(rest, "appendix-collapse", "no loss")
    assert key(one, "table1a", "0.1") == key(rest, "appendix-losses", "spatial entropy, λ = 0.1")
    assert key(one, "table1c", "F") == key(two, "table2", "ViT + SAR", "shapes-object, 500 images")
    assert {cell.run.data.train_size for cell in ten.cells if cell.table == "table10"} == {2000}
    assert key(ten, "table9", "ViT + SAR") == key(nine, "table9", "ViT + SAR"), "few images, which Table 9 has too"


def test_shares_are_of_the_whole_and_differ_in_nothing_else() -> None:
    table3 = experiments.declare("table3", preset="laptop")
    runs = [cell.run for cell in table3.cells if cell.row == "ViT"]
    assert [run.data.train_size for run in runs] == [125, 250, 375, 500]
    assert len({dataclasses.replace(run, data=runs[0].data, recipe=runs[0].recipe).key for run in runs}) == 1
    steps = [run.recipe.epochs * (run.data.train_size // run.recipe.batch_size) for run in runs]
    assert steps == [2000, 2000, 2002, 2000] and [run.recipe.warmup_epochs for run in runs] == [100, 40, 29, 20]
    both = next(cell.run for cell in table3.cells if cell.row == "ViT + SAR + DRLoc")
    assert (both.model.variant, [each.name for each in both.regularizers]) == ("C", ["spatial_entropy", "drloc"])


def test_alternatives_to_sar_stand_where_sar_does_under_its_schedule() -> None:
    appendix = experiments.declare("appendix", preset="laptop")
    none = next(cell.run for cell in appendix.cells if cell.row == "no loss")
    for cell in appendix.cells:
        assert dataclasses.replace(cell.run, regularizers=()) == none and none.model.variant == "C"
        if cell.table == "appendix-losses" and cell.run != none:
            assert (cell.run.regularizers[0].schedule, cell.run.regularizers[0].weight) == (
                "warmup-cosine",
                float(cell.row.split("= ")[1]),
            )


@pytest.mark.parametrize("preset", EMBEDDED_PRESETS)
def test_the_collapse_is_measured_of_the_runs_that_show_it(preset: str) -> None:
    """Of every seed as numbers, and of the first as maps to draw; all rows on the same images, those of their own test set."""
    appendix = experiments.declare("appendix", preset=preset, seeds=2)
    trained = [cell for cell in appendix.cells if cell.table == "appendix-collapse"]
    measured = [cell for cell in appendix.cells if cell.measurement is not None]
    bare = [dataclasses.replace(cell, table="appendix-collapse", measurement=None) for cell in measured]
    assert bare == trained and {cell.table for cell in measured} == {"appendix-maps"}
    assert {(cell.measurement.name, cell.measurement.images) for cell in measured} == {("collapse", 500)}
    assert [(cell.row, cell.run) for cell in appendix.drawn] == [(cell.row, cell.run) for cell in trained]
    assert {(cell.measurement.name, cell.measurement.images) for cell in appendix.drawn} == {("maps", 8)}
    assert all(cell.measurement.data == cell.run.data for cell in (*measured, *appendix.drawn))


def test_sar_differs_from_its_baseline_in_two_things_only() -> None:
    for preset in EMBEDDED_PRESETS:
        for cell in experiments.declare("table2", preset=preset).cells:
            assert cell.run.model.variant == ("A" if cell.baseline is None else "C")
            found = [(each.name, each.weight) for each in cell.run.regularizers]
            assert found == ([] if cell.baseline is None else [("spatial_entropy", 0.01)])


def test_real_sets_join_the_tables_of_shares_and_architectures(image_folder: Path) -> None:
    joined = {name: experiments.declare(name, preset="tiny", data=image_folder) for name in ("table3", "table9", "table10")}
    added = {name: {cell.dataset for cell in found.cells if cell.run.data.name == "pets"} for name, found in joined.items()}
    assert added["table3"] == {f"pets, {size} images ({share} %)" for size, share in ((3, 25), (6, 50), (9, 75), (12, 100))}
    assert added["table9"] == added["table10"] == {"pets, 12 images"}


@pytest.mark.parametrize("preset", EMBEDDED_PRESETS)
def test_hosts_differ_from_themselves_with_sar_in_block_and_loss_alone(preset: str) -> None:
    """Every row is measured of frozen features on its own images, and what is drawn is measured of the trained ones."""
    hosts = experiments.declare("self_supervised", preset=preset)
    cells = {cell.row: cell for cell in hosts.cells}
    assert {row: cell.measurement.name for row, cell in cells.items()} == dict(
        zip(cells, ("pixels", *["untrained_features"] * 2, *["features"] * 4), strict=True)
    )
    for name, task in (("DINO", "dino"), ("MoCo-v3", "moco")):
        host, sar = cells[name].run, cells[f"{name} + SAR"].run
        assert (host.task.name, host.model.variant, host.regularizers) == (task, "A", ())
        assert [each.name for each in sar.regularizers] == ["spatial_entropy"] and sar.model.variant == "C"
        assert dataclasses.replace(sar, model=host.model, regularizers=()) == host == cells[f"random weights of {name}"].run
        assert host.model.heads == PRESETS[preset].model.heads
    assert all(cell.measurement.data == cell.run.data and cell.measurement.images is None for cell in hosts.cells)
    assert [(cell.row, cell.run) for cell in hosts.drawn] == [
        (row, cell.run) for row, cell in cells.items() if cell.measurement.name == "features"
    ]


def test_the_claim_about_hosts_asks_for_hosts_that_learned() -> None:
    (test,) = experiments.declare("self_supervised", preset="laptop").tests
    rows = [[term[2] for term in contrast.terms] for contrast in test.requires]
    assert rows == [["DINO", "random weights of DINO"], ["MoCo-v3", "random weights of MoCo-v3"]]
    assert {contrast.metric for contrast in (*test.requires, *test.contrasts)} == {"knn"} and test.rule == "all"


def test_hosts_learn_from_as_many_real_images(image_folder: Path) -> None:
    hosts = experiments.declare("self_supervised", preset="tiny", data=image_folder)
    sets = {"shapes-object, 48 images", "pets, 12 images"}
    assert {cell.dataset for cell in hosts.cells} == sets
    assert {term[3] for test in hosts.tests for contrast in test.contrasts for term in contrast.terms} == sets
    real = next(cell.run for cell in hosts.cells if cell.run.data.name == "pets")
    assert real.data.fingerprint and (real.data.image_size, real.model.patch_size) == (32, 8)
