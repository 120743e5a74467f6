"""Tables as declared: complete, consistent between presets, sharing what they can share, testing claims about cells that exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sarlib import claims, data, experiments, report
from sarlib.config import ConfigError
from sarlib.results import read_csv

EMBEDDED_PRESETS = ("tiny", "laptop", "gpu")
EACH = pytest.mark.parametrize("name", experiments.TABLES)
ROWS = {
    "table1": list("ABCDEF"),
    "table2": ["ViT", "ViT + SAR"],
    "table4": ["ViT", "ViT + DRLoc", "ViT + SAR"],
    "figure3": ["ViT", "ViT + DRLoc", "ViT + SAR"],
}
PARTS = {"table1": {"table1a", "table1b", "table1c"}}


def key(experiment: experiments.Experiment, table: str, row: str, dataset: str | None = None) -> str:
    (found,) = {cell.run.key for cell in experiment.cells if (cell.table, cell.row) == (table, row) and dataset in (None, cell.dataset)}
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
    assert all((cell.table, cell.baseline, cell.dataset) in declared for cell in experiment.cells if cell.baseline)


@pytest.mark.parametrize(("name", "where"), [("table1", "Table 1"), ("table2", "Table 2"), ("table4", "Table 4"), ("figure3", "Figure 3")])
def test_every_claim_of_the_paper_about_the_table_is_tested(name: str, where: str) -> None:
    tested = [test.claim_id for test in experiments.declare(name, preset="tiny").tests]
    assert sorted(tested) == sorted(claim.id for claim in claims.load().values() if re.fullmatch(rf"{where}[a-c]?", claim.where))


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


def test_sar_differs_from_its_baseline_in_two_things_only() -> None:
    for preset in EMBEDDED_PRESETS:
        for cell in experiments.declare("table2", preset=preset).cells:
            assert cell.run.model.variant == ("A" if cell.baseline is None else "C")
            assert cell.run.regularizer.name == ("none" if cell.baseline is None else "spatial_entropy")
            assert cell.run.regularizer.weight == (0 if cell.baseline is None else 0.01)


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
    assert (run.regularizer.weight, run.regularizer.schedule, run.regularizer.warmup_epochs) == (0.01, "warmup-cosine", 10)
    assert {cell.run.recipe.epochs for cell in table1.cells if cell.table == "table1b"} == {100, 300}


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
