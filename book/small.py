"""What the chapter on small machines shows: how far each training went, and whether the loss did anything to its target."""

from __future__ import annotations

from collections.abc import Sequence

import findings
import front
import markup
import pandas as pd
from results import Found

from sarlib.report.statistics import from_baselines, groups, mean_interval, paired_values

#: White noise on 8 x 8 and 14 x 14 tokens: the entropy of maps that show nothing.
NOISE = {8: 0.387, 14: 0.410}


def learned(everything: Sequence[Found]) -> str:
    """Of every data set and table: steps, what the baseline's loss fell to and its floor, and its accuracy."""
    rows = []
    for found in everything:
        for (table, dataset), cells in groups(found.experiment.cells).items():
            rows += _row(found, table, dataset, cells[0])
    head = ("data set", "table", "optimizer steps", "training loss: first, last", "top-1 of the baseline, %", "seeds")
    return markup.table(head, dict.fromkeys(rows)) if rows else "No results yet."


def _row(found: Found, table: str, dataset: str, cell) -> list[tuple]:
    own = found.results[(found.results["table"] == table) & (found.results["dataset"] == dataset)]
    own = own[(own["row"] == cell.row) & (own["metric"] == "top1")]
    size, recipe = cell.run.data.train_size, cell.run.recipe
    if own.empty or cell.measurement is not None or cell.epoch is not None:
        return []
    steps = f"{-(-size // recipe.batch_size) * recipe.epochs:,}" if size else "–"
    losses = [_loss(found, key) for key in own["key"]]
    losses = [each for each in losses if each]
    course = "–"
    if losses:
        course = " → ".join(f"{sum(each[end] for each in losses) / len(losses):.2f}" for end in (0, 1))
    return [(dataset, f"[{found.name}]({found.page})", steps, course, f"{own['value'].mean():.1f}", own["seed"].nunique())]


def _loss(found: Found, key: str) -> tuple[float, float] | None:
    path = found.store / key / "metrics.csv"
    if not path.exists():
        return None
    course = pd.read_csv(path)
    course = course[(course["split"] == "train") & (course["metric"] == "loss")]
    return (float(course["value"].iloc[0]), float(course["value"].iloc[-1])) if len(course) else None


def manipulation(everything: Sequence[Found]) -> str:
    """Whether the loss lowers the entropy: each row with SAR's loss minus the row with the same block without it."""
    rows = []
    for found in everything:
        for (table, dataset), cells in groups(found.experiment.cells).items():
            block = front._row(cells, "C", regularized=False)
            for cell in cells:
                regularizers = tuple(one.name for one in cell.run.regularizers)
                if (
                    block
                    and cell.run.model.variant == "C"
                    and regularizers == ("spatial_entropy",)
                    and cell.measurement is None
                ):
                    terms = ((1.0, table, cell.row, dataset), (-1.0, table, block.row, dataset))
                    interval = mean_interval(paired_values(found.results, terms, metric="entropy"))
                    if interval.n > 1:
                        verdict = "lower" if interval.high < 0 else "higher" if interval.low > 0 else "no difference shown"
                        weight = f"{cell.run.regularizers[0].weight:g}"
                        value = findings.difference(interval, "entropy")
                        rows.append((dataset, f"[{found.name}]({found.page})", cell.row, weight, value, interval.n, verdict))
    head = ("data set", "table", "row", "λ", "entropy, with the loss − without, nats", "seeds", "with the loss it is")
    return markup.table(head, rows) if rows else "No results yet that tell the loss from the block."


def spread(everything: Sequence[Found]) -> str:
    """How many seeds a difference of one point would need: from the spread of the paired differences in top-1."""
    rows = []
    for found in everything:
        if found.name not in ("headline", "table2"):
            continue
        for (_, dataset), cells in groups(found.experiment.cells).items():
            for contrast in from_baselines(cells):
                values = paired_values(found.results, contrast.terms, metric="top1")
                if len(values) > 2:
                    deviation = float(values.std(ddof=1))
                    rows.append((dataset, contrast.label, f"{deviation:.1f}", seeds_for(deviation)))
    head = ("data set", "difference", "standard deviation over seeds, points", "seeds for ± 1 point")
    return markup.table(head, rows) if rows else "No results yet."


def seeds_for(deviation: float, half_width: float = 1.0) -> int:
    """The fewest seeds whose 95 % t interval is expected to reach no further than `half_width` to either side."""
    from scipy import special

    n = 3
    while special.stdtrit(n - 1, 0.975) * deviation / n**0.5 > half_width and n < 10_000:
        n += 1
    return n
