"""Tables 6 and multilabel: what each row starts from, which real sets join, and VOC's test images in and out of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from declared import key
from voc_layout import add_image

from sarlib import data, experiments, report
from sarlib.config import ConfigError
from sarlib.report.pictures import coloured
from sarlib.run import Run
from sarlib.tasks.segmentation import label_map

PRETRAINED = ("ViT", "ViT + SAR", "ViT + SAR, last block left out")


def runs(experiment: experiments.Experiment, dataset: str | None = None) -> dict[str, Run]:
    return {cell.row: cell.run for cell in experiment.cells if dataset in (None, cell.dataset)}


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_networks_come_from_table_4_and_keep_their_last_block(preset: str) -> None:
    six, four = (experiments.declare(name, preset=preset) for name in ("table6", "table4"))
    rows = runs(six)
    for row, parent in zip(PRETRAINED, ("ViT", "ViT + SAR", "ViT + SAR"), strict=True):
        assert rows[row].pretrained.key == key(four, "table4", parent)
        assert rows[row].model == rows[row].pretrained.model
    scratch = rows["no pre-training"]
    assert scratch.pretrained is None and scratch.task.layer_decay == 1.0
    assert dataclasses.replace(scratch, pretrained=rows["ViT"].pretrained, task=rows["ViT"].task) == rows["ViT"]
    earlier = rows["ViT + SAR, last block left out"]
    assert dataclasses.replace(earlier, task=rows["ViT + SAR"].task) == rows["ViT + SAR"] and earlier.task.blocks_left_out == 1
    assert rows["ViT"].data.name != rows["ViT"].pretrained.data.name, "other images, in another style"
    assert [cell.row for cell in six.drawn] == ["ViT", "ViT + SAR", "no pre-training"]


def test_the_claim_asks_for_pre_training_that_helps() -> None:
    (test,) = experiments.declare("table6", preset="laptop").tests
    ((above, below),) = (contrast.terms for contrast in test.requires)
    assert (above[0], above[2], below[0], below[2]) == (1, "ViT", -1, "no pre-training")
    assert {each.metric for each in (*test.contrasts, *test.requires)} == {"miou"}


def test_laptop_takes_two_thousand_steps() -> None:
    for name in ("table6", "multilabel"):
        for run in runs(experiments.declare(name, preset="laptop")).values():
            assert run.recipe.epochs * (run.data.train_size // run.recipe.batch_size) >= 2000


def test_several_labels_are_learned_in_rows_of_table_1() -> None:
    rows = runs(experiments.declare("multilabel", preset="laptop"))
    found = [(run.model.variant, len(run.regularizers), run.pretrained, run.task.name) for run in rows.values()]
    assert found == [("A", 0, None, "multilabel"), ("C", 0, None, "multilabel"), ("C", 1, None, "multilabel")]


def test_real_sets_join_and_start_from_photographs(photographs: Path) -> None:
    six = experiments.declare("table6", preset="tiny", data=photographs)
    new, people = (f"{place}/voc2012-masks, 2 images" for place in ("new", "people"))
    old = "old/voc12-07-masks, 2 images, without 1 test images"
    literal = old.replace("without", "literally: with")
    assert list(dict.fromkeys(cell.dataset for cell in six.cells)) == ["shapes-painting, 48 images", new, old, literal, people]
    for dataset in (new, old):
        rows = runs(six, dataset)
        assert {rows[row].pretrained.data.name for row in PRETRAINED} == {"imagenette"}
        assert rows["ViT"].recipe.epochs == 48 and rows["ViT"].data.image_size == rows["ViT"].pretrained.data.image_size
    (test,) = six.tests
    assert test.note == "test images in old/voc12-07-masks-literal: 1 by name, 0 by content"
    assert [contrast.terms[0][3] for contrast in test.contrasts] == ["shapes-painting, 48 images", new, old, people]
    labels = experiments.declare("multilabel", preset="tiny", data=photographs)
    sets = [f"{name}, 2 images" for name in ("new/voc2012", "old/voc2007")]
    assert list(dict.fromkeys(cell.dataset for cell in labels.cells)) == ["shapes-object, 48 images", *sets]
    rows = runs(labels, "old/voc2007, 2 images")
    assert {row: (run.model.variant, run.pretrained.model.variant, run.pretrained.data.name) for row, run in rows.items()} == {
        "ViT": ("A", "A", "imagenette"),
        "ViT, SAR's block": ("C", "C", "imagenette"),
        "ViT + SAR": ("C", "C", "imagenette"),
    }
    assert rows["ViT + SAR"].pretrained.regularizers and rows["ViT + SAR"].regularizers


def test_without_networks_that_saw_photographs_real_sets_are_refused(photographs: Path) -> None:
    (photographs / "imagenette").rename(photographs / "pets")
    with pytest.raises(ConfigError, match="trained on imagenette, which is not below DATA"):
        experiments.declare("table6", preset="tiny", data=photographs)


def test_real_sets_are_trained_and_measured_at_tiny(photographs: Path, runs_folder: Path) -> None:
    for name, dataset in (("table6", "new/voc2012-masks, 2 images"), ("multilabel", "new/voc2012, 2 images")):
        experiment = experiments.declare(name, preset="tiny", data=photographs, seeds=1, datasets=dataset)
        experiment = dataclasses.replace(experiment, cells=experiment.cells[:1])
        results = experiments.run(experiment, workers=1, device="cpu")
        assert {"table6": "miou", "multilabel": "mlmap"}[name] in set(results.metric)


def test_both_protocols_stand_in_the_papers_table(paper_sets: Path) -> None:
    (alone,) = {cell.dataset for cell in experiments.declare("table6", preset="paper", data=paper_sets).cells}
    assert alone == "VOC12 to VOC07", "nothing to leave out"
    add_image(paper_sets / "VOCdevkit" / "VOC2012", "2007_a", (1, 200, 3), "trainval")
    six = experiments.declare("table6", preset="paper", data=paper_sets)
    first, second = dict.fromkeys(cell.dataset for cell in six.cells)
    assert first == "VOC12 to VOC07, without 1 test images"
    assert second == first.replace("without", "literally: with")
    clean, literal = runs(six, first), runs(six, second)
    assert literal["ViT"].data.name == clean["ViT"].data.name + "-literal" and clean["ViT"].pretrained.data.name == "imagenet"
    assert {term[3] for contrast in six.tests[0].contrasts for term in contrast.terms} == {first}
    assert (clean["ViT"].task.channels, clean["ViT"].recipe.lr, clean["ViT"].data.image_size) == (256, 1e-4, 512)
    labels = experiments.declare("multilabel", preset="paper", data=paper_sets)
    assert {run.pretrained.data.name for run in runs(labels).values()} == {"imagenet"}


def test_found_classes_are_drawn_beside_the_truth(runs_folder: Path) -> None:
    six = experiments.declare("table6", preset="tiny", seeds=1)
    store = experiments.open_store()
    with pytest.raises(ConfigError, match="run the table first"):
        report.segments(None, six, store=store)
    results = experiments.run(six, workers=1, device="cpu")
    pictures = [axes for axes in report.segments(results, six, store=store).axes if axes.images]
    labels = [axes.get_ylabel() for axes in pictures[::6]]
    assert labels[:2] == ["test images", "truth"] and labels[2].startswith("ViT\nmIoU ")
    rows = np.array([axes.images[0].get_array() for axes in pictures[6:]]).reshape(4, 6, 32, 32, 3)
    _, test = data.load(six.drawn[0].run.data, seed=0)
    found = [store.read_measured(cell.run, cell.measurement)["arrays"]["classes"] for cell in six.drawn]
    for index in range(6):
        image = np.asarray(test.view(index, 32))
        assert (pictures[index].images[0].get_array() == image).all()
        for row, classes in zip(rows, [label_map(test, index), *(each[index] for each in found)], strict=True):
            np.testing.assert_allclose(row[index], coloured(image, np.asarray(classes)))


def test_a_class_has_a_colour_void_is_white_and_the_background_is_the_image() -> None:
    image = np.full((2, 2, 3), (0, 51, 102), dtype=np.uint8)
    (background, one), (void, again) = coloured(image, np.array([[0, 1], [255, 1]]))
    assert np.allclose(background, 0.2) and np.allclose(void, 0.4 * 0.2 + 0.6) and np.ptp(one) > 0.1 and (one == again).all()


def test_the_matched_dose_is_fine_tuned_and_judged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sarlib.experiments.doses.matched", lambda name, preset: 0.3)
    for table, weight in (("table6", None), ("multilabel", 0.3)):
        experiment = experiments.declare(table, preset="laptop")
        run = runs(experiment)["ViT + SAR, matched dose"]
        trained = run if weight else run.pretrained
        assert trained.regularizers[0].weight == 0.3 and run.model.variant == "C"
        assert [test.dose for test in experiment.tests] == ["", "matched dose"]
        (contrast,) = experiment.tests[1].contrasts
        assert [term[2] for term in contrast.terms] == ["ViT + SAR, matched dose", "ViT"]
