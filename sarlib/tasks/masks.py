"""What attention maps show: their entropy, their 60 %-mass masks, and the overlap of those with objects (Table 11).

Jaccard after Caron et al. (2021) and Naseer et al. (2021): every head's map is thresholded to keep 60 % of its attention mass
and scaled up to the image by nearest neighbours; each object class of the image takes the head that fits it best; the mean is
over the classes of an image, then over images. A token's cell is kept or left as a whole, so that the number of object pixels
in every cell (`object_cells`) is all that is needed, by attention and by the references that look at no model alike.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sarlib.config import ConfigError
from sarlib.data.images import Images
from sarlib.entropy import component_counts, map_entropy


def map_metrics(similarity: Tensor, images: Images, indices: Tensor) -> dict[str, Tensor]:
    """What is measured of the maps S (B, H, h, w) of images[indices], whatever the task; means over heads, (B,) each.

    entropy (Equation 7, nats), components (Equation 6, a map), and where the images have masks jaccard (0 to 1, Table 11),
    which is NaN for an image without objects. Of clips S is (B, H, T, h, w), and these are means over frames, beside
    clip_entropy and clip_components of the volume, whose components reach over frames.
    """
    if similarity.dim() == 5:
        shown = images.subset(indices).by_frame()
        frames = map_metrics(similarity.transpose(1, 2).flatten(0, 1), shown, torch.arange(len(shown)))
        measured = {name: rows.unflatten(0, (len(similarity), -1)).nanmean(1) for name, rows in frames.items()}
        counts = component_counts(similarity, axes=3)
        return measured | {"clip_entropy": map_entropy(similarity, axes=3).mean(1), "clip_components": counts.float().mean(1)}
    measured = {"entropy": map_entropy(similarity).mean(1), "components": component_counts(similarity).float().mean(1)}
    if images.masks is not None:
        cells = object_cells(images.masks[indices], images.mask_labels[indices], tuple(similarity.shape[-2:]))
        measured["jaccard"] = jaccard(mass_mask(similarity).cpu(), cells)
    return measured


def jaccard_references(images: Images, grid: tuple[int, int], *, heads: int) -> dict[str, float]:
    """What masks score that look at no model, beside which a `jaccard` is to be read; empty for images without masks.

    jaccard_all: every token. jaccard_random: 60 % of the tokens at random, the best of `heads` such masks, as a model with so
    many heads may choose too. jaccard_centre: a disc around the centre, of the radius that scores best on these images.
    jaccard_best: the best that masks on this grid of tokens can do.
    """
    if images.masks is None:
        return {}
    images = images.by_frame()
    return references(object_cells(images.masks, images.mask_labels, grid), heads=heads)


def references(cells: ObjectCells, *, heads: int) -> dict[str, float]:
    """The same for objects whose pixels have been counted."""
    if heads < 1:
        raise ConfigError(f"the random reference needs at least one head, got {heads}")
    grid = tuple(cells.inside.shape[1:])
    discs = [mean_over_objects(jaccard(disc, cells)) for disc in centre_discs(grid)]
    return {
        "jaccard_all": discs[-1],
        "jaccard_random": mean_over_objects(jaccard(random_masks(cells.images, heads, grid), cells)),
        "jaccard_centre": max(discs),
        "jaccard_best": mean_over_objects(best_jaccard(cells)),
    }


@functools.cache
def white_noise(side: int, *, maps: int = 16_384, seed: int = 0) -> dict[str, float]:
    """What maps of independent normal values score on a grid of side x side tokens: entropy (nats) and components a map.

    Above half of the tokens lie in one large component, so that maps without any order have a low entropy too.
    """
    noise = torch.randn(1, maps, side, side, generator=torch.Generator().manual_seed(seed))
    return {"entropy": map_entropy(noise).mean().item(), "components": component_counts(noise).float().mean().item()}


def mean_over_objects(values: Tensor) -> float:
    """The mean of a `jaccard` (N,) over the images that show an object."""
    return values[~values.isnan()].mean().item()


def mass_mask(similarity: Tensor, *, mass: float = 0.6) -> Tensor:
    """The smallest set of tokens which holds `mass` of the softmaxed attention: (..., h, w) -> bool (..., h, w).

    The softmax is over the patches: attention to the class token scales their share of the mass, all of them alike.
    """
    if not 0 < mass <= 1:
        raise ConfigError(f"the mass to keep must be above 0 and at most 1, got {mass}")
    shares, order = similarity.flatten(-2).softmax(-1).sort(dim=-1, descending=True, stable=True)
    # A token is needed where what larger ones hold does not suffice; the tolerance is the rounding of the sum.
    needed = shares.cumsum(-1) - shares < mass * (1 - 1e-6)
    return torch.zeros_like(needed).scatter(-1, order, needed).unflatten(-1, similarity.shape[-2:])


class ObjectCells(NamedTuple):
    """The object classes of `images` images, one row a pair of an image and a class that it shows.

    inside: (P, h, w) float32, pixels of the class in each token's cell.
    valid: (P, h, w) float32, all pixels of the cell that are not void.
    image: (P,) int64, which image the pair belongs to.
    """

    inside: Tensor
    valid: Tensor
    image: Tensor
    images: int


def object_cells(masks: Tensor, labels: Tensor, grid: tuple[int, int], *, void: Tensor | None = None) -> ObjectCells:
    """Counts the pixels of every object class in every token's cell.

    masks: (N, M, H, W) bool, the visible pixels of each instance, which therefore do not overlap.
    labels: (N, M), the class of each, -1 for none.
    void: (N, H, W) bool, pixels that count neither for nor against a mask (VOC's 255).
    Instances of one class in an image are one object class; a class without a visible pixel is none.
    """
    n = len(masks)
    if void is None:
        valid = _count(masks.new_ones(1, *masks.shape[2:]), grid).expand(n, *grid)
    else:
        masks, valid = masks & ~void[:, None], _count(~void, grid)
    same_class = labels[:, :, None] == labels[:, None, :]
    inside = (same_class.float() @ _count(masks, grid).flatten(2)).unflatten(-1, grid)
    repeated = same_class.tril(-1).any(-1)  # an earlier instance already stands for this class
    image, instance = ((labels >= 0) & ~repeated & (inside.sum((-2, -1)) > 0)).nonzero(as_tuple=True)
    return ObjectCells(inside[image, instance], valid[image], image, n)


def read_object_cells(images: Images, grid: tuple[int, int]) -> tuple[ObjectCells, ObjectCells]:
    """The objects of `images` at the size of their pixels, their masks decoded one image at a time: void pixels left out, and
    void pixels as background. The second is what the paper's released code does: its test for void is always passed."""
    rules: tuple[list[ObjectCells], list[ObjectCells]] = ([], [])
    for index in range(len(images)):
        one = images.objects(index)
        for found, void in zip(rules, (one.void[None], None), strict=True):
            cells = object_cells(one.masks[None], one.mask_labels[None], grid, void=void)
            found.append(cells._replace(image=cells.image + index))
    return tuple(ObjectCells(*map(torch.cat, list(zip(*found))[:3]), len(images)) for found in rules)


def jaccard(heads: Tensor, cells: ObjectCells) -> Tensor:
    """Intersection over union of each object class with the head that fits it best, averaged over the classes of each image.

    heads: (N, H, h, w) bool, or (1, H, h, w) for the same masks on every image. Returns (N,); NaN for an image without objects.
    """
    chosen = heads.expand(cells.images, *heads.shape[1:])[cells.image].flatten(2).float()
    intersection, covered = (torch.einsum("phc,pc->ph", chosen, part.flatten(1)) for part in (cells.inside, cells.valid))
    union = covered + cells.inside.sum((-2, -1))[:, None] - intersection
    return _image_means((intersection / union).amax(1), cells)


def best_jaccard(cells: ObjectCells) -> Tensor:
    """The same for the best mask that whole cells can make of each object class; no attention map scores higher. Returns (N,).

    That mask holds the cells in which the object's share is above some level, so only the levels have to be tried.
    """
    inside, outside = cells.inside.flatten(1), (cells.valid - cells.inside).flatten(1)
    order = (inside / (inside + outside).clamp(min=1)).argsort(dim=1, descending=True)
    inside, outside = (part.gather(1, order).cumsum(1) for part in (inside, outside))
    return _image_means((inside / (inside[:, -1:] + outside)).amax(1), cells)


def random_masks(images: int, heads: int, grid: tuple[int, int], *, mass: float = 0.6, seed: int = 0) -> Tensor:
    """Cells kept at random with probability `mass`, as many as a flat attention map keeps: bool (images, heads, h, w)."""
    return torch.rand(images, heads, *grid, generator=torch.Generator().manual_seed(seed)) < mass


def centre_discs(grid: tuple[int, int]) -> list[Tensor]:
    """All discs around the centre of the grid, the smallest first: bool (1, 1, h, w) each."""
    rows, columns = (torch.arange(cells) - (cells - 1) / 2 for cells in grid)
    squared = rows[:, None] ** 2 + columns**2
    return [(squared <= radius)[None, None] for radius in squared.unique()]


def _count(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pixels per cell: bool (..., H, W) -> float32 (..., h, w); exact, the counts are far below 2^24."""
    rows, columns = (
        one_hot(torch.arange(pixels, device=masks.device) * cells // pixels, cells).float()
        for pixels, cells in zip(masks.shape[-2:], grid, strict=True)
    )
    return rows.T @ (masks.float() @ columns)


def _image_means(values: Tensor, cells: ObjectCells) -> Tensor:
    sums, counts = values.new_zeros(2, cells.images).unbind(0)
    return sums.index_add(0, cells.image, values) / counts.index_add(0, cells.image, torch.ones_like(values))
