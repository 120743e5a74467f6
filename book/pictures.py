"""Figures that the book draws while it is built: how the entropy is computed, images of the data sets, learning curves,
attention.

Each function writes a PNG without a background and returns its text alternative: what it shows, in words.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from results import Found

from sarlib import data
from sarlib.config import Data
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import ACCENT, BELOW, INK, STYLE

#: Of components, in the order of their numbers.
COLOURS = ("#2b8ac9", "#d9722b", "#3a9d5d", "#a95fc2", "#c94f6d", "#8c7a2e", "#4aa3a3", "#7d6fd0")
SHOWN = 8  # images of a data set
LINES = "osD^vPX"


def explained(kept: dict[str, Any], path: Path) -> str:
    """A test image, its S in the trained network, the components, and the terms that add up to the entropy."""
    row = kept["rows"][-1]
    index, head = _telling(kept, row)
    maps = np.array(row["S"][index][head])
    labels, shares = components(maps)
    entropy = -sum(p * math.log(p) for p in shares)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(10, 2.7), dpi=144, layout="constrained")
        axes[0].imshow(picture(kept["images"][index]))
        axes[0].set_title("a test image")
        axes[1].imshow(maps, cmap="cividis")
        axes[1].set_title("S: where the class token looks")
        _draw_components(axes[2], maps, labels)
        axes[2].set_title(f"above the mean: {len(shares)} component{'s' * (len(shares) != 1)}")
        terms = [-p * math.log(p) for p in shares]
        axes[3].barh(range(len(shares)), terms, color=[COLOURS[j % len(COLOURS)] for j in range(len(shares))])
        for j, (share, term) in enumerate(zip(shares, terms, strict=True)):
            axes[3].annotate(f"{j + 1}: P = {share:.2f}, {term:.2f}", (max(terms) * 1.04, j), va="center")
        axes[3].set_xlim(0, max(terms) * 2.1)
        axes[3].invert_yaxis()
        axes[3].set_axis_off()
        axes[3].set_title(f"−P log P adds up to {entropy:.2f} nats")
        plt.setp(axes[:3].tolist(), xticks=[], yticks=[])
        _save(figure, path)
    return (
        f"Four panels. A {kept['pixels']}-pixel test image of the class {kept['images'][index]['class']}; the map S of head "
        f"{head + 1} "
        f"of a network trained as {row['row']}; its {len(shares)} connected regions above the mean, with "
        f"{', '.join(f'{100 * p:.0f} %' for p in shares)} of what stands out; and bars of −P log P, which add up to an "
        f"entropy of "
        f"{entropy:.2f} nats."
    )


def _telling(kept: dict[str, Any], row: dict[str, Any]) -> tuple[int, int]:
    """Image and head of the map with two to four components that overlaps its objects best: every step is seen there.

    The caption says that it was chosen.
    """
    found = []
    for index, (image, maps) in enumerate(zip(kept["images"], row["S"], strict=True)):
        for head, one in enumerate(maps):
            shares = components(np.array(one))[1]
            if 2 <= len(shares) <= 4 and min(shares) > 0.05:
                found.append((_overlap(kept, image, np.array(one)), -index, -head))
    _, index, head = max(found, default=(0, 0, 0))
    return -index, -head


def _overlap(kept: dict[str, Any], image: dict[str, str], maps: np.ndarray) -> float:
    """Jaccard index of what exceeds the mean with the pixels of all objects; 0 where no masks are known."""
    side = kept["pixels"]
    if "object" not in image or side % len(maps):
        return 0.0
    inside = np.unpackbits(np.frombuffer(base64.b64decode(image["object"]), np.uint8))[: side * side].reshape(side, side) > 0
    above = np.kron(maps > maps.mean(), np.ones((side // len(maps),) * 2)) > 0
    return float((inside & above).sum() / max(1, (inside | above).sum()))


def components(maps: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Equations 5, 6 and 8 of one map (k, k), by sarlib: labels and the share of each component."""
    import torch

    from sarlib.entropy import component_probabilities
    from sarlib.entropy import components as label

    similarity = torch.tensor(maps, dtype=torch.float64)
    return label(similarity).numpy(), component_probabilities(similarity).tolist()


def picture(image: dict[str, str]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image["png"])))


def _draw_components(axes: Axes, maps: np.ndarray, labels: np.ndarray) -> None:
    colours = np.zeros((*labels.shape, 4))
    for j in range(1, labels.max() + 1):
        colours[labels == j] = matplotlib_colour(COLOURS[(j - 1) % len(COLOURS)])
    axes.imshow(colours)
    for j in range(1, labels.max() + 1):
        y, x = max(zip(*np.nonzero(labels == j), strict=True), key=lambda place: maps[place])
        axes.annotate(str(j), (x, y), ha="center", va="center", color="white", fontsize=9)
    for side in axes.spines.values():
        side.set_alpha(0.4)


def matplotlib_colour(name: str) -> tuple[float, float, float, float]:
    return plt.matplotlib.colors.to_rgba(name)


def heads(kept: dict[str, Any], path: Path, *, images: int = 4) -> str:
    """S of every head of both rows for the first images: what the attention viewer shows, without touching it."""
    rows, shown = kept["rows"], kept["images"][:images]
    count = len(rows[0]["S"][0])
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(shown), 1 + count * len(rows), figsize=(9, 1.25 * len(shown) + 0.4), dpi=144, layout="constrained"
        )
        for line, image, index in zip(grid, shown, range(images)):
            line[0].imshow(picture(image))
            for r, row in enumerate(rows):
                for h in range(count):
                    axes = line[1 + r * count + h]
                    axes.imshow(np.array(row["S"][index][h]), cmap="cividis")
                    if index == 0:
                        axes.set_title(f"{row['row']}, head {h + 1}" if count < 4 else f"{h + 1}", fontsize=7.5)
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
        _save(figure, path)
    names = " and of ".join(row["row"] for row in rows)
    return f"The first {len(shown)} test images, each followed by the maps S of the {count} heads of {names}."


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
        figure, axes = plt.subplots(figsize=(9, 0.95 * len(known)), dpi=110, layout="constrained")
        axes.imshow(canvas, interpolation="nearest")
        axes.set_yticks([line * (side + gap) + side / 2 for line in range(len(known))], list(known))
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.set_frame_on(False)
        _save(figure, path)
    return f"The first {SHOWN} test images of {', '.join(known)}.", [name for name in specs if name not in known]


def learning_curves(found: Found, path: Path) -> str:
    """Training loss and test accuracy against epochs, mean over seeds; "" where the store lacks the runs or their courses."""
    courses = _courses(found)
    if courses.empty or courses["epoch"].nunique() < 2:
        return ""
    sets = list(dict.fromkeys(courses["dataset"]))[:4]
    kinds = [("train", "loss", "training loss, nats"), ("test", "top1", "test top-1, %")]
    points = courses.groupby(["split", "metric"])["epoch"].nunique()
    kinds = [kind for kind in kinds if points.get(kind[:2], 0) > 1]  # one evaluation is no curve
    rows = list(dict.fromkeys(courses["row"]))
    with plt.rc_context(STYLE):
        size = (min(9, 3 * len(sets) + 1.6), 2.0 * len(kinds) + 0.6)
        figure, grid = plt.subplots(len(kinds), len(sets), figsize=size, dpi=144, layout="constrained", squeeze=False)
        for line, (split, metric, label) in zip(grid, kinds):
            for axes, dataset in zip(line, sets):
                own = courses[(courses["dataset"] == dataset) & (courses["split"] == split) & (courses["metric"] == metric)]
                for index, row in enumerate(rows):
                    curve = own[own["row"] == row].groupby("epoch")["value"].mean()
                    if len(curve):
                        mark = LINES[index % len(LINES)] if len(curve) < 12 else ""
                        axes.plot(
                            curve.index + (split == "train"),
                            curve,
                            color=(INK, *COLOURS)[index % 9],
                            marker=mark,
                            markersize=3,
                            lw=1.4,
                        )
                axes.set_title(dataset.replace(", ", ",\n"), loc="left", fontsize=7.5)
                axes.grid(alpha=0.25)
                axes.spines[["top", "right"]].set_visible(False)
            line[0].set_ylabel(label)
            line[-1].set_xlabel("epochs")
        handles = [plt.Line2D([], [], color=(INK, *COLOURS)[index % 9], lw=2) for index in range(len(rows))]
        figure.legend(
            handles, rows, loc="outside lower center", ncols=min(3, len(rows)), frameon=False, labelcolor=INK, fontsize=7.5
        )
        _save(figure, path)
    ends = courses[(courses["split"] == "train") & (courses["metric"] == "loss") & (courses["dataset"] == sets[0])]
    last = ends[ends["epoch"] == ends["epoch"].max()].groupby("row", sort=False)["value"].mean()
    told = "; ".join(f"{row} {value:.2f}" for row, value in list(last.items())[:6])
    return f"Learning curves on {len(sets)} data set{'s' * (len(sets) > 1)}. Training loss at the end on {sets[0]}: {told}."


def _courses(found: Found) -> pd.DataFrame:
    """epoch, split, metric, value of the runs behind a table, with row and data set; up to eight rows of its first part."""
    results = found.results
    first = results[results["table"] == results["table"].iloc[0]]
    # What is measured of a network, or earlier in a training, shares its run with others: each run counts once.
    runs = first.drop_duplicates("key")[["row", "dataset", "key"]]
    rows = list(dict.fromkeys(runs["row"]))[:8]
    parts = []
    for row, dataset, key in runs[runs["row"].isin(rows)].itertuples(index=False):
        course = found.store / key / "metrics.csv"
        if course.exists():
            parts.append(pd.read_csv(course).assign(row=row.partition(", epoch")[0], dataset=dataset))
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts)
    return whole[whole["metric"].isin(("loss", "top1"))]


def forest(lines: list[dict[str, Any]], path: Path) -> str:
    """Every claim's difference with its 95 % interval, one panel a unit; the colour says the verdict, the label too."""
    units = list(dict.fromkeys(line["unit"] for line in lines))
    heights = [0.24 * sum(line["unit"] == unit for line in lines) + 0.7 for unit in units]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(units), 1, figsize=(7.5, sum(heights)), dpi=144, layout="constrained", squeeze=False, height_ratios=heights
        )
        for axes, unit in zip(grid[:, 0], units):
            own = [line for line in lines if line["unit"] == unit]
            for place, line in enumerate(own):
                colour = {"supported": ACCENT, "contradicted": BELOW}.get(line["verdict"], INK)
                ends = [[line["mean"] - line["low"]], [line["high"] - line["mean"]]]
                axes.errorbar(
                    [line["mean"]], [place], xerr=ends, fmt="s" if line["real"] else "o", color=colour, ms=4.5, elinewidth=1.6
                )
            axes.set_yticks(range(len(own)), [f"{line['id']}  {line['dataset']}" for line in own], fontsize=7.5)
            axes.set_ylim(len(own) - 0.4, -0.6)
            axes.axvline(0, color=INK, lw=1)
            axes.grid(axis="x", alpha=0.25)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.set_xlabel(f"difference in {unit}; right of 0 as the paper claims")
        _save(figure, path)
    count = len({line["id"] for line in lines})
    return (
        f"Forest plot of {len(lines)} differences for {count} claims, one line a claim and data set, with 95 % intervals; "
        "squares are photographs. The table below lists the same numbers."
    )


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Software": None})
    plt.close(figure)
