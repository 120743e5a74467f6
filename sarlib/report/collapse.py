"""What the entropy of softmaxed maps does to a network (section 4.3): single-peak maps, measured and drawn beside SAR's.

The runs are the cells of one part of the appendix: the last block of row C without a loss, with the entropy of the softmaxed map and
with SAR's. Their weights come from the run store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd
from torch import Tensor

from sarlib.config import ConfigError
from sarlib.data.images import Images
from sarlib.entropy import excess
from sarlib.experiments.csv import COLUMNS
from sarlib.report import cells
from sarlib.report.notation import heading, plus_minus
from sarlib.report.statistics import mean_interval
from sarlib.run import Run
from sarlib.runner import measures
from sarlib.runner.store import Store
from sarlib.trainer.masks import upsample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PART = "appendix-collapse"

LABELS, MAP = 2.4, 1.1  # inches: what labels and scale take, and at most a map

#: Measure: its unit.
UNITS = {"peak": "1", "single": "%", "tokens": "1", "softmax_entropy": "nats", "entropy": "nats", "spread": "1"}


class Cell(cells.Cell, Protocol):
    """A place of the appendix, and its trainings."""

    def with_seed(self, seed: int) -> Run: ...


class Experiment(cells.Experiment, Protocol):
    """A declaration whose part `PART` holds the runs to compare; `data_root` is the folder of real data sets."""

    cells: Sequence[Cell]
    data_root: Path | None


def measured(experiment: Experiment, *, store: Store, images: int = 500) -> pd.DataFrame:
    """`measures.collapse` of every run of the part on up to `images` test images, as tidy results (`sarlib.experiments.csv`).

    `ConfigError` if the experiment has no such part, or a run or its weights are not in `store`.
    """
    chosen = _cells(experiment)
    shown = measures.first_images(chosen[0].run.data, images, root=experiment.data_root)
    lines = []
    for cell in chosen:
        for seed in experiment.seeds:
            run = cell.with_seed(seed)
            found = measures.collapse(_similarity(run, store, shown))
            lines += [
                (cell.table, cell.row, cell.dataset, seed, name, value, UNITS[name], run.key) for name, value in found.items()
            ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _similarity(run: Run, store: Store, images: Images) -> Tensor:
    return measures.similarity(measures.network(run, store.weights(run)), images, batch_size=4 * run.recipe.batch_size)


def table(measured: pd.DataFrame) -> pd.DataFrame:
    """One line a row: `n` seeds, and each measure's mean ± half-width of its 95 % interval over them, as text."""
    lines = []
    for (dataset, row), own in measured.groupby(["dataset", "row"], sort=False):
        line = {"dataset": dataset, "row": row, "n": own["seed"].nunique()}
        for name, values in own.groupby("metric", sort=False)["value"]:
            line[heading(measured, name)] = plus_minus(mean_interval(values), name)
        lines.append(line)
    return pd.DataFrame(lines).set_index(["dataset", "row"])


def figure(measured: pd.DataFrame, experiment: Experiment, *, store: Store, images: int = 8, head: int = 0) -> Figure:
    """The first `images` test images, and below each what one head makes of them in every row's run with the first seed.

    A map is softmax(S) divided by its largest value: bright all over where it is flat, one bright token where it has collapsed.
    A line runs around the tokens that exceed the map's mean, the components of Equation 6. The label of a row gives `peak` and
    `single` over all images, heads and seeds, from `measured`.
    """
    import matplotlib.pyplot as plt

    from sarlib.report.figures import INK, STYLE, WIDTH

    chosen, seed = _cells(experiment), experiment.seeds[0]
    pictures = measures.first_images(chosen[0].run.data, images, root=experiment.data_root)
    drawn = [measures.attention(_similarity(cell.with_seed(seed), store, pictures)) for cell in chosen]
    across = len(pictures)
    side = min(MAP, (WIDTH - LABELS) / across)
    with plt.rc_context(STYLE):
        size = (LABELS + side * across, (side + 0.05) * (1 + len(chosen)))
        whole, grid = plt.subplots(1 + len(chosen), across, figsize=size, dpi=144, layout="constrained", squeeze=False)
        plt.close(whole)
        for index, axes in enumerate(grid[0]):
            axes.imshow(pictures.picture(index))
        _label(grid[0, 0], f"test images\n{chosen[0].dataset}")
        for line, cell, attention in zip(grid[1:], chosen, drawn, strict=True):
            for axes, one in zip(line, attention[:, head], strict=True):
                shown = _draw(axes, one)
            _label(line[0], _row_label(measured, cell))
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
        bar = whole.colorbar(shown, ax=grid[1:], shrink=0.9, pad=0.01, label="softmax(S) / its largest value")
        bar.outline.set_edgecolor(INK)
    return whole


def _draw(axes: Axes, attention: Tensor) -> AxesImage:
    """One map (k, k), and a line around the tokens that exceed its mean."""
    from sarlib.report.figures import BELOW

    h, w = attention.shape
    shown = axes.imshow((attention / attention.max()).numpy(), vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
    above = excess(attention) > 0
    if above.any():
        # On a finer grid the line follows the tokens' edges instead of cutting their corners.
        fine = upsample(above, (16 * h, 16 * w)).float().numpy()
        axes.contour(fine, levels=[0.5], extent=(-0.5, w - 0.5, -0.5, h - 0.5), colors=[BELOW], linewidths=1.2)
    return shown


def _cells(experiment: Experiment) -> list[Cell]:
    """The rows to compare. `ConfigError` unless there are some, on one data set: all are shown the same images."""
    chosen = [cell for cell in experiment.cells if cell.table == PART]
    if len({cell.dataset for cell in chosen}) != 1:
        raise ConfigError(f"the collapse is shown on one data set: {experiment.name} needs a part {PART!r} with just one")
    return chosen


def _row_label(measured: pd.DataFrame, cell: Cell) -> str:
    peak, single = (mean_interval(cells.values(measured, cell, name)).mean for name in ("peak", "single"))
    return f"{cell.row}\npeak {peak:.2f}, single {single:.0f} %"


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center")
