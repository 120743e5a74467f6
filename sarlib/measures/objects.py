"""Table 11: do the maps, cut to 60 % of their mass, lie on objects?"""

from __future__ import annotations

import functools
from typing import Any

import torch

from sarlib.entropy import component_counts, map_entropy
from sarlib.measures.finished import Finished
from sarlib.measures.maps import mean
from sarlib.run import Measurement
from sarlib.tasks.masks import jaccard, mass_mask, mean_over_objects, read_object_cells, references

#: For the same sets as `first_images`, whose answers are the same objects as long as they are held.
_object_cells = functools.lru_cache(maxsize=4)(read_object_cells)


def objects(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """Of every head, at the size of the images.

    jaccard: void pixels left out; jaccard_released: void pixels as background. jaccard_gain: `jaccard` above random cells.
    kept: share of the tokens in the masks. entropy and components of S, and what white noise has on the same grid.
    """
    similarity = finished.similarity(wanted)
    heads, grid = mass_mask(similarity), tuple(similarity.shape[-2:])
    cells, released = _object_cells(finished.images(wanted), grid)
    noise = torch.randn(1000, *grid, generator=torch.Generator().manual_seed(0))
    found = references(cells, heads=similarity.shape[1]) | {"kept": mean(heads)}
    for name, counted in (("jaccard", cells), ("jaccard_released", released)):
        found[name] = mean_over_objects(jaccard(heads, counted).double())
    found["jaccard_gain"] = found["jaccard"] - found["jaccard_random"]
    for end, own in (("", similarity), ("_noise", noise)):
        found["entropy" + end] = mean(map_entropy(own))
        found["components" + end] = mean(component_counts(own))
    return {"metrics": found, "arrays": {}}
