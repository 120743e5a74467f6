"""Draws figures while the book is built: how the entropy is computed, images of the data sets, learning curves, attention.

Each function writes a PNG without a background and returns its text alternative: what it shows, in words.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from results import Found

from sarlib import data
from sarlib.config import Data
from sarlib.experiments.declaration import Experiment
from sarlib.report import attention
from sarlib.report.figures import ACCENT, BELOW, INK, STYLE
from sarlib.report.judgement import CONTRADICTED, SUPPORTED

#: Of the curves, after the baseline's.
COLOURS = ("#2b8ac9", "#d9722b", "#3a9d5d", "#a95fc2", "#c94f6d", "#8c7a2e", "#4aa3a3", "#7d6fd0")
SHOWN = 8  # images of a data set


def directive(path: Path, alternative: str, caption: str = "") -> str:
    """A figure in _figures/ as Markdown."""
    return f"```{{figure}} _figures/{path.name}\n:alt: {alternative}\n:class: drawn\n\n{caption}".strip() + "\n```"


def explained(kept: dict[str, Any], path: Path) -> str:
    """A test image, its S in the trained network, and the steps from there to the entropy."""
    maps = _of_row(kept, kept["rows"][-1])
    index, head = _telling(kept, maps)
    steps = attention.Blobs.of(maps.similarity[index, head])
    _save(attention.draw_blobs(maps, image=index, head=head), path)
    shares = ", ".join(f"{100 * share:.0f} %" for share in steps.shares)
    return (
        f"From left to right: a {kept['pixels']}-pixel test image of the class {kept['images'][index]['class']}; the map S of "
        f"head {head + 1} of a network trained as {maps.row}; what exceeds its mean; the {len(steps.shares)} connected "
        f"regions of it, which hold {shares}; and their terms −P log P, which add up to an entropy of "
        f"{steps.terms.sum():.2f} nats."
    )


def heads(kept: dict[str, Any], path: Path, *, images: int = 3) -> str:
    """softmax(S) of every head of both rows for the first images: what the attention viewer shows, without touching it."""
    rows = [_of_row(kept, row, images) for row in kept["rows"]]
    _save(attention.draw_heads(rows), path)
    names = " and of ".join(maps.row for maps in rows)
    count = rows[0].similarity.shape[1]
    return f"The first {images} test images, each followed by the attention of the {count} heads of {names}."


def _of_row(kept: dict[str, Any], row: dict[str, Any], images: int | None = None) -> attention.Maps:
    pictures = [Image.open(io.BytesIO(base64.b64decode(one["png"]))).convert("RGB") for one in kept["images"][:images]]
    return attention.Maps(row["row"], np.array(row["S"][:images]), [np.asarray(picture) for picture in pictures])


def _telling(kept: dict[str, Any], maps: attention.Maps) -> tuple[int, int]:
    """Image and head of the map with two to four components that overlaps its objects best: every step is seen there.

    The caption says that it was chosen.
    """
    found = []
    for index, image in enumerate(kept["images"]):
        for head, one in enumerate(maps.similarity[index]):
            shares = attention.Blobs.of(one).shares
            if 2 <= len(shares) <= 4 and min(shares) > 0.05:
                found.append((_overlap(kept["pixels"], image, one), -index, -head))
    _, index, head = max(found, default=(0, 0, 0))
    return -index, -head


def _overlap(side: int, image: dict[str, str], one: np.ndarray) -> float:
    """Jaccard index of what exceeds the mean with the pixels of all objects; 0 where no masks are known."""
    if "object" not in image or side % len(one):
        return 0.0
    inside = np.unpackbits(np.frombuffer(base64.b64decode(image["object"]), np.uint8))[: side * side].reshape(side, side) > 0
    above = np.kron(one > one.mean(), np.ones((side // len(one),) * 2)) > 0
    return float((inside & above).sum() / max(1, (inside | above).sum()))


def samples(experiment: Experiment, path: Path) -> tuple[str, list[str]]:
    """The first test images of each embedded data set of a table; also the names of the sets that cannot be shown from here."""
    specs: dict[str, Data] = {}
    for cell in experiment.cells:
        specs.setdefault(cell.run.data.name, cell.run.data)
    known = {name: spec for name, spec in specs.items() if name in data.EMBEDDED}
    if not known:
        return "", list(specs)
    side, gap = 96, 8
    canvas = np.zeros((len(known) * (side + gap), SHOWN * (side + gap), 4), np.uint8)
    for line, (name, spec) in enumerate(known.items()):
        few = {"train_size": 20, "test_size": 10} if name in data.SHAPES else {}
        _, test = data.load(dataclasses.replace(spec, **few), seed=0)
        for index in range(min(SHOWN, len(test))):
            view = test.view(index, spec.image_size).resize((side, side), Image.NEAREST).convert("RGBA")
            canvas[line * (side + gap) :, index * (side + gap) :][:side, :side] = np.asarray(view)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.74 * len(known)), dpi=144, layout="constrained")
        axes.imshow(canvas, interpolation="nearest")
        axes.set_yticks([line * (side + gap) + side / 2 for line in range(len(known))], list(known))
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.set_frame_on(False)
        _save(figure, path, bbox_inches="tight")
    return f"The first {SHOWN} test images of {', '.join(known)}.", [name for name in specs if name not in known]


def learning_curves(found: Found, path: Path) -> str:
    """Training loss and test accuracy against epochs, mean over seeds; "" where the store lacks the runs or their courses."""
    courses = _courses(found)
    if courses.empty:
        return ""
    means = courses.groupby(["split", "metric", "dataset", "row", "epoch"])["value"].mean()
    points = means.groupby(level=[0, 1, 2, 3]).size().groupby(level=[0, 1]).max()
    kinds = [("train", "loss", "training loss, nats"), ("test", "top1", "test top-1, %")]
    kinds = [kind for kind in kinds if points.get(kind[:2], 0) > 1]  # one evaluation is no curve
    if not kinds:
        return ""
    sets, rows = list(courses["dataset"].unique())[:4], list(courses["row"].unique())
    looks = dict(zip(rows, zip(itertools.cycle((INK, *COLOURS)), itertools.cycle("osD^vPX"))))
    with plt.rc_context(STYLE):
        size = (min(9, 3 * len(sets) + 1.6), 2.0 * len(kinds) + 0.6)
        figure, grid = plt.subplots(len(kinds), len(sets), figsize=size, dpi=144, layout="constrained", squeeze=False)
        for line, (split, metric, label) in zip(grid, kinds):
            for axes, dataset in zip(line, sets):
                own = means.get((split, metric, dataset), means[:0])
                for row in [row for row in rows if row in own.index]:
                    curve, (colour, mark) = own[row], looks[row]
                    mark = mark if len(curve) < 12 else ""
                    axes.plot(curve.index + (split == "train"), curve, color=colour, marker=mark, markersize=3, lw=1.4)
                axes.set_title(dataset.replace(", ", ",\n"), loc="left", fontsize=7.5)
                axes.grid(alpha=0.25)
                axes.spines[["top", "right"]].set_visible(False)
            line[0].set_ylabel(label)
            line[-1].set_xlabel("epochs")
        handles = [plt.Line2D([], [], color=looks[row][0], lw=2) for row in rows]
        look = {"ncols": min(3, len(rows)), "frameon": False, "labelcolor": INK, "fontsize": 7.5}
        figure.legend(handles, rows, loc="outside lower center", **look)
        _save(figure, path)
    ends = courses[(courses["split"] == "train") & (courses["metric"] == "loss") & (courses["dataset"] == sets[0])]
    last = ends[ends["epoch"] == ends["epoch"].max()].groupby("row", sort=False)["value"].mean()
    losses = "; ".join(f"{row} {value:.2f}" for row, value in list(last.items())[:6])
    return f"Learning curves on {len(sets)} data set{'s' * (len(sets) > 1)}. Training loss at the end on {sets[0]}: {losses}."


def _courses(found: Found) -> pd.DataFrame:
    """epoch, split, metric, value of the runs behind a table, with row and data set; up to eight rows of its first part."""
    results = found.results
    first = results[results["table"] == results["table"].iloc[0]]
    # What is measured of a network, or earlier in a training, shares its run with others: each run counts once.
    runs = first.drop_duplicates("key")[["row", "dataset", "key"]]
    parts = [
        course.assign(row=row.partition(", epoch")[0], dataset=dataset)
        for row, dataset, key in runs[runs["row"].isin(runs["row"].unique()[:8])].itertuples(index=False)
        if (course := found.course(key)) is not None
    ]
    whole = pd.concat(parts) if parts else pd.DataFrame(columns=["epoch", "metric"])
    return whole[whole["metric"].isin(("loss", "top1"))]


def forest(lines: pd.DataFrame, path: Path) -> str:
    """Every claim's difference with its 95 % interval, one panel a unit; the colour says the verdict, the label too.

    `lines` has the columns id, dataset, unit, verdict, real, mean, low and high.
    """
    panels = list(lines.groupby("unit"))
    heights = [0.24 * len(own) + 0.7 for _, own in panels]
    with plt.rc_context(STYLE):
        shape = {"figsize": (7.5, sum(heights)), "height_ratios": heights, "squeeze": False}
        figure, grid = plt.subplots(len(panels), 1, dpi=144, layout="constrained", **shape)
        for axes, (unit, own) in zip(grid[:, 0], panels):
            for place, line in enumerate(own.itertuples()):
                look = {"fmt": "s" if line.real else "o", "ms": 4.5, "elinewidth": 1.6}
                look["color"] = {SUPPORTED: ACCENT, CONTRADICTED: BELOW}.get(line.verdict, INK)
                axes.errorbar([line.mean], [place], xerr=[[line.mean - line.low], [line.high - line.mean]], **look)
            axes.set_yticks(range(len(own)), own["id"] + "  " + own["dataset"], fontsize=7.5)
            axes.set_ylim(len(own) - 0.4, -0.6)
            axes.axvline(0, color=INK, lw=1)
            axes.grid(axis="x", alpha=0.25)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.set_xlabel(f"difference in {unit}; right of 0 as the paper claims")
        _save(figure, path)
    return (
        f"Forest plot of {len(lines)} differences behind {lines['id'].nunique()} verdicts, one line a claim and data set, with "
        "95 % intervals; squares are photographs. The table below lists the same numbers."
    )


def _save(figure: Figure, path: Path, **look: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None}, **look)
    plt.close(figure)
