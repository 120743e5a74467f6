"""What a run is called: keys that committed results are found by, and runs that start from runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sarlib.config import Augmentation, ConfigError, Data, Published, Regularizer, Task
from sarlib.run import Measurement, Run

REFERENCE = Path(__file__).parents[1] / "runs" / "reference" / "store"
CHECKSUM = "0123456789abcdef" * 4


@pytest.fixture
def child(smallest_run: Run) -> Run:
    """The smallest run, on other images, from where the smallest run ended."""
    other = dataclasses.replace(smallest_run.data, name="shapes-sketch")
    return dataclasses.replace(smallest_run, data=other, pretrained=smallest_run)


def test_committed_results_are_found_by_the_key_of_their_declaration() -> None:
    configurations = sorted(REFERENCE.glob("*/config.json"))
    assert configurations
    for path in configurations:
        fields = json.loads(path.read_text())
        assert Run.from_dict(fields).key_of_version(fields.get("version", 1)) == path.parent.name


def test_the_key_follows_the_parents_declaration(child: Run) -> None:
    parent = child.pretrained
    assert isinstance(parent, Run)
    longer = dataclasses.replace(parent, recipe=dataclasses.replace(parent.recipe, epochs=4))
    runs = [
        child,
        dataclasses.replace(child, pretrained=None),
        dataclasses.replace(child, pretrained=longer),
        dataclasses.replace(child, pretrained=Published(name="timm/vit", sha256=CHECKSUM)),
        dataclasses.replace(child, pretrained=Published(name="timm/vit", sha256=CHECKSUM[::-1])),
    ]
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_a_lineage_shares_its_seed(child: Run) -> None:
    grandchild = dataclasses.replace(child, recipe=dataclasses.replace(child.recipe, epochs=1, evaluations=1), pretrained=child)
    seeded = grandchild.with_seed(7)
    assert [run.seed for run in seeded.lineage()] == [7, 7, 7]
    assert [run.pretrained for run in seeded.lineage()] == [None, *seeded.lineage()[:2]]
    assert seeded.with_seed(grandchild.seed) == grandchild
    with pytest.raises(ConfigError, match="shares the seed of the run that it starts from, got 3 and 0"):
        dataclasses.replace(child, seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 4}, "a run with heads 4 cannot start from run [0-9a-f]{16}, which has heads 2"),
        ({"patch_size": 4}, "patch_size 4"),
    ],
)
def test_a_start_from_another_architecture_is_refused(child: Run, change: dict[str, int], message: str) -> None:
    """More heads of the same width have the same shapes: only the declaration can tell them apart."""
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(child, model=dataclasses.replace(child.model, **change))


def test_variant_drop_path_and_image_size_may_differ_from_the_parents(child: Run) -> None:
    model = dataclasses.replace(child.model, variant="A", drop_path=0.1)
    run = dataclasses.replace(child, model=model, data=dataclasses.replace(child.data, image_size=64))
    assert (run.grid, run.pretrained) == (8, child.pretrained)


def test_regularizers_keep_the_names_that_records_have_for_them(smallest_run: Run) -> None:
    drloc = Regularizer(name="drloc", weight=0.5)
    both = dataclasses.replace(smallest_run, regularizers=(*smallest_run.regularizers, drloc))
    assert (both.to_dict()["regularizer"]["name"], both.to_dict()["second"]["name"]) == ("spatial_entropy", "drloc")
    turned = dataclasses.replace(both, regularizers=both.regularizers[::-1])
    assert turned.key != both.key
    with pytest.raises(ConfigError, match="at most 2 different regularizers, got spatial_entropy, drloc, pixel_entropy"):
        dataclasses.replace(both, regularizers=(*both.regularizers, Regularizer(name="pixel_entropy", weight=1.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: Published(name="timm/vit", sha256="ab"), "the checksum of timm/vit must be 64 hexadecimal digits"),
        (lambda run: Run.from_dict({**run.to_dict(), "optimizer": "sgd"}), "unknown optimizer"),
    ],
)
def test_bad_declarations_say_what_is_wrong(smallest_run: Run, make: Callable[[Run], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(smallest_run)


def test_every_field_of_a_measurement_is_in_its_key() -> None:
    data = Data(name="digits", image_size=32)
    other = Data(name="digits", image_size=64)
    made = [
        Measurement(name="collapse", data=data),
        Measurement(name="maps", data=data),
        Measurement(name="collapse", data=other),
    ]
    made.append(Measurement(name="collapse", data=data, images=8))
    assert len({measurement.key for measurement in made}) == len(made)


def test_networks_without_class_token_and_clips_came_later(smallest_run: Run) -> None:
    """A run without them is called, and written, as before."""
    assert not {"pool", "frames"} & {*smallest_run.to_dict()["model"], *smallest_run.to_dict()["data"]}
    pooled = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, pool="avg"))
    parts = {name: dataclasses.replace(getattr(smallest_run, name), frames=4) for name in ("data", "model")}
    loss = dataclasses.replace(smallest_run.regularizers[0], name="space_time_entropy")
    clips = dataclasses.replace(smallest_run, **parts, regularizers=(loss,))
    assert len({run.key for run in (smallest_run, pooled, clips)}) == 3
    for run in (pooled, clips):
        assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    with pytest.raises(ConfigError, match="segmentation is there for images and networks with class token"):
        dataclasses.replace(pooled, task=Task(name="segmentation"), regularizers=())
    with pytest.raises(ConfigError, match="a run with pool token cannot start from run [0-9a-f]{16}, which has pool avg"):
        dataclasses.replace(smallest_run, pretrained=pooled)


@pytest.mark.parametrize(
    ("of_data", "of_model", "changes", "message"),
    [
        (4, 1, {}, "clips of 4 frames cannot be seen by a network for 1"),
        (4, 4, {"augmentation": Augmentation(color_jitter=0.4)}, "leave color_jitter, rand_augment, erasing out"),
        (4, 4, {"regularizers": (Regularizer(name="drloc", weight=0.5),)}, "DRLoc is about positions in an image"),
        (1, 1, {"regularizers": (Regularizer(name="space_time_entropy", weight=0.1),)}, "needs clips of two frames"),
    ],
)
def test_clips_that_cannot_be_trained_on_are_refused(
    smallest_run: Run, of_data: int, of_model: int, changes: dict[str, object], message: str
) -> None:
    parts = {"data": of_data, "model": of_model}
    parts = {name: dataclasses.replace(getattr(smallest_run, name), frames=frames) for name, frames in parts.items()}
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(smallest_run, **parts, **changes)
