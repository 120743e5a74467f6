"""What methods without a network reach on the images of a run, and how well the run knows its own training images.

A set on which the baseline is below these, or has not learned its training images, says little about what is added to it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import data, last_block
from sarlib.config import ConfigError
from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches
from sarlib.run import Run

SIDE = 16  # pixels, of the images that the cheap methods see


def floors(run: Run, model: nn.Module, *, root: Path | None) -> dict[str, Any]:
    """Metrics: nearest_neighbour and logistic, the test top-1 in % of 1-NN and of logistic regression on 16 x 16 pixels;
    train_top1, the model's on its training images without augmentation; chance_loss, the cross entropy of guessing.

    `ConfigError` without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError as error:
        raise ConfigError("1-NN and logistic regression on pixels need scikit-learn: pip install scikit-learn") from error
    train, test = data.load(run.data, seed=run.seed, root=root)
    (seen, known), (shown, _) = (_seen(images, model, run) for images in (train, test))
    found = {"chance_loss": math.log(len(train.classes)), "train_top1": known}
    labels, wanted = train.labels.numpy(), test.labels.numpy()
    methods = {"nearest_neighbour": KNeighborsClassifier(1), "logistic": LogisticRegression(C=0.01, max_iter=2000)}
    for name, method in methods.items():
        found[name] = 100.0 * float((method.fit(seen.numpy(), labels).predict(shown.numpy()) == wanted).mean())
    return {"metrics": found, "arrays": {}}


def _seen(images: Images, model: nn.Module, run: Run) -> tuple[Tensor, float]:
    """The images as cheap methods see them (N, 3 x 16 x 16), and the model's top-1 on them in %."""
    device = next(model.parameters()).device
    settings = {"batch_size": run.recipe.evaluation_batch_size, "image_size": run.data.image_size, "device": device}
    small, right = [], 0
    with torch.no_grad():
        for pixels, index in evaluation_batches(images, **settings):
            small.append(F.interpolate(pixels, size=(SIDE, SIDE), mode="area").flatten(1).cpu())
            right += int((last_block.forward(model, pixels).logits.argmax(1).cpu() == images.labels[index]).sum())
    return torch.cat(small), 100.0 * right / len(images)
