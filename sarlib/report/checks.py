"""What has to hold before a verdict means something: that the baseline learned its set, and that the loss does something."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Cell, Experiment
from sarlib.report.notation import GAP, number, plus_minus
from sarlib.report.statistics import groups, lines, mean_interval, paired_values, part, values
from sarlib.run import Run
from sarlib.runner.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A training loss this near to that of guessing, in nats, is on its plateau: nothing was learned.
PLATEAU = 0.15
LOSS = "spatial_entropy"


def floors(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """By data set, as means over seeds: the test top-1 of 1-NN, of logistic regression on 16 x 16 pixels, and of the baseline;
    what the baseline has above the better of the two; its top-1 and loss on its training images, beside the loss of guessing;
    after how many steps; and whether it has learned anything."""
    found = []
    for cell in experiment.floors:
        own = lines(results, cell.table, cell.row, cell.dataset)
        same = results[results["key"].isin(own["key"])].drop_duplicates(["key", "metric"])
        mean = same.groupby("metric")["value"].mean().reindex(_FLOORS)
        losses = same.loc[same["metric"] == "train_loss", "value"]
        stuck = int((losses > mean["chance_loss"] - PLATEAU).sum())
        line = {"dataset": cell.dataset, "n": own["seed"].nunique(), "steps": _steps(cell.run)}
        line |= {name: number(value, name) for name, value in mean.items()}
        line["above pixels"] = number(mean["top1"] - mean[["nearest_neighbour", "logistic"]].max(), "top1", "+")
        some = f"on {len(losses) - stuck} of {len(losses)} seeds" if stuck < len(losses) else "NOTHING"
        found.append(line | {"learned": GAP if losses.empty else some if stuck else "yes"})
    return pd.DataFrame(found, columns=["dataset", "n", "steps", *_FLOORS, "above pixels", "learned"]).set_index("dataset")


_FLOORS = ("nearest_neighbour", "logistic", "top1", "train_top1", "train_loss", "chance_loss")


def _steps(run: Run) -> int:
    return run.recipe.epochs * max(1, run.data.train_size // run.recipe.batch_size)


def unlearned(results: pd.DataFrame, experiment: Experiment) -> Iterator[str]:
    """A line for each set on which the baseline learned nothing, or not on all seeds."""
    for dataset, line in floors(results, experiment).iterrows():
        if line["learned"] not in ("yes", GAP):
            loss = f"its training loss ends at {line['train_loss']} nats, and guessing has {line['chance_loss']}"
            yield f"{dataset}: the baseline learned {line['learned']}; {loss}: no row says anything about SAR there"


def manipulation(results: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Whether SAR's loss lowers the entropy of the maps: each row with the loss beside the one that lacks nothing else.

    Entropy (nats) and components of both, the paired difference of the entropies with its interval, and what white noise scores
    on the same grid. `lowers it`: whether the interval lies below 0, which claims about the loss require.
    """
    from sarlib.tasks.masks import white_noise  # brings torch with it

    found = []
    for (table, dataset), cells in groups([cell for cell in experiment.cells if _trained(cell)]).items():
        by_run = {cell.run: cell for cell in reversed(cells)}
        for cell in cells:
            than = by_run.get(_without_loss(cell.run))
            if than is None or than.run == cell.run:
                continue
            noise = white_noise(cell.run.grid)
            contrast = difference(cell.row, than.row, table=table, dataset=dataset, metric="entropy")
            interval = mean_interval(paired_values(results, contrast.terms, metric="entropy"))
            line = {"table": table, "dataset": dataset, "row": cell.row, "without the loss": than.row, "n": interval.n}
            for name in ("entropy", "components"):
                shown = (number(values(results, one, name).mean(), name) for one in (than, cell))
                line[name] = f"{' → '.join(shown)} (noise {number(noise[name], name)})"
            line |= {"difference in entropy": plus_minus(interval, "entropy", difference=True)}
            found.append(line | {"lowers it": GAP if math.isnan(interval.high) else "yes" if interval.high < 0 else "no"})
    columns = [
        "table",
        "dataset",
        "row",
        "without the loss",
        "n",
        "entropy",
        "components",
        "difference in entropy",
        "lowers it",
    ]
    return pd.DataFrame(found, columns=columns).set_index(["table", "dataset", "row"])


def _trained(cell: Cell) -> bool:
    return cell.measurement is None and cell.epoch is None


def _without_loss(run: Run) -> Run:
    return dataclasses.replace(run, regularizers=tuple(each for each in run.regularizers if each.name != LOSS))


def gradients(experiment: Experiment, *, store: Store, table: str | None = None) -> Figure:
    """How strongly SAR's loss pulls over training, a panel a data set: the gradient of the weighted loss over the task's, both
    on the last block's query and key rows, in the first step of each epoch; geometric means over seeds.

    Of the whole table or of one part, from the histories in the `store`; runs that it lacks are left out.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    from sarlib.report.figures import INK, STYLE, WIDTH

    cells = [cell for cell in part(experiment, table) if _trained(cell) and cell.run.regularizers[:1]]
    panels = groups([cell for cell in cells if cell.run.regularizers[0].name == LOSS])
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE):
        size = (WIDTH, 2.6 * max(1, len(panels)))
        whole, grid = plt.subplots(max(1, len(panels)), 1, figsize=size, dpi=144, layout="constrained", squeeze=False)
        plt.close(whole)
        for axes, ((name, dataset), own) in zip(grid[:, 0], panels.items()):
            for cell, colour in zip(own, sns.color_palette("viridis", len(own))):
                ratios = [_ratio(store, cell.with_seed(seed)) for seed in experiment.seeds]
                if ratios := [ratio for ratio in ratios if ratio is not None]:
                    mean = 10 ** pd.concat(ratios, axis=1).mean(axis=1)
                    axes.plot(mean.index, mean, color=colour, marker=".", markersize=4, label=cell.row)
            axes.set(title=f"{name}: {dataset}", xlabel="epoch", ylabel="gradient of λ · loss / of the task's", yscale="log")
            axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            if axes.get_legend_handles_labels()[1]:
                axes.legend(frameon=False, labelcolor=INK, ncols=2)
            sns.despine(ax=axes)
    return whole


def _ratio(store: Store, run: Run) -> pd.Series | None:
    """log10 of the ratio by epoch, where both gradients and the weight are above 0; None for a run that is not finished."""
    try:
        history = store.history(run)
    except FileNotFoundError:
        return None
    wide = history[history["split"] == "train"].pivot(index="epoch", columns="metric", values="value")
    ratio = wide["weight"] * wide["gradient_regularizer"] / wide["gradient_task"]
    return ratio[ratio > 0].map(math.log10)
