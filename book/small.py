"""Makes the chapter on small machines: how far trainings went, whether the loss did anything, and how many seeds it takes."""

from __future__ import annotations

from collections.abc import Sequence

import findings
import markup
from results import Found

from sarlib import report
from sarlib.experiments.declaration import Cell
from sarlib.report.statistics import from_baselines, groups, mean_interval, paired_values, seeds_needed


def learned(everything: Sequence[Found]) -> str:
    """Of every baseline, where it is first shown: steps, what its loss fell to, and its accuracy."""
    rows, shown = [], set()
    for found in everything:
        for (table, dataset), cells in groups(found.experiment.cells).items():
            own = found.results[(found.results["table"] == table) & (found.results["dataset"] == dataset)]
            own = own[(own["row"] == cells[0].row) & (own["metric"] == "top1")]
            if len(own) and own["key"].iloc[0] not in shown and cells[0].measurement is None and cells[0].epoch is None:
                rows.append((dataset, found.link, _steps(cells[0]), _course(found, own["key"]), f"{own['value'].mean():.1f}"))
                rows[-1] += (own["seed"].nunique(),)
            shown |= set(own["key"])
    head = ("data set", "table", "optimizer steps", "training loss: first, last", "top-1 of the baseline, %", "seeds")
    return markup.table(head, rows) if rows else "No results yet."


def _steps(cell: Cell) -> str:
    size, recipe = cell.run.data.train_size, cell.run.recipe
    return f"{max(1, size // recipe.batch_size) * recipe.epochs:,}" if size else "–"  # an epoch's rest is dropped


def _course(found: Found, keys: Sequence[str]) -> str:
    """The training loss after the first epoch and after the last, as means over the runs that the store has."""
    courses = [course for key in keys if (course := found.course(key)) is not None]
    losses = [one.loc[(one["split"] == "train") & (one["metric"] == "loss"), "value"] for one in courses]
    losses = [one for one in losses if len(one)]
    return " → ".join(f"{sum(one.iloc[end] for one in losses) / len(losses):.2f}" for end in (0, -1)) if losses else "–"


def manipulation(everything: Sequence[Found]) -> str:
    """Whether the loss lowers the entropy: of every table what `report.manipulation` finds, each difference once."""
    rows: dict[tuple[str, ...], str] = {}
    for found in everything:
        for (_, dataset, row), line in report.manipulation(found.results, found.experiment).iterrows():
            if line["n"] > 1:
                numbers = (line["entropy"], line["difference in entropy"], line["n"], line["lowers it"])
                label = findings.weights(f"{row} − {line['without the loss']}")
                rows.setdefault((dataset, *numbers), f"{found.link}: {label}")
    lines = [(dataset, what, *numbers) for (dataset, *numbers), what in rows.items()]
    head = ("data set", "rows", "entropy without the loss → with it, nats", "difference", "seeds", "lower")
    return markup.table(head, lines) if lines else "No results yet that tell the loss from the block."


def spread(everything: Sequence[Found]) -> str:
    """How many seeds find a difference of one point, by the spread of the paired differences in top-1."""
    rows = []
    for found in (found for found in everything if found.name in ("headline", "table2")):
        for (_, dataset), cells in groups(found.experiment.cells).items():
            for contrast in from_baselines(cells):
                values = paired_values(found.results, contrast.terms, metric="top1")
                interval = mean_interval(values)
                if interval.n > 2 and not interval.degenerate:
                    rows.append((dataset, contrast.label, f"{values.std():.1f}", seeds_needed(interval, 1.0)))
    head = ("data set", "difference", "standard deviation over seeds, points", "seeds that find 1 point")
    return markup.table(head, rows) if rows else "No results yet."
