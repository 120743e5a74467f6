"""Nearest neighbours and the linear classifier are scikit-learn's, and what is probed is the run's own network and images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from self_supervised import DINO, MOCO
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sarlib import data, last_block
from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches
from sarlib.entropy import map_entropy
from sarlib.measures import features
from sarlib.measures.finished import Finished
from sarlib.run import Measurement, Run
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store
from sarlib.trainer.step import untrained

CPU = torch.device("cpu")


@pytest.fixture
def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Features of 90 known images in 7 classes, their labels, and 40 new ones; no two dimensions have one scale."""
    generator = torch.Generator().manual_seed(0)
    centres, scale = torch.randn(7, 11, generator=generator), torch.logspace(-1, 1, 11)
    labels = torch.randint(7, (130,), generator=generator)
    rows = 0.3 + (centres[labels] + 1.5 * torch.randn(130, 11, generator=generator)) * scale
    return rows[:90], labels[:90], rows[90:]


def test_neighbours_vote_as_in_scikit_learn(samples: tuple[Tensor, Tensor, Tensor]) -> None:
    known, labels, new = samples
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = reference.fit(known.double().numpy(), labels.numpy()).predict(new.double().numpy())
    found = features.nearest(known, labels, new, 7)
    assert found.tolist() == expected.tolist()
    plain = KNeighborsClassifier(20, metric="cosine").fit(known.numpy(), labels.numpy()).predict(new.numpy())
    assert found.tolist() != plain.tolist(), "the weights decide some"
    assert features.nearest(known[:3], labels[:3], new, 7).shape == (40,), "with fewer images than neighbours, all vote"


def test_the_linear_classifier_is_scikit_learns_ridge(samples: tuple[Tensor, Tensor, Tensor]) -> None:
    known, labels, new = samples
    known, new = (torch.cat([each, torch.ones(len(each), 1)], 1) for each in (known, new))  # a constant says nothing
    reference = make_pipeline(StandardScaler(), RidgeClassifier(alpha=features.RIDGE * 90))
    expected = reference.fit(known.double().numpy(), labels.numpy()).predict(new.double().numpy())
    assert features.ridge(known, labels, new, 7).tolist() == expected.tolist()


def test_features_are_the_class_tokens_and_maps_those_of_the_test_images() -> None:
    """By hand: timm's own features, scikit-learn's neighbours, means of the maps."""
    train, test = data.load(DINO.data, seed=0)
    network = Finished(DINO, untrained(DINO, classes=10, device=CPU).kept()).network()
    found = features.probe(network, train, test, batch_size=7, image_size=32, device=CPU)["metrics"]

    def of(images: Images) -> Tensor:
        (pixels, _), *rest = evaluation_batches(images, batch_size=100, image_size=32, device=CPU)
        assert not rest
        return pixels

    with torch.no_grad():
        known, new = (network.forward_features(of(images))[:, 0].double().numpy() for images in (train, test))
        maps = last_block.forward(network, of(test)).similarity
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    score = reference.fit(known, train.labels.numpy()).score(new, test.labels.numpy())
    assert found["knn"] == pytest.approx(100 * score) and found["entropy"] == pytest.approx(
        map_entropy(maps).mean().item(), rel=1e-4
    )
    assert found.keys() == {"knn", "linear", "entropy", "components", "jaccard"} and 0 < found["jaccard"] < 1


def test_a_perfect_feature_is_found_and_pixels_have_no_maps() -> None:
    """Images of one colour a class: the pixels tell all."""
    labels = torch.arange(60) % 3
    pixels = (200 * torch.eye(3)[labels]).to(torch.uint8)[:, :, None, None].repeat(1, 1, 32, 32)
    images = Images(labels=labels, classes=("a", "b", "c"), pixels=pixels)
    found = features.probe(None, images, images.subset(range(31)), batch_size=8, image_size=32, device=CPU)
    assert found == {"metrics": {"knn": 100.0, "linear": 100.0}, "arrays": {}}


@pytest.mark.parametrize("run", [DINO, MOCO], ids=["dino", "moco"])
def test_a_run_its_start_and_the_pixels_are_measured(store: Store, run: Run) -> None:
    names = ("features", "untrained_features", "pixels", "maps")
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, lr=3e-2, evaluations=1))
    wanted = tuple(Measurement(name=name, data=run.data, images=9 if name == "maps" else None) for name in names)
    record = execute(Work(run, wanted), Job(store, None, Machine("cpu", workers=1, threads=1)))
    trained, start, pixels, maps = (store.read_measured(run, each) for each in wanted)
    assert trained["metrics"]["entropy"] == pytest.approx(record.metrics["entropy"], rel=1e-4)
    assert start["metrics"].keys() == trained["metrics"].keys() and start["metrics"] != trained["metrics"]
    assert pixels["metrics"].keys() == {"knn", "linear"}
    assert np.asarray(maps["arrays"]["attention"]).shape == (9, 2, 4, 4)
    task, (_, test) = untrained(run, classes=10, device=CPU), data.load(run.data, seed=0)
    again = task.evaluate(test, batch_size=8, image_size=32, device=CPU)
    assert start["metrics"]["entropy"] == pytest.approx(again["entropy"], rel=1e-4), "of the seed's own random weights"


def test_a_network_with_a_classifier_is_probed_below_it(smallest_run: Run) -> None:
    train, test = data.load(smallest_run.data, seed=0)
    weights = untrained(smallest_run, classes=10, device=CPU).kept()
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(features, "ridge", lambda known, *rest: seen.append(known.shape) or torch.zeros(len(test)))
        features.probe(Finished(smallest_run, weights).network(), train, test, batch_size=8, image_size=32, device=CPU)
    assert seen == [(24, 16)]
