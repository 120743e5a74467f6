"""Attention maps of trained runs: the last block's S for test images, with the weights that the run store keeps (Figures 1 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sarlib import data, last_block
from sarlib.config import ConfigError, Run
from sarlib.data.batches import evaluation_batches
from sarlib.data.images import Images, to_bytes, whole_view
from sarlib.models import create
from sarlib.store import Store
from sarlib.train import evaluation


@dataclass(frozen=True, eq=False)
class Maps:
    """What a trained network's class token looks at in n images, on the CPU.

    pixels: (n, 3, S, S) uint8, RGB, the images as the network saw them before normalisation.
    similarity: (n, H, k, k) float32, Equation 4: scaled scores of the last block before softmax; row 0 is the top of the image.
    """

    pixels: Tensor
    similarity: Tensor

    @property
    def attention(self) -> Tensor:
        """softmax(S) over the k * k patch tokens: (n, H, k, k), every map sums to 1.

        The class token's own score is left out, as in `sarlib.losses.softmax_entropy`: within the layer's softmax it takes its share
        of the attention and leaves a map of the same form, scaled down.
        """
        return self.similarity.flatten(-2).softmax(-1).unflatten(-1, self.similarity.shape[-2:])


def of_run(run: Run, *, store: Store, images: int, root: Path | None = None, device: str | torch.device = "cpu") -> Maps:
    """Maps of the finished `run` for the first `images` images of its test set (all, if it has fewer), in evaluation mode.

    The weights are those at the end of training, not their average where one is kept; float32 on every device. `root` is the folder of
    real data sets. `ConfigError` where `store` lacks the run or its weights, as the committed reference results do.
    """
    if images < 1:
        raise ConfigError(f"maps are of one image or more, got {images}")
    weights = _weights(run, store)
    _, test = data.load(run.data, seed=run.seed, root=root)
    shown = _in_memory(test.subset(range(min(images, len(test)))), run.data.image_size)
    model = create(run.model, classes=len(test.classes), image_size=run.data.image_size)
    model.load_state_dict(weights)
    model.eval().to(device)
    with torch.no_grad():
        batches = [last_block.forward(model, x).similarity.cpu() for x, _ in evaluation_batches(shown, **evaluation(run), device=device)]
    return Maps(pixels=shown.pixels, similarity=torch.cat(batches))


def _weights(run: Run, store: Store) -> dict[str, Tensor]:
    """The trained weights of `run` by the names of its state dict. `ConfigError` if there are none or they cannot be read."""
    if store.read(run) is None:
        raise ConfigError(f"run {run.key} is not finished in {store.root}: train it first, with the table or figure that declares it")
    file = store.folder(run) / "weights.safetensors"
    train_again = f"remove the folder {file.parent} and train the run again"
    if not file.exists():
        raise ConfigError(f"run {run.key} has no weights in {store.root} (reference results are kept without): {train_again}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"the weights of run {run.key} cannot be read ({error}): {train_again}") from error


def _in_memory(images: Images, size: int) -> Images:
    """The images as pixels of `size`, seen as evaluation sees them; files are decoded once for both the network and the reader."""
    pixels = torch.stack([to_bytes(whole_view(images.picture(index), size)) for index in range(len(images))])
    return Images(labels=images.labels, classes=images.classes, pixels=pixels)
