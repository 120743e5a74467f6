"""Attention maps of trained runs: the last block's S for test images, with the weights that the run store keeps (Figures 1 and 4)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sarlib import data, last_block
from sarlib.config import ConfigError
from sarlib.data.loader import evaluation_batches
from sarlib.data.images import Images, to_bytes
from sarlib.models import create
from sarlib.run import Run
from sarlib.runner.store import Store
from sarlib.trainer.loop import evaluation


def first_images(run: Run, count: int, *, root: Path | None = None) -> Images:
    """The first `count` images of the run's test set (all, if it has fewer) in memory, whole and at the size that the run looks at.

    The test set does not depend on the seed: runs that differ in it can be shown the same images. `root` is the folder of real data
    sets. Raises `ConfigError` as `sarlib.data.load` does, and for less than one image.
    """
    if count < 1:
        raise ConfigError(f"maps are of one image or more, got {count}")
    _, test = data.load(run.data, seed=run.seed, root=root)
    shown = test.subset(range(min(count, len(test))))
    if shown.files is None:
        return shown
    pixels = torch.stack([to_bytes(shown.view(index, run.data.image_size)) for index in range(len(shown))])
    return Images(labels=shown.labels, classes=shown.classes, pixels=pixels)


def similarity(run: Run, *, store: Store, images: Images, device: str | torch.device = "cpu") -> Tensor:
    """Equation 4 of the finished `run` for `images` (see `first_images`), in evaluation mode.

    Returns (n, H, k, k) on the CPU, calculated in float32 whatever the device; row 0 is the top of the image. The weights are those at
    the end of training, not their average where one is kept. `ConfigError` where `store` lacks the run or its weights, as the committed
    reference results do.
    """
    weights = _weights(run, store)
    model = create(run.model, classes=len(images.classes), image_size=run.data.image_size)
    model.load_state_dict(weights)
    model.eval().to(device)
    with torch.no_grad():
        batches = [
            last_block.forward(model, x).similarity.cpu()
            for x, _ in evaluation_batches(images, **evaluation(run), device=device)
        ]
    return torch.cat(batches)


def attention(similarity: Tensor) -> Tensor:
    """softmax(S) over the patch tokens: (..., h, w) -> (..., h, w), every map sums to 1.

    The class token's own score is left out, as in `sarlib.regularizers.softmax_entropy`: within the layer's softmax it takes its share of the
    attention and leaves the same map, scaled down.
    """
    return similarity.flatten(-2).softmax(-1).unflatten(-1, similarity.shape[-2:])


def _weights(run: Run, store: Store) -> dict[str, Tensor]:
    """The trained weights of `run` by the names of its state dict. `ConfigError` if there are none or they cannot be read."""
    if store.read(run) is None:
        raise ConfigError(
            f"run {run.key} is not finished in {store.root}: train it first, with the table or figure that declares it"
        )
    file = store.folder(run) / "weights.safetensors"
    train_again = f"remove the folder {file.parent} and train the run again"
    if not file.exists():
        raise ConfigError(f"run {run.key} has no weights in {store.root} (reference results are kept without): {train_again}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"the weights of run {run.key} cannot be read ({error}): {train_again}") from error
