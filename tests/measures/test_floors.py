"""What cheap methods reach on a run's images, and how well the run knows them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from sarlib import data, models
from sarlib.config import Data
from sarlib.measures import take
from sarlib.measures.features import floors
from sarlib.measures.finished import Finished
from sarlib.run import Measurement, Run


@pytest.fixture
def run(smallest_run: Run) -> Run:
    """On digits, of whose 32 px four make one that the cheap methods see; the training images are those of seed 3."""
    digits = Data(name="digits", image_size=32, train_size=100, test_size=120)
    return dataclasses.replace(smallest_run, data=digits).with_seed(3)


def by_hand(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, 3 x 16 x 16) of training and test images as means over 2 x 2, and their labels."""
    train, test = data.load(run.data, seed=run.seed)
    small = [
        images.pixels.numpy().astype(float).reshape(len(images), 3, 16, 2, 16, 2).mean((3, 5)).reshape(len(images), -1)
        for images in (train, test)
    ]
    return small[0], small[1], train.labels.numpy(), test.labels.numpy()


def test_nearest_neighbours_and_the_loss_of_guessing_by_hand(run: Run) -> None:
    model = models.create(run.model, classes=10, image_size=32).eval()
    found = floors(Finished(run, model.state_dict()), Measurement(name="floors", data=run.data))["metrics"]
    train, test, known, wanted = by_hand(run)
    distances = ((test[:, None] - train[None]) ** 2).sum(-1)
    assert found["nearest_neighbour"] == pytest.approx(100 * (known[distances.argmin(1)] == wanted).mean(), abs=1.0)
    assert found["nearest_neighbour"] > 85 and found["logistic"] > 75, "digits are easy by their pixels"
    assert found["chance_loss"] == math.log(10)


def test_the_networks_own_accuracy_is_on_its_own_training_images(run: Run) -> None:
    """Those of the run's seed, seen without augmentation: a network that says "3" is right on a tenth of them."""
    model = models.create(run.model, classes=10, image_size=32).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.eye(10)[3])
    declared = Measurement(name="floors", data=run.data)
    found = take(Finished(run, model.state_dict()), declared)["metrics"]
    train, _ = data.load(run.data, seed=3)
    assert found["train_top1"] == pytest.approx(100 * (train.labels == 3).float().mean().item())


def test_the_metrics_have_fixed_values(run: Run) -> None:
    """To an image of the 120: of the pixels alone, whatever the network."""
    model = models.create(run.model, classes=10, image_size=32).eval()
    found = take(Finished(run, model.state_dict()), Measurement(name="floors", data=run.data))["metrics"]
    assert found.keys() == {"chance_loss", "train_top1", "nearest_neighbour", "logistic"}
    assert (found["nearest_neighbour"], found["logistic"]) == pytest.approx((90.0, 100 * 110 / 120), abs=0.9)
