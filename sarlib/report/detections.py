"""The pictures of Table 5: the boxes that were found in test images beside the true ones."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sarlib.config import ConfigError
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import STYLE, WIDTH
from sarlib.report.statistics import values
from sarlib.runner.store import Store

LABELS = 1.5  # inches beside the images
COLOURS = plt.colormaps["tab10"].colors


def boxes(results: pd.DataFrame, experiment: Experiment, *, store: Store, score: float = 0.5) -> Figure:
    """Test images with their true boxes, and below with those that the first seed's run of each drawn row finds with at least
    this `score`.

    The colour is the class (of ten, then the first again); a difficult object's box is dotted. The label of a row gives its
    map50 over all seeds. What was found is a measurement in the `store`: no weights are needed. `ConfigError` where it is not
    there.
    """
    from sarlib import data  # brings torch with it

    cells, seed = experiment.drawn, experiment.seeds[0]
    found = [store.read_measured(cell.with_seed(seed), cell.measurement) for cell in cells]
    if not cells or None in found:
        raise ConfigError(f"the boxes of {experiment.name} are not in {store.root}: run the table first")
    spec, across = cells[0].measurement.data, len(found[0]["arrays"]["boxes"])
    _, test = data.load(spec, seed=seed, root=experiment.data_root)
    truth = [test.objects(index, spec.image_size) for index in range(across)]
    lines = {"test images,\ntrue boxes": [list(zip(one.boxes.tolist(), one.labels, one.difficult)) for one in truth]}
    for cell, one in zip(cells, found, strict=True):
        kept = [[(row[:4], row[5], False) for row in image if row[4] >= score] for image in one["arrays"]["boxes"]]
        lines[f"{cell.row}\nmAP, area {values(results, cell, 'map50').mean():.1f} %"] = kept
    with plt.rc_context(STYLE):
        size = (WIDTH, (WIDTH - LABELS) / across * len(lines))
        whole, grid = plt.subplots(len(lines), across, figsize=size, dpi=144, layout="constrained", squeeze=False)
        plt.close(whole)
        for line, (label, shown) in zip(grid, lines.items(), strict=True):
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
            for index, axes in enumerate(line):
                axes.imshow(test.view(index, spec.image_size), extent=(0, spec.image_size, spec.image_size, 0))
                _draw(axes, shown[index])
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
    return whole


def _draw(axes: Axes, shown: list[tuple]) -> None:
    """(box, class, difficult) each; white below the colour, so that it stands out on any image."""
    for (x0, y0, x1, y1), kind, difficult in shown:
        colour, dotted = COLOURS[int(kind) % len(COLOURS)], ":" if difficult else "-"
        for width, tone in ((3.0, "white"), (1.6, colour)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=tone, linewidth=width, linestyle=dotted))
