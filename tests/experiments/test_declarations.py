"""Tables as declared: complete, consistent between presets, sharing what they can share, testing claims about cells that exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sarlib import data, experiments, last_block, models, report
from sarlib.config import ConfigError
from sarlib.experiments import claims
from sarlib.experiments.architectures import architectures
from sarlib.experiments.csv import read_csv
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.results import parameters

EMBEDDED_PRESETS = ("tiny", "laptop", "gpu")
EACH = pytest.mark.parametrize("name", experiments.TABLES)
ROWS = {
    "table1": list("ABCDEF"),
    "table2": ["ViT", "ViT + SAR"],
    "table4": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "table3": ["ViT", "ViT + DRLoc", "ViT + SAR", "ViT + SAR + DRLoc"],
    "table9": ["ViT", "ViT + SAR", "T2T", "T2T + SAR", "PVT", "PVT + SAR", "CvT", "CvT + SAR"],
    "figure3": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "appendix": ["no loss", "spatial entropy", "pixel entropy", "softmax entropy", "total variation", "disagreement"],
}
ROWS["table10"] = ROWS["table9"]
PARTS = {"table1": {"table1a", "table1b", "table1c"}, "appendix": {"appendix-losses", "appendix-collapse"}}


def key(experiment: experiments.Experiment, table: str, row: str, dataset: str | None = None) -> str:
    (found,) = {
        cell.run.key for cell in experiment.cells if (cell.table, cell.row) == (table, row) and dataset in (None, cell.dataset)
    }
    return found


@EACH
def test_every_declared_row_runs_at_tiny(name: str, runs_folder: Path) -> None:
    experiment = experiments.declare(name, preset="tiny", seeds=1)
    results = experiments.run(experiment, workers=1, device="cpu")
    top1 = results[results.metric == "top1"]
    assert list(zip(top1.table, top1.row, top1.dataset, top1.key, strict=True)) == [
        (cell.table, cell.row, cell.dataset, cell.run.key) for cell in experiment.cells
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
        rows = [cell.row for cell in experiment.cells if cell.table not in ("table1a", "table1b") and cell.dataset == dataset]
        assert list(dict.fromkeys(row.partition(",")[0] for row in rows)) == ROWS[name]


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
    ("name", "where"), [(name, name.capitalize().replace("e", "e ")) for name in experiments.TABLES if name != "appendix"]
)
def test_every_claim_of_the_paper_about_the_table_is_tested(name: str, where: str) -> None:
    tested = [test.claim_id for test in experiments.declare(name, preset="tiny").tests]
    assert sorted(tested) == sorted(
        claim.id for claim in claims.load().values() if re.fullmatch(rf"{where}[a-c]?", claim.where)
    )


def test_table1_shares_its_runs() -> None:
    table1 = experiments.declare("table1", preset="laptop")
    assert key(table1, "table1a", "0") == key(table1, "table1c", "C")
    assert key(table1, "table1a", "0.01") == key(table1, "table1c", "F") == key(table1, "table1b", "ViT + SAR, 36 epochs")
    assert key(table1, "table1b", "ViT, 36 epochs") == key(table1, "table1c", "A")
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
    many = "shapes-object, 2000 images"
    assert key(two, "table2", "ViT + SAR", many) == key(ten, "table10", "ViT + SAR", many)


def test_shares_are_of_the_whole_and_differ_in_nothing_else() -> None:
    table3 = experiments.declare("table3", preset="laptop")
    runs = [cell.run for cell in table3.cells if cell.row == "ViT"]
    assert [run.data.train_size for run in runs] == [125, 250, 375, 500]
    assert len({dataclasses.replace(run, data=runs[0].data).key for run in runs}) == 1
    both = next(cell.run for cell in table3.cells if cell.row == "ViT + SAR + DRLoc")
    assert (both.model.variant, [each.name for each in both.regularizers]) == ("C", ["spatial_entropy", "drloc"])


def test_rivals_stand_where_sar_does_under_its_schedule() -> None:
    appendix = experiments.declare("appendix", preset="laptop")
    none = next(cell.run for cell in appendix.cells if cell.row == "no loss")
    for cell in appendix.cells:
        assert dataclasses.replace(cell.run, regularizers=()) == none and none.model.variant == "C"
        if cell.table == "appendix-losses" and cell.run != none:
            assert (cell.run.regularizers[0].schedule, cell.run.regularizers[0].weight) == (
                "warmup-cosine",
                float(cell.row.split("= ")[1]),
            )


@pytest.mark.parametrize(
    ("preset", "size", "grids"), [("tiny", 32, (4, 4, 4, 2)), ("laptop", 64, (8, 8, 8, 4)), ("gpu", 112, (14, 14, 14, 7))]
)
def test_small_architectures_have_the_size_of_the_presets_vit(preset: str, size: int, grids: tuple[int, ...]) -> None:
    chosen = architectures(PRESETS[preset])
    counts = [parameters(model, image_size=size) for model in chosen.values()]
    assert max(counts) < 2 * min(counts)
    images = torch.zeros(2, 3, size, size)
    maps = [
        last_block.forward(models.create(model, classes=10, image_size=size).eval(), images).similarity
        for model in chosen.values()
    ]
    assert tuple(each.shape[-1] for each in maps) == grids
    assert {each.shape[1] for each in maps} == {PRESETS[preset].model.heads}


def test_sar_differs_from_its_baseline_in_two_things_only() -> None:
    for preset in EMBEDDED_PRESETS:
        for cell in experiments.declare("table2", preset=preset).cells:
            assert cell.run.model.variant == ("A" if cell.baseline is None else "C")
            found = [(each.name, each.weight) for each in cell.run.regularizers]
            assert found == ([] if cell.baseline is None else [("spatial_entropy", 0.01)])


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """A root in ImageNet's layout: IN-100's classes, one file each, which a declaration never opens."""
    classes = Path(data.__file__).with_name("imagenet100.txt").read_text().split()
    for split in ("train", "val"):
        for name in classes:
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            (folder / "0.JPEG").touch()
    return tmp_path


def test_the_paper_preset_is_the_papers_protocol(imagenet: Path) -> None:
    """Numbers of section 5.1, Liu et al. and the released trainer."""
    table1 = experiments.declare("table1", preset="paper", data=imagenet)
    run = next(cell.run for cell in table1.cells if (cell.table, cell.row) == ("table1c", "F"))
    assert (run.model.patch_size, run.model.dim, run.model.depth, run.model.heads, run.grid) == (16, 384, 12, 6, 14)
    assert (run.recipe.epochs, run.recipe.batch_size, run.recipe.lr) == (100, 1024, 1e-3)
    assert (run.recipe.warmup_epochs, run.recipe.clip, run.recipe.min_lr) == (20, 5.0, 5e-6)
    (regularizer,) = run.regularizers
    assert (regularizer.weight, regularizer.schedule, regularizer.warmup_epochs) == (0.01, "warmup-cosine", 10)
    assert {cell.run.recipe.epochs for cell in table1.cells if cell.table == "table1b"} == {100, 300}


def test_the_paper_preset_has_the_published_architectures(imagenet: Path) -> None:
    """Parameters in millions as the architectures' papers give them, and each architecture's own recipe on IN-1K only."""
    nine, ten = (experiments.declare(name, preset="paper", data=imagenet) for name in ("table9", "table10"))
    for experiment in (nine, ten):
        sizes = {
            cell.row: parameters(cell.run.model, image_size=224) / 1e6 for cell in experiment.cells if cell.baseline is None
        }
        assert sizes == pytest.approx({"ViT": 22.05, "T2T": 21.5, "PVT": 24.5, "CvT": 20.0}, abs=0.1)
        assert [cell.run.grid for cell in experiment.cells] == [14] * 4 + [7] * 4
        assert {cell.run.model.drop_path for cell in experiment.cells} == {0.1}
    assert {(cell.run.recipe.epochs, cell.run.recipe.lr) for cell in nine.cells} == {(100, 1e-3)}
    recipes = {cell.row: (cell.run.recipe.epochs, cell.run.recipe.lr, cell.run.recipe.batch_size) for cell in ten.cells}
    assert recipes == {
        row: expected
        for name, expected in {
            "ViT": (300, 1e-3, 1024),
            "T2T": (310, 1e-3, 512),
            "PVT": (300, 1e-3, 1024),
            "CvT": (300, 2e-3, 2048),
        }.items()
        for row in (name, f"{name} + SAR")
    }
    table4 = experiments.declare("table4", preset="paper", data=imagenet)
    assert key(ten, "table10", "ViT + SAR") == key(table4, "table4", "ViT + SAR")
    three = experiments.declare("table3", preset="paper", data=imagenet)
    assert [cell.run.data.train_size for cell in three.cells if cell.row == "ViT"] == [25, 50, 75, None]
    drloc = next(cell.run.regularizers[0] for cell in three.cells if cell.row == "ViT + DRLoc")
    assert (drloc.weight, drloc.hidden, drloc.warmup_epochs) == (0.5, 512, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "table99"}, "unknown table 'table99'; choose from table1, table2"),
        ({"preset": "huge"}, "unknown preset 'huge'; choose from tiny, laptop, gpu, paper"),
        ({"seeds": 0}, "1 or more; got 0"),
        ({"seeds": -3}, "1 or more; got -3"),
        ({"data": "/no/such/folder"}, "no such folder"),
        ({"datasets": "mnist"}, "has no data set mnist; it has shapes-object, 48 images"),
        ({"preset": "paper"}, "DATA"),
    ],
)
def test_bad_arguments_are_refused_before_training(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiments.declare(**({"name": "table2", "preset": "tiny"} | arguments))


def test_real_sets_join_with_their_own_keys(image_folder: Path, runs_folder: Path) -> None:
    plain = experiments.declare("table2", preset="tiny")
    joined = experiments.declare("table2", preset="tiny", data=image_folder, seeds=1)
    added = [cell for cell in joined.cells if cell not in plain.cells]
    assert [(cell.row, cell.dataset) for cell in added] == [("ViT", "pets, 12 images"), ("ViT + SAR", "pets, 12 images")]
    assert all(cell.run.data.fingerprint for cell in added)
    results = experiments.run(joined.only(["pets, 12 images"]), workers=1, device="cpu")
    assert set(results.dataset) == {"pets, 12 images"}

    (image_folder / "pets" / "train" / "cat" / "0.png").unlink()
    changed = experiments.declare("table2", preset="tiny", data=image_folder, seeds=1)
    assert not {cell.run.key for cell in added} & {cell.run.key for cell in changed.cells}, "other files are another run"


def test_real_sets_join_the_tables_of_shares_and_architectures(image_folder: Path) -> None:
    joined = {name: experiments.declare(name, preset="tiny", data=image_folder) for name in ("table3", "table9", "table10")}
    added = {name: {cell.dataset for cell in found.cells if cell.run.data.name == "pets"} for name, found in joined.items()}
    assert added["table3"] == {f"pets, {size} images ({share} %)" for size, share in ((3, 25), (6, 50), (9, 75), (12, 100))}
    assert added["table9"] == added["table10"] == {"pets, 12 images"}


def test_a_reference_is_a_copy_of_complete_results(runs_folder: Path) -> None:
    experiment = experiments.declare("table2", preset="tiny", seeds=1).only(["digits, 48 images"])
    with pytest.raises(ConfigError, match="run the table first"):
        experiments.keep_as_reference(experiment)
    results = experiments.run(experiment, workers=1, device="cpu")
    experiments.keep_as_reference(experiment)
    kept = read_csv(runs_folder / "reference" / "tiny" / "table2.csv")
    assert kept.value.tolist() == results.value.tolist()
    assert {path.name for path in (runs_folder / "reference" / "store").rglob("*") if path.is_file()} == {
        "config.json",
        "metrics.csv",
        "result.json",
    }
