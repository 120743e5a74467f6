"""What features are worth that were learned without labels: k nearest neighbours, and a linear classifier in closed form.

Beside them, what cheap methods reach by the pixels of a run's images (`floors`): a set on which the baseline is below these, or
has not learned its training images, says little about what is added to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches
from sarlib.measures.finished import Finished, outputs
from sarlib.measures.shifted import error
from sarlib.run import Measurement
from sarlib.tasks.masks import map_metrics
from sarlib.tasks.task import Task
from sarlib.trainer.step import untrained

#: DINO's evaluation (Caron et al. 2021): neighbours, and the temperature of their votes.
NEIGHBOURS, TEMPERATURE = 20, 0.07
#: Weight of the ridge, per training image, on features with standard deviation 1.
RIDGE = 1e-2
#: Raw pixels are compared at so many a side.
PIXELS = 16
#: Of the logistic regression on them, scikit-learn's C.
PENALTY = 0.01


def features(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """`probe` of the trained network, on its own training images or those of another set that its seed draws."""
    return _of_network(finished, wanted, *finished.sets(wanted))


def untrained_features(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """The same of the network before its training."""
    train, test = finished.sets(wanted)
    start = untrained(finished.run, classes=len(train.classes), device=finished.device).kept()
    return _of_network(dataclasses.replace(finished, weights=start), wanted, train, test)


def pixels(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """The same of the pixels themselves."""
    return probe(None, *finished.sets(wanted), **finished.shown(wanted))


def floors(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """Metrics: nearest_neighbour and logistic, the test top-1 in % of 1-NN and of logistic regression on 16 x 16 pixels;
    train_top1, the model's on its training images without augmentation; chance_loss, the cross entropy of guessing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    train, test = finished.sets(wanted)
    known, new = (shrunk(images, **finished.shown(wanted)).cpu().double().numpy() for images in (train, test))
    wrong = error(finished.network(wanted.data.image_size), train, **finished.shown(wanted))
    found = {"chance_loss": math.log(len(train.classes)), "train_top1": 100 - wrong}
    nearest, linear = KNeighborsClassifier(1), LogisticRegression(C=PENALTY, max_iter=2000, tol=1e-6)
    for name, method in (("nearest_neighbour", nearest), ("logistic", linear)):
        found[name] = 100.0 * method.fit(known, train.labels.numpy()).score(new, test.labels.numpy())
    return {"metrics": found, "arrays": {}}


def shrunk(images: Images, **shown: Any) -> Tensor:
    """Their pixels as means of PIXELS x PIXELS areas, normalised: (n, 3 x PIXELS x PIXELS) float32 on the device."""
    return torch.cat([F.adaptive_avg_pool2d(seen, PIXELS).flatten(1) for seen, _ in evaluation_batches(images, **shown)])


def _of_network(finished: Finished, wanted: Measurement, train: Images, test: Images) -> dict[str, Any]:
    return probe(finished.network(wanted.data.image_size), train, test, **finished.shown(wanted))


def probe(model: nn.Module | None, train: Images, test: Images, **shown: Any) -> dict[str, Any]:
    """knn and linear of the frozen class token after the final norm, in % of the test images, and `map_metrics` of these.

    model: in evaluation mode; None for raw pixels, which have no maps. Both classifiers are made of `train`. `shown`:
    batch_size, image_size in pixels, and the device of the model.
    """
    if model is not None:
        model.head = nn.Identity()
    (known, _), (new, similarity) = (_features(model, images, **shown) for images in (train, test))
    labels, right = train.labels.to(known.device), test.labels.to(known.device)
    classifiers: dict[str, Callable[..., Tensor]] = {"knn": nearest, "linear": ridge}
    found = {name: classify(known, labels, new, len(train.classes)) for name, classify in classifiers.items()}
    metrics = {name: 100 * (answer == right).double().mean().item() for name, answer in found.items()}
    if similarity is not None:
        rows = map_metrics(similarity, test, torch.arange(len(test)))
        metrics |= Task.summarize(None, {name: values.double() for name, values in rows.items()})
    return {"metrics": metrics, "arrays": {}}


def _features(model: nn.Module | None, images: Images, **shown: Any) -> tuple[Tensor, Tensor | None]:
    """(n, dim) float32 on the device, and S (n, H, k, k) on the CPU; of pixels `shrunk`."""
    if model is None:
        return shrunk(images, **shown), None
    found = [each for *_, each in outputs(model, images, **shown)]
    return torch.cat([each.logits for each in found]), torch.cat([each.similarity.cpu() for each in found])


def nearest(known: Tensor, labels: Tensor, new: Tensor, classes: int) -> Tensor:
    """The class (m,) of each of the features `new` (m, dim): each of the NEIGHBOURS with the largest cosine among `known`
    (n, dim) votes for its own of the `labels` (n,), with weight exp(cosine / TEMPERATURE)."""
    known, votes = F.normalize(known, dim=1), F.one_hot(labels, classes).float()
    answers = []
    for some in F.normalize(new, dim=1).split(1024):
        cosine, index = (some @ known.T).topk(min(NEIGHBOURS, len(known)))
        answers.append(((cosine / TEMPERATURE).exp()[..., None] * votes[index]).sum(1).argmax(1))
    return torch.cat(answers)


def ridge(known: Tensor, labels: Tensor, new: Tensor, classes: int) -> Tensor:
    """The class (m,) by least squares on the labels' indicators with weight RIDGE x n on the squared coefficients, in float64;
    features are brought to mean 0 and standard deviation 1 of those `known`, the intercept is free."""
    known, new, wanted = known.double(), new.double(), F.one_hot(labels, classes).double()
    mean, spread = known.mean(0), known.std(0, correction=0).clamp(min=1e-9)
    known, new, share = (known - mean) / spread, (new - mean) / spread, wanted.mean(0)
    penalty = RIDGE * len(known) * torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
    return (new @ torch.linalg.solve(known.T @ known + penalty, known.T @ (wanted - share)) + share).argmax(1)
