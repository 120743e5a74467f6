"""The table of what the paper leaves to future work: what differs between its rows, and DAVIS where it lies below DATA."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from declared import key
from PIL import Image

from sarlib import experiments
from sarlib.__main__ import main
from sarlib.config import ConfigError
from sarlib.experiments.presets import PRESETS
from sarlib.run import Run


def runs(experiment: experiments.Experiment, table: str) -> dict[str, Run]:
    return {cell.row: cell.run for cell in experiment.cells if cell.table == table}


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_rows_differ_in_what_they_are_called_after(preset: str) -> None:
    experiment = experiments.declare("future_work", preset=preset)
    for name in ("class token", "average pool"):
        plain, sar = (runs(experiment, "future-pool")[row] for row in (name, f"{name} + SAR"))
        assert plain.model.pool == sar.model.pool == ("token" if name == "class token" else "avg")
        assert (plain.model.variant, sar.model.variant, len(plain.regularizers)) == ("A", "C", 0)
        (loss,) = sar.regularizers
        assert (loss.name, loss.weight) == ("spatial_entropy", PRESETS[preset].regularizer.weight)
    token, average = (runs(experiment, "future-pool")[row] for row in ("class token", "average pool"))
    assert dataclasses.replace(average, model=dataclasses.replace(average.model, pool="token")) == token
    assert key(experiment, "future-pool", "class token + SAR") == key(experiment, "future-size", "medium + SAR")
    sizes = [runs(experiment, "future-size")[row].model for row in ("small", "medium", "large")]
    assert [model.dim for model in sizes] == sorted({model.dim for model in sizes})
    one, *others = runs(experiment, "future-size").values()
    assert all((run.recipe, run.data, run.augmentation) == (one.recipe, one.data, one.augmentation) for run in others)


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_the_two_losses_of_clips_differ_in_nothing_but_the_components(preset: str) -> None:
    rows = runs(experiments.declare("future_work", preset=preset), "future-video")
    by_frame, over_time = rows["+ loss by frame"], rows["+ loss over the clip"]
    renamed = dataclasses.replace(by_frame.regularizers[0], name="space_time_entropy")
    assert dataclasses.replace(by_frame, regularizers=(renamed,)) == over_time
    assert dataclasses.replace(by_frame, regularizers=()) == rows["SAR's block"]
    assert by_frame.regularizers[0].weight == PRESETS[preset].clips_weight
    frames = PRESETS[preset].clips.data.frames
    assert {(run.data.frames, run.model.frames, run.augmentation.flip) for run in rows.values()} == {(frames, frames, 0.0)}


def test_enough_steps_where_accuracy_is_compared() -> None:
    for cell in experiments.declare("future_work", preset="laptop").cells:
        assert cell.run.recipe.epochs * (cell.run.data.train_size // cell.run.recipe.batch_size) >= 2000


def test_the_paper_preset_has_the_published_sizes_and_ucf101(paper_sets: Path) -> None:
    experiment = experiments.declare("future_work", preset="paper", data=paper_sets)
    sizes = [runs(experiment, "future-size")[row].model for row in ("small", "medium", "large")]
    assert [(model.dim, model.depth, model.heads) for model in sizes] == [(192, 12, 3), (384, 12, 6), (768, 12, 12)]
    assert {run.data.name for run in runs(experiment, "future-video").values()} == {"ucf101"}
    (paper_sets / "ucfTrainTestlist" / "testlist01.txt").unlink()
    with pytest.raises(ConfigError, match="ucf101 is not below .*: expected DATA/UCF-101"):
        experiments.declare("future_work", preset="paper", data=paper_sets)


def test_davis_is_shown_to_networks_trained_on_photographs(image_folder: Path, runs_folder: Path) -> None:
    root = image_folder
    assert "future-davis" not in {cell.table for cell in experiments.declare("future_work", preset="tiny", data=root).cells}
    for frame in range(7):
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            path = root / "davis2016-val" / kind / "bear" / f"{frame:05d}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.zeros((20, 40), np.uint8)
            grey[5:15, 2 * frame : 2 * frame + 12] = 255
            Image.fromarray(grey if kind == "Annotations" else np.stack([grey] * 3, -1)).save(path)
    experiment = experiments.declare("future_work", preset="tiny", data=root, seeds=1)
    cells = [cell for cell in experiment.cells if cell.table == "future-davis"]
    assert [cell.row for cell in cells] == ["ViT", "ViT + SAR"]
    pooled = runs(experiment.only([cell.dataset for cell in experiment.cells if "pets" in cell.dataset]), "future-pool")
    assert [cell.run for cell in cells] == [pooled["class token"], pooled["class token + SAR"]], "no further training"
    only = experiment.only({cells[0].dataset})
    found = experiments.run(only, workers=1, device="cpu")
    assert {"jaccard", "jaccard_random", "components", "clip_components", "mixed_components"} <= set(found.metric)
    assert np.isfinite(found.value).all() and len(found) == 2 * found.metric.nunique()
    assert main(["future_work", "--preset", "tiny", "--data", str(root), "--device", "cpu", "--seeds", "1", "--check"]) == 0
