"""The four sizes: what each is, that nothing but the declaration depends on which it is, and that a fifth is one entry."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from declared import key

from sarlib import experiments, last_block, models
from sarlib.__main__ import main
from sarlib.config import Data, Model
from sarlib.data import IN_FOLDERS
from sarlib.experiments.presets import PRESETS, Training
from sarlib.experiments.results import parameters

EACH = pytest.mark.parametrize("name", experiments.TABLES)


def declared(name: str, preset: str, root: Path | None) -> experiments.Experiment:
    return experiments.declare(name, preset=preset, data=root, seeds=2)


@EACH
@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_depends_on_what_a_preset_is_called(
    name: str, preset: str, image_folder: Path, paper_sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "fifth", dataclasses.replace(PRESETS[preset], name="fifth"))
    root = paper_sets if preset == "paper" else image_folder
    fifth, known = declared(name, "fifth", root), declared(name, preset, root)
    assert fifth == dataclasses.replace(known, preset="fifth")


@EACH
def test_a_fifth_preset_is_one_entry(
    name: str, monkeypatch: pytest.MonkeyPatch, runs_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its data, its model and its number of seeds are in every table, also from the command line."""
    few = Training(data=Data(name="shapes-sketch", image_size=48, train_size=30, test_size=20))
    fifth = dataclasses.replace(
        PRESETS["tiny"],
        name="fifth",
        seeds=4,
        model=Model(patch_size=8, dim=36, depth=3, heads=3),
        in100=few,
        in1k=few,
        many_images=few,
        small_sets=(few,),
        fine_tuning=dataclasses.replace(PRESETS["tiny"].fine_tuning, sets=("shapes-sketch",)),
        detection=dataclasses.replace(PRESETS["tiny"].detection, data=few.data),
        segmentation=dataclasses.replace(PRESETS["tiny"].segmentation, data=few.data),
        multilabel=few,
        sized=few,
        sizes=((36, 3, 3),) * 3,
        clips=dataclasses.replace(few, data=dataclasses.replace(few.data, frames=2)),
    )
    monkeypatch.setitem(PRESETS, "fifth", fifth)
    experiment = experiments.declare(name, preset="fifth")
    assert (experiment.preset, len(experiment.seeds)) == ("fifth", 4)
    assert {cell.run.data.name for cell in experiment.cells} == {"shapes-sketch"}
    assert {(cell.run.model.dim, cell.run.data.image_size) for cell in experiment.cells} == {(36, 48)}
    assert main([name, "--preset", "fifth", "--device", "cpu", "--check"]) == 0
    with pytest.raises(SystemExit):
        main(["--help"])
    assert fifth.about in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("preset", "size", "grids"), [("tiny", 32, (4, 4, 4, 2)), ("laptop", 64, (8, 8, 8, 4)), ("gpu", 112, (14, 14, 14, 7))]
)
def test_small_architectures_have_the_size_of_the_presets_vit(preset: str, size: int, grids: tuple[int, ...]) -> None:
    chosen = PRESETS[preset].architectures()
    counts = [parameters(model, image_size=size) for model in chosen.values()]
    assert max(counts) < 2 * min(counts)
    images = torch.zeros(2, 3, size, size)
    maps = [
        last_block.forward(models.create(model, classes=10, image_size=size).eval(), images).similarity
        for model in chosen.values()
    ]
    assert tuple(each.shape[-1] for each in maps) == grids
    assert {each.shape[1] for each in maps} == {PRESETS[preset].model.heads}


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
    ten = dataclasses.replace(ten, cells=tuple(cell for cell in ten.cells if cell.table == "table10"))
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


def test_the_small_sets_at_paper_are_trained_as_long_as_el_nouby_et_al_did(paper_sets: Path) -> None:
    table2 = experiments.declare("table2", preset="paper", data=paper_sets)
    names = ("Stanford Cars", "DomainNet clipart", "DomainNet painting", "DomainNet sketch")
    assert tuple(dict.fromkeys(cell.dataset for cell in table2.cells)) == names
    assert {cell.run.data.name for cell in table2.cells} <= set(IN_FOLDERS), "which the readers know"
    assert {(cell.run.recipe.epochs, cell.run.recipe.batch_size) for cell in table2.cells} == {(5000, 1024)}
