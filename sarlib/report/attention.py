"""Drawings of attention maps: all heads over the image, masks that hold 60 % of the mass, the spatial entropy step by step, and
collapsed maps below their images.

They are made of stored measurements: no weights are needed, and no images and no torch where these are "heads".
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import resources
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from scipy.special import softmax

from sarlib.config import require
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import BELOW, INK, STYLE, WIDTH, drawing
from sarlib.report.pictures import labelled
from sarlib.report.statistics import arrays, values
from sarlib.run import Measurement, Run
from sarlib.runner.store import Store

LABELS, MAP = 2.4, 1.1  # inches beside maps, and at most a map
NUMBERED = 4  # of a mask's components, the largest
#: Components, the largest first: Okabe and Ito 2008, whose colours differ for everybody, after the ground, black.
COLOURS = ("#000000", "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")


class Maps(NamedTuple):
    """S (images, heads, k, k) of one row, and the images, each (H, W, 3) of bytes."""

    row: str
    similarity: np.ndarray
    pictures: list[np.ndarray]


class Blobs(NamedTuple):
    """One map: `excess` B (Equation 5), `labels` (0 outside, components by falling mass), their `shares` P (Equation 8)."""

    excess: np.ndarray
    labels: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, similarity: np.ndarray) -> Blobs:
        """Of a map S (k, k)."""
        excess = np.maximum(similarity - similarity.mean(), 0)
        found, masses = _by_size(excess > 0, excess)
        return cls(excess, found, masses / masses.sum())

    @property
    def terms(self) -> np.ndarray:
        """-P log P of each component, whose sum is the entropy (Equation 7), in nats."""
        return -self.shares * np.log(self.shares)


def heads(experiment: Experiment | None = None, *, store: Store | None = None) -> Figure:
    """Figure 4: of each image one line a row, and in it softmax(S) of every head over the image: bright where it is large, and
    a line around the tokens above the map's mean. Without a table, of the maps that come with the package, those of a ViT-S/14
    that was fine-tuned for saliency. `ConfigError` where the maps are not in the store."""
    return draw_heads(_stored(experiment, store))


def draw_heads(stored: Sequence[Maps]) -> Figure:
    """`heads` of these rows, which are of the same images."""
    images, across = len(stored[0].pictures), stored[0].similarity.shape[1]
    with _grid(images * len(stored), 1 + across) as (whole, grid):
        for image in range(images):
            block = grid[image * len(stored) :][: len(stored)]
            for line, maps in zip(block, stored, strict=True):
                for axes, similarity in zip(line[1:], maps.similarity[image], strict=True):
                    _show(axes, maps.pictures[image], similarity, grey=True)
                    draw_map(axes, softmax(similarity), alpha=0.7)
                line[1].set_ylabel(maps.row)
            _show(block[0, 0], stored[0].pictures[image], stored[0].similarity[image, 0])
        for axes in grid[:, 0]:
            axes.axis("off")
        for number, axes in enumerate(grid[0, 1:], start=1):
            axes.set_title(f"head {number}")
    return whole


def masks(experiment: Experiment | None = None, *, store: Store | None = None) -> Figure:
    """Figure 1: each image, and beside it, row by row, the smallest set of tokens that holds 60 % of the attention of one head,
    the one whose map has the lowest spatial entropy; the rest is dark, and the mask's largest components are numbered. Maps and
    errors as in `heads`."""
    stored = _stored(experiment, store)
    with _grid(len(stored[0].pictures), 1 + len(stored), side=1.6 * MAP) as (whole, grid):
        for image, line in enumerate(grid):
            _show(line[0], stored[0].pictures[image], stored[0].similarity[image, 0])
            for axes, maps in zip(line[1:], stored, strict=True):
                chosen = min(maps.similarity[image], key=lambda one: Blobs.of(one).terms.sum())
                _draw_mask(axes, maps.pictures[image], chosen)
        for axes, title in zip(grid[0], ("image", *(maps.row for maps in stored)), strict=True):
            axes.set_title(title)
    return whole


def blobs(experiment: Experiment | None = None, *, store: Store | None = None, image: int = 0, head: int = 1) -> Figure:
    """Figure 2: an image; S of one head; B, what exceeds its mean; the 8-connected components of B with the share P of the
    excess that each of them holds, and -P log P; these add up to the spatial entropy. Of the first row of a table, or, without
    one, of the maps that come with the package. `ConfigError` where the maps are not in the store."""
    return draw_blobs(_stored(experiment, store)[0], image=image, head=head)


def draw_blobs(maps: Maps, *, image: int, head: int) -> Figure:
    """`blobs` of one of these maps."""
    similarity = maps.similarity[image, head]
    steps = Blobs.of(similarity)
    numbers = range(1, len(steps.shares) + 1)
    lines = [f"{i}:  P = {p:.2f}   −P log P = {t:.2f}" for i, p, t in zip(numbers, steps.shares, steps.terms)]
    with _grid(1, 5, side=WIDTH / 5) as (whole, grid):
        picture, whole_map, excess, components, text = grid[0]
        _show(picture, maps.pictures[image], similarity)
        whole_map.imshow(similarity, cmap="cividis")
        excess.imshow(np.ma.masked_equal(steps.excess, 0), cmap="cividis", vmin=0)
        excess.set_facecolor("black")
        colours = [COLOURS[0], *(COLOURS[1 + i % (len(COLOURS) - 1)] for i in range(len(steps.shares)))]
        components.imshow(steps.labels, cmap=ListedColormap(colours), vmin=0, vmax=len(steps.shares), interpolation="nearest")
        _number(components, steps.labels, len(steps.shares))
        text.axis("off")
        total = f"entropy H = {steps.terms.sum():.2f} nats"
        text.text(0, 0.5, "\n".join([*lines, total]), transform=text.transAxes, va="center", linespacing=1.5)
        for axes, title in zip(grid[0], ("image", "similarity S", "B = ReLU(S − mean)", "components of B")):
            axes.set_title(title)
    return whole


def _stored(experiment: Experiment | None, store: Store | None) -> list[Maps]:
    """What was measured of the first seed's run of each row that is drawn; without a table, what comes with the package."""
    if experiment is None:
        packaged = resources.files("sarlib.report").joinpath("maps.yml").read_text(encoding="utf-8")
        return [_maps("ViT-S/14", json.loads(packaged))]  # which is YAML too
    seed = experiment.seeds[0]
    return [_maps(cell.row, _arrays(store, cell.with_seed(seed), cell.measurement)) for cell in experiment.drawn]


def _maps(row: str, found: dict[str, Any]) -> Maps:
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found["pictures"]]
    return Maps(row, np.asarray(found["similarity"]), pictures)


def _arrays(store: Store, run: Run, measurement: Measurement) -> dict[str, Any]:
    return arrays(store, run, measurement, what=f"the maps of run {run.key}")


def _kept(similarity: np.ndarray, mass: float = 0.6) -> np.ndarray:
    """The smallest set of tokens that holds `mass` of the attention, as `sarlib.tasks.masks.mass_mask` cuts it: bool (k, k)."""
    shares = softmax(similarity).ravel()
    order = np.argsort(-shares, kind="stable")
    kept = np.zeros(shares.size, dtype=bool)
    kept[order] = np.cumsum(shares[order]) - shares[order] < mass * (1 - 1e-6)
    return kept.reshape(similarity.shape)


def _by_size(inside: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels 1, 2, … of the 8-connected components of `inside` by the falling sum of `weights` in them, and these sums."""
    labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
    sums = ndimage.sum_labels(weights, labels, np.arange(1, count + 1))
    order = np.argsort(-sums, kind="stable")
    place = np.zeros(count + 1, dtype=int)
    place[1 + order] = np.arange(1, count + 1)
    return place[labels], sums[order]


@contextmanager
def _grid(down: int, across: int, side: float = MAP) -> Iterator[tuple[Figure, np.ndarray]]:
    side = min(side, WIDTH / across)
    with drawing(down, across, size=(side * across, side * down + 0.25)) as (whole, grid):
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
        yield whole, grid


def _show(axes: Axes, picture: np.ndarray, similarity: np.ndarray, *, grey: bool = False) -> None:
    """The picture, measured in tokens."""
    h, w = similarity.shape
    shown = picture.mean(-1).astype(np.uint8)[..., None].repeat(3, -1) if grey else picture
    axes.imshow(shown, extent=(-0.5, w - 0.5, h - 0.5, -0.5))


def _draw_mask(axes: Axes, picture: np.ndarray, similarity: np.ndarray) -> None:
    kept = _kept(similarity)
    fine = np.kron(kept, np.ones((16, 16)))
    shown = np.asarray(Image.fromarray(picture).resize(fine.shape[::-1], Image.Resampling.BICUBIC))
    h, w = kept.shape
    extent = (-0.5, w - 0.5, h - 0.5, -0.5)
    axes.imshow((shown * np.where(fine, 1.0, 0.25)[..., None]).astype(np.uint8), extent=extent)
    _surround(axes, kept)
    labels, sizes = _by_size(kept, kept.astype(float))
    _number(axes, labels, min(NUMBERED, len(sizes)))


def _number(axes: Axes, labels: np.ndarray, count: int) -> None:
    """1, 2, … `count` in the middle of their components: on the component's token that is nearest to its centre."""
    for label in range(1, count + 1):
        tokens = np.argwhere(labels == label)
        row, column = tokens[((tokens - tokens.mean(0)) ** 2).sum(1).argmin()]
        box = {"boxstyle": "circle,pad=0.15", "facecolor": "black", "edgecolor": "white", "linewidth": 0.6}
        axes.text(column, row, str(label), color="white", fontsize=7, ha="center", va="center", bbox=box)


def maps(results: pd.DataFrame, experiment: Experiment, *, store: Store, head: int = 0) -> Figure:
    """The first test images, and below each one head's map of it in the first seed's run of each row that shows its collapse.

    A map is softmax(S) divided by its largest value: bright all over where it is flat, one bright token where it has collapsed
    (section 4.3). A line runs around the tokens that exceed the map's mean, the components of Equation 6. The label of a row
    gives `peak` and `single` over all images, heads and seeds, from `results`. The maps are measurements in the `store`: no
    weights are needed. `ConfigError` where they are not there, or where the rows are not of one data set.
    """
    from sarlib import data  # brings torch with it

    declared = {run.key: measurement for run, measurement in experiment.measurements() if measurement.name == "maps"}
    cells = [cell for cell in experiment.cells if cell.measurement is not None and cell.measurement.name == "collapse"]
    runs = [cell.with_seed(experiment.seeds[0]) for cell in cells]
    comparable = len({cell.dataset for cell in cells}) == 1 and {run.key for run in runs} <= set(declared)
    require(comparable, f"maps need rows on one data set whose collapse and maps are measured; {experiment.name} has none")
    drawn = [np.asarray(_arrays(store, run, declared[run.key])["attention"])[:, head] for run in runs]
    spec, across = declared[runs[0].key].data, len(drawn[0])
    _, test = data.load(spec, seed=experiment.seeds[0], root=experiment.data_root)
    pictures = [test.view(index, spec.image_size) for index in range(across)]
    lines = {f"test images\n{cells[0].dataset}": [partial(Axes.imshow, X=each) for each in pictures]}
    for cell, found in zip(cells, drawn, strict=True):
        peak, single = (values(results, cell, name).mean() for name in ("peak", "single"))
        lines[f"{cell.row}\npeak {peak:.2f}, single {single:.0f} %"] = [partial(draw_map, attention=each) for each in found]
    side = min(MAP, (WIDTH - LABELS) / across)
    whole = labelled(lines, size=(LABELS + side * across, (side + 0.05) * len(lines)))
    with plt.rc_context(STYLE):
        below = whole.axes[across:]
        bar = whole.colorbar(below[-1].images[0], ax=below, shrink=0.9, pad=0.01, label="softmax(S) / its largest value")
        bar.outline.set_edgecolor(INK)
    return whole


def draw_map(axes: Axes, attention: np.ndarray, *, alpha: float = 1.0) -> None:
    """One map (k, k), and a line around the tokens that exceed its mean; with an `alpha` over what is drawn there."""
    axes.imshow(attention / attention.max(), vmin=0, vmax=1, cmap="cividis", interpolation="nearest", alpha=alpha)
    _surround(axes, attention > attention.mean())


def _surround(axes: Axes, tokens: np.ndarray) -> None:
    """A line around these tokens, unless they are none or all."""
    if tokens.any() and not tokens.all():
        h, w = tokens.shape
        fine = np.kron(tokens, np.ones((16, 16)))  # the line then follows the tokens' edges instead of cutting their corners
        axes.contour(fine, levels=[0.5], extent=(-0.5, w - 0.5, -0.5, h - 0.5), colors=[BELOW], linewidths=1.2)
