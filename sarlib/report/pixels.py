"""The pictures of Table 6: what was found in test images beside the truth."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sarlib.config import ConfigError
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import STYLE, WIDTH
from sarlib.report.statistics import values
from sarlib.runner.store import Store

LABELS = 1.5  # inches beside the images
OPACITY = 0.6  # of a class's colour over the image
_CYCLE = matplotlib.colormaps["tab20"].colors


def segments(results: pd.DataFrame, experiment: Experiment, *, store: Store) -> Figure:
    """Test images, the classes of their pixels, and what the first seed's run of each drawn row takes those for.

    A class has one colour throughout (of 20, then the first again), the background none; void pixels are white. The label of a
    row gives its miou over all seeds. What was found is a measurement in the `store`: no weights are needed. `ConfigError`
    where it is not there.
    """
    from sarlib import data  # both bring torch with them
    from sarlib.tasks.segmentation import label_map

    cells, seed = experiment.drawn, experiment.seeds[0]
    found = [store.read_measured(cell.with_seed(seed), cell.measurement) for cell in cells]
    if not cells or None in found:
        raise ConfigError(f"the classes of {experiment.name}'s test images are not in {store.root}: run the table first")
    spec = cells[0].measurement.data
    maps = [np.asarray(each["arrays"]["classes"]) for each in found]
    _, test = data.load(spec, seed=seed, root=experiment.data_root)
    images = [np.asarray(test.view(index, spec.image_size)) for index in range(len(maps[0]))]
    truth = [label_map(test, index, spec.image_size).numpy() for index in range(len(images))]
    scored = [f"{cell.row}\nmIoU {values(results, cell, 'miou').mean():.1f} %" for cell in cells]
    lines = {"truth": truth} | dict(zip(scored, maps, strict=True))
    pictures = {"test images": images} | {label: map(coloured, images, each) for label, each in lines.items()}
    with plt.rc_context(STYLE):
        size = (WIDTH, (WIDTH - LABELS) / len(images) * len(pictures))
        whole, grid = plt.subplots(len(pictures), len(images), figsize=size, dpi=144, layout="constrained", squeeze=False)
        plt.close(whole)
        for line, (label, shown) in zip(grid, pictures.items(), strict=True):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, picture in zip(line, shown, strict=True):
                axes.imshow(picture)
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
    return whole


def coloured(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A grey image under the colours of its pixels' `classes` (H, W): 0 none, 255 white. From and to (H, W, 3)."""
    colours = np.array([_CYCLE[(label - 1) % len(_CYCLE)] for label in range(255)] + [(1.0, 1.0, 1.0)])
    over = OPACITY * (classes > 0)[..., None]
    return image.mean(2, keepdims=True) / 255 * (1 - over) + colours[classes] * over
