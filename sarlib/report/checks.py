"""What has to hold before a verdict means something: that the baseline learned its set, and that the loss does something."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pandas as pd

from sarlib.experiments.claims import difference
from sarlib.experiments.declaration import Experiment
from sarlib.report.notation import GAP, number, plus_minus
from sarlib.report.statistics import groups, lines, mean_interval, paired_values, values
from sarlib.run import Run

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
    for (table, dataset), cells in groups([cell for cell in experiment.cells if cell.shows_training]).items():
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
    place, shown = ["table", "dataset", "row"], ["entropy", "components", "difference in entropy", "lowers it"]
    return pd.DataFrame(found, columns=[*place, "without the loss", "n", *shown]).set_index(place)


def _without_loss(run: Run) -> Run:
    return dataclasses.replace(run, regularizers=tuple(each for each in run.regularizers if each.name != LOSS))
