"""How errors grow with the severity of each corruption, drawn from stored measurements: no weights are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sarlib.config import require
from sarlib.data.released import CLEAN
from sarlib.experiments.declaration import Experiment
from sarlib.report.figures import COLOURS, MARKS, STYLE, ends
from sarlib.report.statistics import arrays
from sarlib.runner.store import Store


def severities(experiment: Experiment, *, store: Store) -> Figure:
    """The error in % of each row against severity, 0 being the images as they are: a panel for the mean over corruptions and
    one for each, the mean over seeds with its 95 % interval. `ConfigError` where the table has not been measured.
    """
    lines = pd.DataFrame(_errors(experiment, store))
    require(len(lines) > 0, f"{experiment.name} measures no corruptions")
    mean = lines.groupby(["dataset", "row", "seed", "severity"], sort=False, as_index=False)["error (%)"].mean()
    shown = pd.concat([mean.assign(corruption="mean of all"), lines])
    shown["panel"] = shown["dataset"] + "\n" + shown["corruption"].str.replace("_", " ")
    order = [
        panel for dataset in lines["dataset"].unique() for panel in shown.loc[shown["dataset"] == dataset, "panel"].unique()
    ]
    look = {"dashes": False, "markeredgewidth": 0, "err_kws": {"alpha": 0.15, "linewidth": 0}}
    rows = lines["row"].nunique()
    look |= {"palette": COLOURS[:rows], "markers": tuple(MARKS[:rows])}
    places = {"x": "severity", "y": "error (%)", "hue": "row", "style": "row", "col": "panel", "col_order": order}
    with sns.axes_style("whitegrid"), plt.rc_context(STYLE | {"figure.dpi": 144}):
        grid = sns.relplot(shown, kind="line", **places, **look, col_wrap=4, height=1.9, aspect=1.1, errorbar=ends)
        plt.close(grid.figure)  # the caller shows it; pyplot shall not show it a second time
        grid.set(xticks=sorted(shown["severity"].unique()), title="")
        for axes, panel in zip(grid.axes.flat, order, strict=True):
            axes.set_title(panel, loc="left")
    return grid.figure


def _errors(experiment: Experiment, store: Store) -> Iterator[dict[str, Any]]:
    declared = [cell for cell in experiment.cells if cell.measurement and cell.measurement.name == "corrupted"]
    for cell, seed in ((cell, seed) for cell in declared for seed in experiment.seeds):
        found = arrays(store, cell.with_seed(seed), cell.measurement, what=f"errors of {cell.row}, seed {seed},")
        clean = found.pop(CLEAN, [])  # not known of ImageNet-C
        for name, errors in found.items():
            for severity, error in enumerate([*clean, *errors], start=1 - len(clean)):
                place = {"dataset": cell.dataset, "row": cell.row, "seed": seed, "corruption": name}
                yield place | {"severity": severity, "error (%)": error}
