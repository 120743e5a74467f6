"""The functions of the notebook to explore: another run, a regulariser from a file, a network by its key, one's own picture."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sarlib import explore, regularizers
from sarlib.config import ConfigError, Regularizer
from sarlib.entropy import map_entropy
from sarlib.run import Run

OWN = "def scale(similarity):\n    return similarity.square().mean()\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "losses_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "losses_of_a_test", raising=False)  # an earlier test's
    return "losses_of_a_test:scale"


def test_a_run_is_changed_in_what_is_named_and_nothing_else(smallest_run: Run) -> None:
    assert explore.changed(smallest_run) == smallest_run
    heavier = explore.changed(smallest_run, weight=0.3)
    assert heavier.regularizers[0].weight == 0.3 and heavier.regularizers[0].schedule == "warmup-cosine"
    assert explore.changed(smallest_run, weight=0).regularizers == ()
    assert explore.changed(smallest_run, variant="A").model.variant == "A"
    short = explore.changed(smallest_run, epochs=1)
    assert short.recipe.epochs == 1 and short.model == smallest_run.model and short.key != smallest_run.key
    assert explore.changed(explore.changed(smallest_run, weight=0), weight=0.1).regularizers[0].name == "spatial_entropy"
    two = dataclasses.replace(smallest_run, regularizers=(*smallest_run.regularizers, Regularizer(name="drloc", weight=0.05)))
    assert explore.changed(two, weight=0.3).regularizers[1:] == two.regularizers[1:]


def test_another_regularizer_keeps_weight_and_schedule_and_is_the_run_that_a_table_declares(smallest_run: Run) -> None:
    shared = {"weight": 0.5, "schedule": "warmup-linear", "warmup_epochs": 2}
    drloc, entropy = (
        dataclasses.replace(smallest_run, regularizers=(each,))
        for each in (Regularizer(name="drloc", pairs=64, **shared), Regularizer(name="spatial_entropy", **shared))
    )
    assert explore.changed(drloc, regularizer="spatial_entropy").key == entropy.key
    assert explore.changed(drloc, regularizer="drloc", weight=0.1).regularizers[0].pairs == 64, "it is the same one"


def test_a_regularizer_of_ones_own_is_its_function_of_s(own: str) -> None:
    module = regularizers.create(Regularizer(name=own, weight=0.1), dim=8, heads=2, grid=(4, 4))
    assert module.field == "similarity" and not module.needs_tokens
    assert float(module.function(torch.full((2, 2, 4, 4), 3.0))) == 9.0


def test_an_edited_function_is_another_run(smallest_run: Run, own: str, tmp_path: Path) -> None:
    """Its source is in the key, and what is trained is what the file holds: not what was imported, not what was declared."""

    def value(run: Run) -> float:
        module = regularizers.create(run.regularizers[0], dim=16, heads=2, grid=(4, 4))
        return float(module.function(torch.full((2, 2, 4, 4), 3.0)))

    first = explore.changed(smallest_run, regularizer=own)
    assert explore.changed(smallest_run, regularizer=own) == first and value(first) == 9.0
    (tmp_path / "losses_of_a_test.py").write_text(OWN.replace("square", "abs"))
    second = explore.changed(first, weight=0.01)
    assert second.key != first.key and value(second) == 3.0
    with pytest.raises(ConfigError, match="losses_of_a_test.py was edited since .*declare the run again"):
        value(first)
    kept = Run.from_dict(json.loads(json.dumps(first.to_dict())))
    assert kept == first and kept.key == first.key, "a record keeps the source that it was trained with"
    assert "source" not in smallest_run.to_dict()["regularizer"], "others are written as before"


@pytest.mark.parametrize("name", ["no_such_module_here:f", "math:no_such_function"])
def test_a_function_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*where Python is started"):
        regularizers.create(Regularizer(name=name, weight=0.1), dim=8, heads=2, grid=(4, 4))
    with pytest.raises(ConfigError, match="module:function"):
        Regularizer(name="entropy", weight=0.1)


def test_from_a_run_of_ones_own_to_what_it_looks_at(smallest_run: Run, own: str, runs_folder: Path) -> None:
    run = explore.changed(smallest_run, epochs=1, regularizer=own, weight=0.1)
    metrics = explore.train(run, device="cpu")
    assert explore.train(run) == metrics, "answered from the store"
    loaded, model = explore.load(run.key[:6])
    assert loaded == run and not model.training
    picture = Image.new("RGB", (90, 60), "teal")
    picture.putpixel((45, 30), (255, 255, 255))
    figure = explore.look(loaded, model, picture)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == run.model.heads and all(title.startswith("H = ") for title in titles)
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    maps = torch.as_tensor(drawn[1])
    assert titles[0] == f"H = {float(map_entropy(maps)):.2f}"


def test_a_key_without_a_run_is_named(runs_folder: Path) -> None:
    with pytest.raises(ConfigError, match="0 runs in .* begin with 'ffff'"):
        explore.load("ffff")
