"""What is measured on a test set: accuracy, loss, entropy and components of the last block's maps, and their fit to objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import last_block
from sarlib.config import ConfigError
from sarlib.data.loader import evaluation_batches
from sarlib.data.images import Images
from sarlib.entropy import component_counts, map_entropy
from sarlib.trainer.distributed import ALONE, Ranks
from sarlib.trainer.masks import (
    best_jaccard,
    centre_discs,
    jaccard,
    mass_mask,
    object_cells,
    random_masks,
)


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int,
    image_size: int,
    device: torch.device,
    ranks: Ranks = ALONE,
    data_workers: int = 0,
) -> dict[str, float]:
    """Means over `images`, in evaluation mode (the model's mode is put back), in bfloat16 on a GPU as in training.

    top1, top5 (%; top5 with more than five classes), loss (cross entropy, nats), entropy (Equation 7, nats a map), components
    (Equation 6, a map), and where the images have masks jaccard (0 to 1, Table 11) over the images that show an object.
    Several `ranks` share the images, each of which counts once, and all get the same means. `data_workers` processes decode files.
    """
    own = images if ranks.size == 1 else images.subset(ranks.share(len(images)) or range(1))
    training = model.training
    model.eval()
    try:
        batches = [
            _measure(model, pixels, own, indices)
            for pixels, indices in evaluation_batches(
                own, batch_size=batch_size, image_size=image_size, device=device, data_workers=data_workers
            )
        ]
    finally:
        model.train(training)
    mine = {name: torch.cat([batch[name] for batch in batches]).double().cpu() for name in batches[0]}
    mine = {
        name: values[: len(ranks.share(len(images)))] for name, values in mine.items()
    }  # with fewer images than ranks some have none
    measured = {name: torch.cat([each[name] for each in ranks.gather(mine)]) for name in mine}
    if "jaccard" in measured:
        measured["jaccard"] = _of_images_with_objects(measured["jaccard"])
    return {name: values.mean().item() for name, values in measured.items()}


@torch.inference_mode()
def _measure(model: nn.Module, pixels: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
    """Every metric of every image of a batch, each (B,)."""
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=pixels.device.type == "cuda"):
        logits, similarity, _ = last_block.forward(model, pixels)
    logits, labels = logits.float(), images.labels[indices].to(logits.device)
    measured = {"top1": 100.0 * (logits.argmax(1) == labels)}
    if logits.shape[1] > 5:
        measured["top5"] = 100.0 * (logits.topk(5).indices == labels[:, None]).any(1)
    measured["loss"] = F.cross_entropy(logits, labels, reduction="none")
    measured["entropy"] = map_entropy(similarity).mean(1)
    measured["components"] = component_counts(similarity).float().mean(1)
    if images.masks is not None:
        cells = object_cells(images.masks[indices], images.mask_labels[indices], tuple(similarity.shape[-2:]))
        measured["jaccard"] = jaccard(mass_mask(similarity).cpu(), cells)
    return measured


def jaccard_references(images: Images, grid: tuple[int, int], *, heads: int, seed: int = 0) -> dict[str, float]:
    """What masks score that look at no model, beside which a `jaccard` is to be read; empty for images without masks.

    jaccard_all: every token. jaccard_random: 60 % of the tokens at random, the best of `heads` such masks, as a model with so
    many heads may choose too. jaccard_centre: a disc around the centre, of the radius that scores best on these images.
    jaccard_best: the best that masks on this grid of tokens can do.
    """
    if images.masks is None:
        return {}
    if heads < 1:
        raise ConfigError(f"the random reference needs at least one head, got {heads}")
    cells = object_cells(images.masks, images.mask_labels, grid)
    discs = [_of_images_with_objects(jaccard(disc, cells)).mean().item() for disc in centre_discs(grid)]
    by_chance = jaccard(random_masks(len(images), heads, grid, seed=seed), cells)
    return {
        "jaccard_all": discs[-1],
        "jaccard_random": _of_images_with_objects(by_chance).mean().item(),
        "jaccard_centre": max(discs),
        "jaccard_best": _of_images_with_objects(best_jaccard(cells)).mean().item(),
    }


def _of_images_with_objects(values: Tensor) -> Tensor:
    return values[~values.isnan()]
