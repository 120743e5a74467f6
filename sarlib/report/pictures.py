"""Test images, and below them what networks find there: boxes (Table 5) and classes of pixels (Table 6).

What was found is stored: no weights are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sarlib.config import require
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import WIDTH, drawing
from sarlib.report.statistics import arrays, values
from sarlib.runner.store import Store

if TYPE_CHECKING:
    from sarlib.data.images import Images

LABELS = 1.5  # inches beside the images
OPACITY = 0.6  # of a class's colour over the image
_OF_BOXES, _OF_PIXELS = (matplotlib.colormaps[name].colors for name in ("tab10", "tab20"))
#: Draws one picture.
Draw = Callable[[Axes], object]


def boxes(results: pd.DataFrame, experiment: Experiment, *, store: Store, score: float = 0.5) -> Figure:
    """Test images with their true boxes, and below with those that the first seed's run of each drawn row finds with at least
    this `score`.

    The colour is the class (of ten, then the first again); a difficult object's box is dotted. The label of a row gives its
    map50 over all seeds. `ConfigError` where the `store` lacks what was found.
    """
    found = _found("boxes", experiment, store)
    test, size = _images(experiment)
    truth = [test.objects(index, size) for index in range(len(found[0]))]
    lines = {"test images,\ntrue boxes": [list(zip(one.boxes.tolist(), one.labels, one.difficult)) for one in truth]}
    for label, line in zip(_scored(results, experiment, "map50", "mAP, area"), found, strict=True):
        lines[label] = [[(row[:4], row[5], False) for row in image if row[4] >= score] for image in line]
    return labelled(
        {
            label: [partial(_draw_boxes, test.view(index, size), size, shown) for index, shown in enumerate(line)]
            for label, line in lines.items()
        }
    )


def _draw_boxes(image: Any, size: int, shown: list[tuple], axes: Axes) -> None:
    """(box, class, difficult) each; white below the colour, so that it stands out on any image."""
    axes.imshow(image, extent=(0, size, size, 0))
    for (x0, y0, x1, y1), kind, difficult in shown:
        colour, dotted = _OF_BOXES[int(kind) % len(_OF_BOXES)], ":" if difficult else "-"
        for width, tone in ((3.0, "white"), (1.6, colour)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=tone, linewidth=width, linestyle=dotted))


def segments(results: pd.DataFrame, experiment: Experiment, *, store: Store) -> Figure:
    """Test images, the classes of their pixels, and what the first seed's run of each drawn row takes those for.

    A class has one colour throughout (of 20, then the first again), the background none; void pixels are white. The label of a
    row gives its miou over all seeds. `ConfigError` where the `store` lacks what was found.
    """
    from sarlib.tasks.segmentation import label_map  # brings torch with it

    found = _found("classes", experiment, store)
    test, size = _images(experiment)
    images = [np.asarray(test.view(index, size)) for index in range(len(found[0]))]
    truth = [label_map(test, index, size).numpy() for index in range(len(images))]
    lines = {"truth": truth} | dict(zip(_scored(results, experiment, "miou", "mIoU"), map(np.asarray, found), strict=True))
    pictures = {"test images": images} | {label: map(coloured, images, line) for label, line in lines.items()}
    return labelled({label: [partial(Axes.imshow, X=each) for each in line] for label, line in pictures.items()})


def coloured(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A grey image under the colours of its pixels' `classes` (H, W): 0 none, 255 white. From and to (H, W, 3)."""
    colours = np.array([_OF_PIXELS[(label - 1) % len(_OF_PIXELS)] for label in range(255)] + [(1.0, 1.0, 1.0)])
    over = OPACITY * (classes > 0)[..., None]
    return image.mean(2, keepdims=True) / 255 * (1 - over) + colours[classes] * over


def labelled(lines: Mapping[str, Sequence[Draw]], *, size: tuple[float, float] | None = None) -> Figure:
    """A line of pictures beside each label, in a figure of `size` inches."""
    across = len(next(iter(lines.values())))
    size = size or (WIDTH, (WIDTH - LABELS) / across * len(lines))
    with drawing(len(lines), across, size=size) as (whole, grid):
        for line, (label, drawn) in zip(grid, lines.items(), strict=True):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            for axes, draw in zip(line, drawn, strict=True):
                draw(axes)
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
    return whole


def _found(what: str, experiment: Experiment, store: Store) -> list[Any]:
    """Of each drawn row what the first seed's run found in the images."""
    require(len(experiment.drawn) > 0, f"{experiment.name} draws no {what}")
    drawn = [(cell.with_seed(experiment.seeds[0]), cell.measurement) for cell in experiment.drawn]
    return [arrays(store, *each, what=f"the {what} of {experiment.name}")[what] for each in drawn]


def _images(experiment: Experiment) -> tuple[Images, int]:
    """The test images that are drawn, and their size in pixels."""
    from sarlib import data  # brings torch with it

    spec = experiment.drawn[0].measurement.data
    return data.load(spec, seed=experiment.seeds[0], root=experiment.data_root)[1], spec.image_size


def _scored(results: pd.DataFrame, experiment: Experiment, metric: str, name: str) -> list[str]:
    """The labels of the rows, with the metric's mean."""
    return [f"{cell.row}\n{name} {values(results, cell, metric).mean():.1f} %" for cell in experiment.drawn]
