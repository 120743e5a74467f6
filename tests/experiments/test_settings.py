"""Real sets below DATA: in which sizes they join a table, and what identifies their images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sarlib import data, experiments
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.settings import Sets
from sarlib.runner.store import Store


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


@pytest.mark.parametrize(("available", "sizes"), [(100, [100]), (700, [500]), (2000, [500, 2000]), (60_000, [500, 2000, 9469])])
def test_a_set_joins_in_the_subsets_that_it_can_fill(
    available: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smallest first, each for its own number of epochs; a set smaller than all of them whole, for those of the smallest."""
    monkeypatch.setattr(data, "discover", lambda root: ("birds", "cifar10"))
    monkeypatch.setattr(data, "inspect", lambda name, *, root: (available, 50, f"of {name}"))
    birds, cifar10 = Sets(PRESETS["laptop"], tmp_path).real()
    epochs = {500: (200, 20.0), 2000: (50, 5.0), 9469: (12, 1.0)}
    assert [each.dataset for each in birds] == [f"birds, {size} images" for size in sizes]
    for size, each in zip(sizes, birds, strict=True):
        recipe, spec = each.baseline.recipe, each.baseline.data
        assert (recipe.epochs, recipe.warmup_epochs) == epochs.get(size, epochs[500])
        assert (each.regularizer.warmup_epochs, each.drloc.warmup_epochs) == (recipe.warmup_epochs,) * 2
        assert (spec.train_size, spec.test_size, spec.fingerprint) == (size, None, "of birds")
    assert {(each.baseline.data.image_size, each.baseline.model.patch_size) for each in birds} == {(64, 8)}
    assert {(each.baseline.data.image_size, each.baseline.model.patch_size) for each in cifar10} == {(32, 4)}, (
        "32 px of its own"
    )


def test_few_test_images_at_tiny_and_no_real_sets_where_all_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "discover", lambda root: ("birds",))
    for tested, expected in ((41, 40), (40, None), (12, None)):
        monkeypatch.setattr(data, "inspect", lambda name, *, root, tested=tested: (100, tested, "f"))
        ((setting,),) = Sets(PRESETS["tiny"], tmp_path).real()
        assert setting.baseline.data.test_size == expected
    assert Sets(PRESETS["paper"], tmp_path).real() == Sets(PRESETS["tiny"], None).real() == []


def test_the_headline_judges_on_photographs_alone(photographs: Path) -> None:
    shutil.copytree(photographs / "imagenette", photographs / "cifar10")
    (test,) = experiments.declare("headline", preset="tiny", data=photographs).tests
    compared = {(contrast.dataset, contrast.terms[0][2], contrast.terms[1][2]) for contrast in test.contrasts}
    assert compared == {(f"{name}, 12 images", "ViT + SAR", "ViT") for name in ("imagenette", "cifar10")}
    (test,) = experiments.declare("headline", preset="tiny").tests
    assert "judged on imagenette and cifar10" in test.untestable


@pytest.mark.parametrize("name", experiments.TABLES)
def test_what_records_tell_of_real_sets_declares_a_table_again(name: str, photographs: Path, store: Store) -> None:
    """Their images may be gone: those of the runs, of what they start from, and of what is measured on."""
    shutil.copytree(photographs / "imagenette", photographs / "cifar10")
    shutil.copytree(photographs / "imagenette", photographs / "davis2016-val" / "JPEGImages" / "bear", dirs_exist_ok=True)
    experiment = experiments.declare(name, preset="tiny", data=photographs, seeds=2)
    results = as_trained(experiment, store)
    (store.root / "0123456789abcdef").mkdir()
    (store.root / "0123456789abcdef" / "config.json").write_text("{")  # a record that cannot be read
    results.loc[len(results)] = [experiment.cells[0].dataset, experiment.seeds[0], "0123456789abcdef"]
    again = experiments.declare_again(name, results, preset="tiny", store=store)
    noted = tuple(dataclasses.replace(each, note=by.note) for each, by in zip(again.tests, experiment.tests, strict=True))
    assert dataclasses.replace(again, tests=noted) == dataclasses.replace(experiment, data_root=None)


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "table6", "table7", "table8", "table11"])
def test_so_do_they_where_all_sets_are_real(name: str, paper_sets: Path, store: Store) -> None:
    experiment = experiments.declare(name, preset="paper", data=paper_sets)
    again = experiments.declare_again(name, as_trained(experiment, store), preset="paper", store=store)
    assert again == dataclasses.replace(experiment, data_root=None)


def as_trained(experiment: experiments.Experiment, store: Store) -> pd.DataFrame:
    """What a declaration reads of the results, and the records behind them in the `store`."""
    for run in experiment.runs():
        found = experiment.found.get(run.data.name)
        images = found and (run.data.train_size or found.train, run.data.test_size or found.test)
        store.folder(run).mkdir(parents=True, exist_ok=True)
        (store.folder(run) / "config.json").write_text(json.dumps(run.to_dict()))
        (store.folder(run) / "result.json").write_text(json.dumps({"metrics": {}, "provenance": {"images": images}}))
    for run, measurement in experiment.measurements():
        with store.lock(run):
            store.write_measured(run, measurement, {"metrics": {}, "arrays": {}})
    places = [(cell.dataset, seed, cell.with_seed(seed).key) for cell in experiment.cells for seed in experiment.seeds]
    return pd.DataFrame(places, columns=["dataset", "seed", "key"])


def test_the_images_of_a_set_are_listed_once(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many settings a table has of it; what was found there is said by the declaration."""
    asked, inspect = [], data.inspect
    monkeypatch.setattr(data, "inspect", lambda name, *, root: asked.append(name) or inspect(name, root=root))
    experiment = experiments.declare("table8", preset="tiny", data=image_folder)
    assert asked == ["pets"] == list(experiment.found)
    assert data.summary(experiment.found) == "pets: 2 classes, 12 training and 8 test images, files ignored: none"
