"""Makes the sentences on what a table found: from results, so that other results make other sentences."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from results import Found

from sarlib.experiments.declaration import Cell
from sarlib.report.judgement import VERDICTS, verdicts
from sarlib.report.notation import bounds, number
from sarlib.report.statistics import Interval, from_baselines, groups, leading
from sarlib.tasks import metrics

NAMES = {
    "top1": "top-1 accuracy",
    "jaccard": "Jaccard index of the attention masks",
    "entropy": "entropy of the maps",
    "natural": "top-1 accuracy where cues mislead",
    "corrupted": "error on corrupted images",
    "mce": "mean corruption error",
    "knn": "accuracy of nearest neighbours",
    "mlmap": "mean average precision",
    "map07": "mean average precision of boxes",
    "miou": "mean intersection over union",
}
#: What the loss lowers; a manipulation check, not a quality.
TARGET = "entropy"
#: More differences than this are not listed one by one.
FEW = 6


@functools.lru_cache(maxsize=64)
def sentences(found: Found) -> tuple[str, ...]:
    """What each row has more than its baseline of what its table leads with, then what happened to the loss's own target;
    empty without differences."""
    said, parts = [], dict.fromkeys(cell.table for cell in found.experiment.cells)
    for table in parts:
        cells = [cell for cell in found.experiment.cells if cell.table == table]
        last = max(cell.epoch or 0 for cell in cells)
        cells = [cell for cell in cells if (cell.epoch or 0) == last]
        leads = leading(found.results, found.experiment, cells)
        quality = [name for name in leads if metrics.metric(name).better][:1]
        chosen = [name for name in leads if name in (*quality, TARGET)]
        where = f"{title(table)}: " if len(parts) > 1 else ""
        said += [where + line for name in chosen if (line := _by_row(found, cells, name))]
    return tuple(said)


def title(name: str) -> str:
    """Of a table or a part of one, as a reader calls it: "Table 1a", "Appendix, losses", "Future work"."""
    words = name.replace("table", "Table ").replace("figure", "Figure ").replace("_", " ").replace("-", ", ")
    return words[0].upper() + words[1:]


def weights(label: str) -> str:
    """The label of a difference; where its rows are weights of the loss, it says so."""
    return f"λ {label}" if label[0].isdigit() else label


def _by_row(found: Found, cells: list[Cell], metric: str) -> str:
    """One sentence a row: each difference where there are few, else on how many data sets it is above 0, below, or neither."""
    rows: dict[str, list[tuple[str, Interval]]] = {}
    for (_, dataset), own in groups(cells).items():
        for contrast in from_baselines(own):
            interval = found.interval(contrast, metric)
            if interval.n >= 2:
                rows.setdefault(weights(contrast.label), []).append((dataset, interval))
    if not rows:
        return ""
    points = "points of " if metrics.metric(metric).unit == "%" else ""
    what = f"{points}{NAMES.get(metric, metric)}"
    datasets = dict.fromkeys(dataset for own in rows.values() for dataset, _ in own)
    where = f" on {next(iter(datasets))}" if len(datasets) == 1 else f" on {len(datasets)} data sets"
    start = f"**{what[0].upper()}{what[1:]}**{where}, {_seeds(each for own in rows.values() for _, each in own)}: "
    if len(datasets) > 1 and sum(map(len, rows.values())) <= FEW:
        found = {label: [f"{difference(one, metric)} on {name}" for name, one in own] for label, own in rows.items()}
        return start + "; ".join(f"{label}: {', '.join(own)}" for label, own in found.items()) + "."
    if len(datasets) > 1:
        same: dict[str, list[str]] = {}
        for label, own in rows.items():
            same.setdefault(_over_sets(own, metric), []).append(label)
        parts = [f"{', '.join(labels)} {'is' if len(labels) == 1 else 'are each'} {where}" for where, labels in same.items()]
        return start + "; ".join(parts) + "."
    single = {label: own[0][1] for label, own in rows.items()}
    shown = single if len(single) <= FEW else {label: each for label, each in single.items() if not each.contains(0)}
    parts = [f"{label} = {difference(each, metric)}" for label, each in shown.items()]
    if hidden := len(single) - len(shown):
        parts.append(f"of the other {hidden} differences the interval includes 0")
    return start + "; ".join(parts) + "."


def _over_sets(own: list[tuple[str, Interval]], metric: str) -> str:
    """ "above 0 on 4 (most on a: +1.0 [..]), below 0 on 2 (most on b: …), undecided on 3" """
    above = sorted((one for one in own if one[1].low > 0), key=lambda one: -one[1].mean)
    below = sorted((one for one in own if one[1].high < 0), key=lambda one: one[1].mean)
    parts = []
    for side, sets in (("above 0", above), ("below 0", below)):
        if sets:
            most = "most on " if len(sets) > 1 else ""
            parts.append(f"{side} on {len(sets)} ({most}{sets[0][0]}: {difference(sets[0][1], metric)})")
    if undecided := len(own) - len(above) - len(below):
        parts.append(f"of undecided sign on {undecided if parts else 'all of them'}")
    return ", ".join(parts)


def _seeds(intervals: Iterable[Interval]) -> str:
    counts = sorted({interval.n for interval in intervals})
    return f"{counts[0]} paired seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} paired seeds"


def difference(interval: Interval, metric: str) -> str:
    """Mean and 95 % interval with the metric's decimals: +1.20 [+0.31, +2.09]."""
    return f"{number(interval.mean, metric, '+')} {bounds(interval, metric)}"


def verdict_sentence(found: Found) -> str:
    """Which claims of the paper met which verdict; empty where the table tests none."""
    if not found.declared.tests:
        return ""
    met: dict[str, list[str]] = {}
    for test, verdict in zip(found.declared.tests, verdicts(found.results, found.declared)["verdict"], strict=True):
        against = f"against {test.claim.reference}" if test.claim.reference else ""
        about = ", ".join(filter(None, (test.claim.where, against, test.dose)))
        met.setdefault(verdict, []).append(f"{test.claim.claim} ({about})")
    parts = [f"**{verdict}**: {'; '.join(met[verdict])}" for verdict in VERDICTS if verdict in met]
    return f"What becomes of the paper's claims: {'. '.join(parts)}."


def meaning(found: Found) -> list[str]:
    """What may be concluded, and what not: which sets are real, how small the interval is, and what the loss did to its
    target."""
    datasets = dict.fromkeys(cell.dataset for cell in found.experiment.cells)
    real = [name for name in datasets if name in found.experiment.real]
    drawn = [name for name in datasets if name not in found.experiment.real]
    said = []
    if drawn and real:
        said.append(f"Real images: {'; '.join(real)}. Drawn by the code or digits: {'; '.join(drawn)}.")
        said.append("The verdicts are about the real images, which are nearer to what the paper claims.")
    elif drawn:
        said.append(f"All images here are drawn by the code or digits ({'; '.join(drawn)}); photographs may answer otherwise.")
    else:
        said.append(f"All images here are real ({'; '.join(real)}).")
    beyond = "{doc}`small_machine` says what that can show of the paper's experiments, and {doc}`claims` has all verdicts."
    return [*said, f"A verdict is about the direction of a difference at this size. {beyond}"]


#: What the figures of `sarlib.report` show; those in PICTURES show images, and no sentence about numbers says it better.
SHOWS = {
    "figure": "Each seed's {lead} with means and 95 % intervals, and the differences from the baseline,",
    "curves": "Curves of {lead} against epochs",
    "forest": "The declared differences with every seed and 95 % intervals",
    "gradients": "The gradients of the task and of the loss over training",
    "gains": "What SAR adds against the number of parameters",
    "severities": "The metric against the severity of each corruption",
    "maps": "Test images, and below them the attention map of one head",
    "heads": "Test images, and the attention maps of every head",
    "masks": "Test images, and the patches that hold 60 % of the attention, with their components,",
    "blobs": "From an image to its map, what exceeds the mean, its components and their terms of the entropy",
    "boxes": "Test images with the predicted boxes beside the true ones",
    "segments": "Test images with the predicted masks beside the true ones",
}
PICTURES = ("maps", "heads", "masks", "blobs", "boxes", "segments")


def alternative(found: Found, *, kind: str) -> str:
    """What a figure of these results shows, in words, for those who do not see it."""
    sets, rows = (list(dict.fromkeys(getattr(cell, name) for cell in found.experiment.cells)) for name in ("dataset", "row"))
    where = sets[0] if len(sets) == 1 else f"{len(sets)} data sets"
    what = SHOWS[kind].format(lead=found.experiment.leads[0])
    said = [] if kind in PICTURES else [line.replace("**", "") for line in sentences(found)[:1]]
    listed = f": {', '.join(rows)}" if len(rows) < 9 else ""
    return " ".join([f"{what} of {len(rows)} rows on {where}{listed}.", *said])
