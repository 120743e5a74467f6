"""Real sets below DATA: in which sizes they join a table, and what identifies their images."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarlib import data, experiments
from sarlib.experiments.presets import PRESETS
from sarlib.experiments.settings import Sets


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
