"""Table 5: what each row starts from, what the claim asks for, which real sets join, and what is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from declared import key
from matplotlib.patches import Rectangle
from voc_layout import write_year

from sarlib import data, experiments, report
from sarlib.config import ConfigError
from sarlib.run import Run

PARENTS = {"ViT": "ViT", "ViT + SAR": "ViT + SAR", "ViT + SAR, last block left out": "ViT + SAR"}


def runs(experiment: experiments.Experiment, dataset: str | None = None) -> dict[str, Run]:
    return {cell.row: cell.run for cell in experiment.cells if dataset in (None, cell.dataset)}


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_networks_come_from_table_4_and_differ_in_one_thing_a_row(preset: str) -> None:
    five, four = (experiments.declare(name, preset=preset) for name in ("table5", "table4"))
    rows = runs(five)
    for row, parent in PARENTS.items():
        assert rows[row].pretrained.key == key(four, "table4", parent) and rows[row].model == rows[row].pretrained.model
    plain, sar, scratch, earlier = rows.values()
    assert dataclasses.replace(scratch, pretrained=plain.pretrained, task=plain.task) == plain and scratch.pretrained is None
    assert dataclasses.replace(earlier, task=sar.task) == sar and earlier.task.blocks_left_out == 1
    assert dataclasses.replace(sar, model=plain.model, pretrained=plain.pretrained) == plain
    assert plain.data.name != plain.pretrained.data.name, "other images, in another style"


def test_the_claim_is_about_vocs_metric_where_pre_training_helps() -> None:
    five = experiments.declare("table5", preset="laptop")
    (test,) = five.tests
    found = [(one.metric, [(n, row) for n, _, row, _ in one.terms]) for one in (*test.contrasts, *test.requires)]
    assert found == [("map07", [(1, "ViT + SAR"), (-1, "ViT")]), ("map07", [(1, "ViT"), (-1, "no pre-training")])]
    assert five.leads == ("map07", "map50", "map")


def test_the_paper_trains_as_vitdet_does(paper_sets: Path) -> None:
    five = experiments.declare("table5", preset="paper", data=paper_sets)
    run = runs(five)["ViT + SAR"]
    assert {cell.dataset for cell in five.cells} == {"VOC07+12"}
    assert (run.data.name, run.data.image_size, run.pretrained.data.name) == ("voc0712", 1024, "imagenet")
    assert (run.recipe.lr, run.recipe.batch_size, run.recipe.weight_decay) == (1e-4, 64, 0.1)
    assert (run.task.layer_decay, run.task.window, run.task.global_blocks, run.model.drop_path) == (0.7, 14, 4, 0.1)
    assert (run.task.anchors, run.task.convolutions, run.task.hidden) == ((32, 64, 128, 256, 512), 4, (1024,))


@pytest.fixture
def photographs(image_folder: Path) -> Path:
    """DATA with the tree `imagenette` and a folder `street` of sets with boxes."""
    (image_folder / "pets").rename(image_folder / "imagenette")
    write_year(image_folder / "street" / "VOCdevkit" / "VOC2012")
    return image_folder


def test_real_sets_join_at_twice_the_size_and_are_trained(photographs: Path, runs_folder: Path) -> None:
    dataset = "street/voc2012, 2 images"
    five = experiments.declare("table5", preset="tiny", data=photographs, seeds=1)
    assert list(dict.fromkeys(cell.dataset for cell in five.cells)) == ["shapes-painting, 48 images", dataset]
    assert len(five.tests[0].contrasts) == len(five.tests[0].requires) == 2
    embedded, real = runs(five, "shapes-painting, 48 images")["ViT"], runs(five, dataset)["ViT"]
    assert real.pretrained.data.name == "imagenette" and real.data.image_size == 2 * real.pretrained.data.image_size
    assert real.task.anchors == tuple(2 * size for size in embedded.task.anchors)
    short = dataclasses.replace(real, pretrained=None, recipe=dataclasses.replace(real.recipe, epochs=1))
    five = dataclasses.replace(five, cells=(dataclasses.replace(five.cells[-4], run=short),), drawn=())
    assert "map07" in set(experiments.run(five, workers=1, device="cpu").metric)


def test_found_boxes_are_drawn_below_the_true_ones(runs_folder: Path) -> None:
    five = experiments.declare("table5", preset="tiny", seeds=1)
    store = experiments.open_store()
    with pytest.raises(ConfigError, match="run the table first"):
        report.boxes(None, five, store=store)
    results = experiments.run(five, workers=1, device="cpu")
    pictures = report.boxes(results, five, store=store, score=0.0).axes
    assert len(pictures) == 4 * 6
    labels = [axes.get_ylabel() for axes in pictures[::6]]
    assert labels[0] == "test images,\ntrue boxes" and labels[1].startswith("ViT\nmAP, area ")
    _, test = data.load(five.cells[0].run.data, seed=0)
    for index, axes in enumerate(pictures[:6]):
        drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)][1::2]  # each has a white one below it
        assert [[*patch.get_xy(), *patch.get_corners()[2]] for patch in drawn] == test.objects(index).boxes.tolist()
    cell = five.drawn[1]
    found = store.read_measured(cell.with_seed(0), cell.measurement)["arrays"]["boxes"]
    assert [len(axes.patches) for axes in pictures[12:18]] == [2 * len(image) for image in found]
    strict = report.boxes(results, five, store=store, score=1.1).axes
    assert all(not axes.patches for axes in strict[6:])
