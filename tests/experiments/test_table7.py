"""Table 7: which network starts where, what a start takes from its parent, and sets on which the claim says nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from sarlib import experiments, report
from sarlib.__main__ import main
from sarlib.experiments import table7
from sarlib.experiments.declaration import Experiment, Setting
from sarlib.models.pretrained import origin, start_from
from sarlib.run import Run
from sarlib.tasks import create
from sarlib.trainer.recipes import FINE_TUNING

#: Row: does SAR act in pre-training (None: there is none), variant in fine-tuning, and is the loss there?
ROWS = {
    "SAR in neither": (False, "A", False),
    "SAR in pre-training": (True, "C", False),
    "SAR in fine-tuning": (False, "C", True),
    "SAR in both": (True, "C", True),
    "no pre-training": (None, "A", False),
    "SAR in pre-training (stock block)": (True, "A", False),
}


def by_row(experiment: Experiment, dataset: str) -> dict[str, Run]:
    return {cell.row: cell.run for cell in experiment.cells if cell.dataset == dataset}


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_rows_differ_in_parent_block_and_loss_alone(preset: str) -> None:
    experiment = experiments.declare("table7", preset=preset)
    parents = {cell.row: cell.run for cell in experiments.declare("table4", preset=preset).cells}
    for dataset in {cell.dataset for cell in experiment.cells}:
        rows = by_row(experiment, dataset)
        assert list(rows) == list(ROWS)
        for row, (before, variant, loss) in ROWS.items():
            run = rows[row]
            assert run.pretrained == {None: None, False: parents["ViT"], True: parents["ViT + SAR"]}[before]
            assert (run.model.variant, [each.name for each in run.regularizers]) == (variant, ["spatial_entropy"] * loss)
            bare = dataclasses.replace(run, pretrained=None, model=rows["no pre-training"].model, regularizers=())
            assert bare == rows["no pre-training"]
        assert rows["no pre-training"].data.name != parents["ViT"].data.name, "another style than the parent's"
        assert rows["no pre-training"].data.image_size == parents["ViT"].data.image_size


def test_parent_and_child_share_their_seed() -> None:
    experiment = experiments.declare("table7", preset="tiny", seeds=2)
    for run in experiment.runs():
        assert {each.seed for each in run.lineage()} == {run.seed}
    keys = {run.key for run in experiments.declare("table4", preset="tiny", seeds=2).runs()}
    assert {run.pretrained.key for run in experiment.runs() if run.pretrained} < keys


@pytest.mark.parametrize("row", ROWS)
def test_a_start_takes_all_but_the_head_bit_by_bit(row: str) -> None:
    """Also of a parent with another number of classes; where the stock block comes back its second norm is new too."""
    run = by_row(experiments.declare("table7", preset="tiny"), "digits, 24 images")[row]
    if run.pretrained is None:
        return
    torch.manual_seed(1)
    weights = create(run.pretrained, 7).kept()
    weights = {name: tensor + torch.rand_like(tensor) for name, tensor in weights.items()}
    model = create(run, 10).model
    start_from(model, weights, **origin(run.pretrained))
    new = {name for name, tensor in model.state_dict().items() if name not in weights or not torch.equal(tensor, weights[name])}
    norm2 = {"blocks.1.norm2.weight", "blocks.1.norm2.bias"}
    assert new == {"head.weight", "head.bias"} | (norm2 if "stock" in row else set())


def test_the_paper_preset_fine_tunes_as_the_released_readme_says(paper_sets: Path) -> None:
    experiment = experiments.declare("table7", preset="paper", data=paper_sets)
    names = ("cifar10", "cifar100", "flowers102", "oxford-iiit-pet")
    assert tuple(dict.fromkeys(cell.dataset for cell in experiment.cells)) == names
    for cell in experiment.cells:
        run = cell.run
        assert (run.recipe, run.augmentation) == (FINE_TUNING.recipe, FINE_TUNING.augmentation)
        assert (run.data.image_size, run.data.train_size, run.data.test_crop, run.model.drop_path) == (224, None, 0.875, 0.1)
        assert [(each.weight, each.warmup_epochs) for each in run.regularizers] in ([], [(0.01, 10)])
        assert run.pretrained is None or (run.pretrained.data.name, run.pretrained.recipe.epochs) == ("imagenet", 300)


def _tree(root: Path, name: str, images: int) -> None:
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = root / name / split / label
            folder.mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")


def test_real_sets_start_from_imagenettes_networks(tmp_path: Path) -> None:
    """At their parent's patches and pixels, CIFAR-10 enlarged; a set smaller than the preset's number joins whole."""
    _tree(tmp_path, "cifar10", 30)
    _tree(tmp_path, "pets", 3)
    alone = experiments.declare("table7", preset="tiny", data=tmp_path)
    assert by_row(alone, "cifar10, 24 images")["SAR in both"].pretrained.data.name == "shapes-object"
    _tree(tmp_path, "imagenette", 30)
    experiment = experiments.declare("table7", preset="tiny", data=tmp_path)
    table4 = experiments.declare("table4", preset="tiny", data=tmp_path)
    parents = by_row(table4, "imagenette, 48 images")
    assert not [cell for cell in experiment.cells if cell.run.data.name == "imagenette"], "no network starts from its own set"
    for dataset, size in (("cifar10, 24 images", 24), ("pets, 6 images", 6)):
        rows = by_row(experiment, dataset)
        assert rows["SAR in both"].pretrained == parents["ViT + SAR"] and rows["SAR in neither"].pretrained == parents["ViT"]
        assert (rows["SAR in both"].data.train_size, rows["SAR in both"].data.image_size) == (size, 32)
        assert rows["SAR in both"].data.fingerprint and rows["SAR in both"].model.patch_size == 8
    embedded = by_row(experiment, "shapes-clipart, 24 images")
    assert embedded["SAR in both"].pretrained.data.name == "shapes-object"


def test_where_pre_training_does_not_help_the_claim_says_nothing() -> None:
    """On one of the four sets it harms: the claim cannot be tested, and why names the set."""
    experiment = experiments.declare("table7", preset="tiny")
    level = {"SAR in neither": 50.0, "no pre-training": 40.0}
    for harmed in (None, "digits, 24 images"):
        lines = [
            (cell.table, cell.row, cell.dataset, seed, "top1", value + 0.1 * seed * (1 + len(cell.row)), "%", "")
            for cell in experiment.cells
            for seed in experiment.seeds
            for value in [60.0 if cell.dataset == harmed and "no pre" in cell.row else level.get(cell.row, 55.0)]
        ]
        results = pd.DataFrame(lines, columns=["table", "row", "dataset", "seed", "metric", "value", "unit", "key"])
        line = report.verdicts(results, experiment).loc["t7"]
        if harmed is None:
            assert line.verdict == "supported"
        else:
            assert line.verdict == "cannot be tested at this size" and f"no pre-training, {harmed}" in line.note


@pytest.mark.parametrize(("what", "value"), [("patch_size", 4), ("heads", 4)])
def test_a_parent_that_does_not_fit_is_refused_in_one_line(
    what: str, value: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Before anything is trained: one of other patches, and one of other heads, whose tensors have the same shapes."""
    rows = table7.table4.rows

    def other(setting: Setting) -> dict[str, Run]:
        runs = rows(setting)
        return {
            row: dataclasses.replace(run, model=dataclasses.replace(run.model, **{what: value})) for row, run in runs.items()
        }

    monkeypatch.setattr(table7.table4, "rows", other)
    assert main(["table7", "--preset", "tiny", "--check"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "cannot start from run" in told and f"which has {what} {value}" in told
