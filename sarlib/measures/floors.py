"""What methods without a network reach on the images of a run, and how well the run knows its own training images.

A set on which the baseline is below these, or has not learned its training images, says little about what is added to it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib.data.images import Images
from sarlib.measures.finished import Finished, outputs
from sarlib.run import Measurement

SIDE = 16  # pixels, of the images that the cheap methods see
PENALTY = 0.01  # scikit-learn's C


def floors(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """Metrics: nearest_neighbour and logistic, the test top-1 in % of 1-NN and of logistic regression on 16 x 16 pixels;
    train_top1, the model's on its training images without augmentation; chance_loss, the cross entropy of guessing."""
    train, test = finished.sets(wanted)
    model = finished.network(wanted.data.image_size)
    (seen, known), (shown, _) = (_seen(model, images, **finished.shown(wanted)) for images in (train, test))
    found = {"chance_loss": math.log(len(train.classes)), "train_top1": known}
    for name, method in (("nearest_neighbour", nearest_neighbour), ("logistic", logistic)):
        right = method(seen.double(), train.labels, shown.double()) == test.labels
        found[name] = 100.0 * right.double().mean().item()
    return {"metrics": found, "arrays": {}}


def nearest_neighbour(seen: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """The label of the nearest of the images `seen` (N, D), labels (N,), for each of those `shown` (M, D): (M,)."""
    return torch.cat([labels[torch.cdist(part, seen).argmin(1)] for part in shown.split(1000)])


def logistic(seen: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """The same by multinomial logistic regression with scikit-learn's penalty at C = PENALTY: half the squared weights beside C
    times the summed cross entropy, intercepts without it."""
    classes = int(labels.max()) + 1
    weight, intercept = (seen.new_zeros(shape, requires_grad=True) for shape in ((classes, seen.shape[1]), (classes,)))
    optimizer = torch.optim.LBFGS([weight, intercept], max_iter=1000, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropies = F.cross_entropy(seen @ weight.T + intercept, labels, reduction="sum")
        total = PENALTY * entropies + weight.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return (shown @ weight.T + intercept).detach().argmax(1)


def _seen(model: nn.Module, images: Images, **shown: Any) -> tuple[Tensor, float]:
    """The images as cheap methods see them (N, 3 x 16 x 16), and the model's top-1 on them in %."""
    small, right = [], 0
    for pixels, index, found in outputs(model, images, **shown):
        small.append(F.interpolate(pixels, size=(SIDE, SIDE), mode="area").flatten(1).cpu())
        right += int((found.logits.argmax(1).cpu() == images.labels[index]).sum())
    return torch.cat(small), 100.0 * right / len(images)
