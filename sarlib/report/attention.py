"""Drawings of attention maps: all heads over the image, masks that hold 60 % of the mass, the spatial entropy step by step.

They are made of stored measurements ("heads") alone: no weights, no images and no torch are needed.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from sarlib.config import ConfigError
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import BELOW, MAP, STYLE, WIDTH, draw_map
from sarlib.runner.store import Store

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
    with plt.rc_context(STYLE):
        whole, grid = _grid(images * len(stored), 1 + across)
        for image in range(images):
            block = grid[image * len(stored) :][: len(stored)]
            for line, maps in zip(block, stored, strict=True):
                for axes, similarity in zip(line[1:], maps.similarity[image], strict=True):
                    _show(axes, maps.pictures[image], similarity, grey=True)
                    draw_map(axes, _softmax(similarity), alpha=0.7)
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
    with plt.rc_context(STYLE):
        whole, grid = _grid(len(stored[0].pictures), 1 + len(stored), side=1.6 * MAP)
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
    with plt.rc_context(STYLE):
        whole, grid = _grid(1, 5, side=WIDTH / 5)
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
    found = []
    for cell in experiment.drawn:
        run = cell.with_seed(experiment.seeds[0])
        measured = store.read_measured(run, cell.measurement)
        if measured is None:
            raise ConfigError(f"the maps of run {run.key} are not in {store.root}: run the table first")
        found.append(_maps(cell.row, measured["arrays"]))
    return found


def _maps(row: str, arrays: dict[str, Any]) -> Maps:
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in arrays["pictures"]]
    return Maps(row, np.asarray(arrays["similarity"]), pictures)


def _softmax(similarity: np.ndarray) -> np.ndarray:
    shares = np.exp(similarity - similarity.max())
    return shares / shares.sum()


def _kept(similarity: np.ndarray, mass: float = 0.6) -> np.ndarray:
    """The smallest set of tokens that holds `mass` of the attention, as `sarlib.tasks.masks.mass_mask` cuts it: bool (k, k)."""
    shares = _softmax(similarity).ravel()
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


def _grid(down: int, across: int, side: float = MAP) -> tuple[Figure, np.ndarray]:
    side = min(side, WIDTH / across)
    whole, grid = plt.subplots(
        down, across, figsize=(side * across, side * down + 0.25), dpi=144, layout="constrained", squeeze=False
    )
    plt.close(whole)
    plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
    return whole, grid


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
    if not kept.all():
        axes.contour(fine, levels=[0.5], extent=(-0.5, w - 0.5, -0.5, h - 0.5), colors=[BELOW], linewidths=1.2)
    labels, sizes = _by_size(kept, kept.astype(float))
    _number(axes, labels, min(NUMBERED, len(sizes)))


def _number(axes: Axes, labels: np.ndarray, count: int) -> None:
    """1, 2, … `count` in the middle of their components: on the component's token that is nearest to its centre."""
    for label in range(1, count + 1):
        tokens = np.argwhere(labels == label)
        row, column = tokens[((tokens - tokens.mean(0)) ** 2).sum(1).argmin()]
        box = {"boxstyle": "circle,pad=0.15", "facecolor": "black", "edgecolor": "white", "linewidth": 0.6}
        axes.text(column, row, str(label), color="white", fontsize=7, ha="center", va="center", bbox=box)
