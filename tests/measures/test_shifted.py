"""Errors on shifted images: the right columns of the network, every image once, and the figures by hand."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from measured import measure_all
from PIL import Image
from torch import nn
from untrained import keep

from sarlib import data, last_block, models
from sarlib.config import ConfigError, Data
from sarlib.data import corruptions, released
from sarlib.data.images import Images
from sarlib.measures import shifted, take
from sarlib.measures.finished import Finished
from sarlib.run import Measurement, Run
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store
from sarlib.tasks.classification import Classification

ONE = Machine("cpu", workers=1, threads=1)
LISTS = resources.files("timm.data").joinpath("_info")
CPU = torch.device("cpu")


def listed(name: str) -> list[str]:
    return LISTS.joinpath(name).read_text().split()


def test_imagenet_as_columns_are_those_of_its_authors() -> None:
    wnids = sorted(listed("imagenet_a_synsets.txt"))
    found = shifted.columns(tuple(wnids), outputs=1000)
    assert found[:10] == [6, 11, 13, 15, 17, 22, 23, 27, 30, 37] and found[-6:] == [980, 981, 984, 986, 987, 988]
    assert len(found) == 200 and sum(found) == 102_178 and found == [int(place) for place in listed("imagenet_a_indices.txt")]


def test_a_network_with_the_sets_own_classes_is_taken_as_it_is() -> None:
    assert shifted.columns(("disc", "square", "star"), outputs=3) == [0, 1, 2]
    assert shifted.columns(tuple(listed("imagenet_synsets.txt")), outputs=1000) == list(range(1000))


@pytest.mark.parametrize(("classes", "outputs"), [(("n01498041", "cat"), 1000), (("n01498041", "n01531178"), 100)])
def test_classes_that_a_network_does_not_know_are_refused(classes: tuple[str, ...], outputs: int) -> None:
    with pytest.raises(ConfigError, match=f"a network of {outputs} classes does not know all of ") as error:
        shifted.columns(classes, outputs=outputs)
    assert "\n" not in str(error.value)


@pytest.fixture
def thousand(smallest_run: Run) -> nn.Module:
    torch.manual_seed(0)
    return models.create(smallest_run.model, classes=1000, image_size=32).eval()


def test_the_largest_logit_is_sought_among_the_sets_classes_alone(
    smallest_run: Run, thousand: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of five classes wins for some images; over all 1,000 outputs none of them does."""
    wnids = tuple(sorted(listed("imagenet_a_synsets.txt"))[:5])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(labels=torch.arange(40) % 5, classes=wnids, pixels=pixels)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        logits = last_block.forward(thousand, (pixels / 255 - mean) / std).logits
    expected = 100 * np.mean(logits[:, [6, 11, 13, 15, 17]].argmax(1).numpy() == np.arange(40) % 5)
    monkeypatch.setattr(Finished, "images", lambda *_: images)
    finished, wanted = Finished(smallest_run, thousand.state_dict()), Measurement(name="natural", data=smallest_run.data)
    found = shifted.natural(finished, wanted)
    assert found["metrics"] == {"natural": pytest.approx(expected)} and 0 < expected < 100
    assert not set(logits.argmax(1).tolist()) & {6, 11, 13, 15, 17}


@pytest.fixture
def imagenet_c(tmp_path: Path) -> Path:
    """In each of the 75 folders two classes of two grey images, lighter with severity; and the same as ImageNet-A."""
    for place in (*released.places("imagenet-c"), *released.places("imagenet-a")):
        for wnid in ("n01498041", "n01531178"):
            folder = tmp_path / "data" / place / wnid
            folder.mkdir(parents=True)
            for number in range(2):
                shade = 30 * int(place[-1]) if place[-1].isdigit() else 0
                Image.fromarray(np.full((32, 32, 3), 20 + shade + 40 * number, np.uint8)).save(folder / f"{number}.JPEG")
    return tmp_path / "data"


def test_imagenet_c_is_measured_folder_by_folder(
    imagenet_c: Path, smallest_run: Run, thousand: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From files that nothing keeps decoded; the mCE is that of the errors that stand beside it."""
    monkeypatch.setenv("SAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shifted, "error", lambda model, images, **_: float(images.files[0].parts[-3]) + len(images))
    measurement = Measurement(name="corrupted", data=Data(name="imagenet-c", image_size=32))
    weights = thousand.state_dict()
    found = take(Finished(smallest_run, weights, imagenet_c), measurement)
    assert found["arrays"] == {name: [5.0, 6.0, 7.0, 8.0, 9.0] for name in released.ALEXNET}
    by_hand = sum(7 / error for error in released.ALEXNET.values()) / 15
    assert found["metrics"] == {"corrupted": 7.0, "mce": pytest.approx(by_hand)}
    assert not (tmp_path / "cache").exists()


def test_files_count_once_each(imagenet_c: Path, smallest_run: Run, thousand: nn.Module) -> None:
    """A network that always says the second class is wrong on the first one's images."""
    weights = thousand.state_dict() | {"head.bias": torch.zeros(1000).index_fill(0, torch.tensor([11]), 1e3)}
    wrong = {"corrupted": 50.0}
    for name, expected in (("imagenet-c", wrong), ("imagenet-a", {"natural": 50.0})):
        measurement = Measurement(name=next(iter(expected)), data=Data(name=name, image_size=32, test_crop=0.875))
        found = take(Finished(smallest_run, weights, imagenet_c), measurement)["metrics"]
        assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("measure", "name"), [("corrupted", "imagenet-c"), ("natural", "imagenet-a")])
def test_other_images_than_the_declared_ones_are_not_measured(
    imagenet_c: Path, smallest_run: Run, thousand: nn.Module, measure: str, name: str
) -> None:
    mark = data.inspect(name, root=imagenet_c).fingerprint
    measurement = Measurement(name=measure, data=Data(name=name, image_size=32, fingerprint=mark))
    weights = thousand.state_dict()
    assert measure in take(Finished(smallest_run, weights, imagenet_c), measurement)["metrics"]
    (imagenet_c / released.places(name)[0] / "n01498041" / "0.JPEG").unlink()
    with pytest.raises(ConfigError, match=f"the images of {name} below .* are not those that the run was declared for"):
        take(Finished(smallest_run, weights, imagenet_c), measurement)
    with pytest.raises(ConfigError, match="say DATA=<folder that holds it>"):
        take(Finished(smallest_run, weights), measurement)


def test_without_corruption_the_error_is_that_of_the_run(store: Store, smallest_run: Run) -> None:
    """On the test images that the run itself is evaluated on; each corruption's images are those of `corruptions`."""
    model = keep(smallest_run, store=store)
    measurement = Measurement(name="corrupted", data=smallest_run.data)
    found = measure_all([(smallest_run, measurement)], store=store, root=None, machine=ONE)
    measured = found[smallest_run.key, measurement.key]
    _, test = data.load(smallest_run.data, seed=0)
    settings = {"batch_size": 8, "image_size": 32, "device": CPU}
    errors = {"clean": [100 - Classification(model).evaluate(test, **settings)["top1"]]}
    for name in corruptions.CORRUPTIONS:
        changed = [dataclasses.replace(test, pixels=corruptions.corrupt(test.pixels, name, s)) for s in range(1, 6)]
        errors[name] = [100 - Classification(model).evaluate(images, **settings)["top1"] for images in changed]
    assert measured["arrays"] == {name: pytest.approx(values) for name, values in errors.items()}
    assert measured["metrics"] == {"corrupted": pytest.approx(np.mean([errors[name] for name in corruptions.CORRUPTIONS]))}


def test_the_shape_counts_where_cues_are_in_conflict(store: Store, smallest_run: Run) -> None:
    model = keep(smallest_run, store=store)
    conflict = dataclasses.replace(smallest_run.data, name="shapes-object-conflict")
    measurement = Measurement(name="natural", data=conflict)
    found = measure_all([(smallest_run, measurement)], store=store, root=None, machine=ONE)
    _, test = data.load(conflict, seed=0)
    expected = Classification(model).evaluate(test, batch_size=20, image_size=32, device=CPU)["top1"]
    assert found[smallest_run.key, measurement.key] == {"metrics": {"natural": pytest.approx(expected)}, "arrays": {}}
