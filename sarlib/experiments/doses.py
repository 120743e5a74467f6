"""What the searches of the table `dose` found, `doses.yml`: the matched dose of SAR's loss, and harmless weights of the others.

The matched dose is the smallest weight that lowers the entropy of the maps by a quarter. A harmless weight of another
regulariser is the largest that costs no more than .05 nats of the training loss. Neither search sees an accuracy: it is not in
its input. `python book/doses.py` writes the file anew from the committed results of the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sarlib.config import require

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).with_name("doses.yml")
NO_LOSS = "0"
#: The change of the entropy, as a share of it, that is asked of a dose; and the training loss, in nats, that may be lost.
LOWERED, HARMLESS = -0.25, 0.05
#: What a search is given, and nothing else: `value` is the entropy, or the training loss.
INPUT = ("dataset", "row", "seed", "value")


def matched(name: str, preset: str) -> float | None:
    """The matched dose of `preset` for a data set, its own or that of a set of its kind ("pacs-…"), or None."""
    found = _load().get(preset, {}).get("matched", {})
    kinds = {other.partition("-")[0]: each for other, each in found.items()}
    return found.get(name, kinds.get(name.partition("-")[0], {})).get("weight")


def harmless(preset: str) -> dict[str, float]:
    """The harmless weights of `preset` by regulariser, as far as they are known."""
    found = _load().get(preset, {}).get("harmless", {})
    return {name: each["weight"] for name, each in found.items() if each["weight"] is not None}


def _load() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8")) or {}


def only(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Of the table's tidy results what a search may see."""
    return results.loc[results["metric"] == metric, list(INPUT)]


def search_matched(entropies: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By data set {"weight": the matched dose or None, "change": {weight: change of the mean entropy as a share of it}}, from
    the entropies of part "dose"."""
    return {
        dataset.partition(",")[0]: {
            "weight": next((float(row) for row, share in changes.items() if share <= LOWERED), None),
            "change": changes,
        }
        for dataset, means in _means(entropies)
        for changes in [{row: round(mean / means[NO_LOSS] - 1, 4) for row, mean in _by_weight(means)}]
    }


def search_harmless(losses: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By regulariser {"weight": the harmless one or None, "change": {weight: change of the training loss in nats}}, from the
    training losses of part "dose-others", whose rows are "<regulariser> <weight>"."""
    found: dict[str, dict[str, Any]] = {}
    for _, means in _means(losses):
        for row, mean in _by_weight(means):
            name, weight = row.split(" ")
            own = found.setdefault(name, {"weight": None, "change": {}})
            own["change"][weight] = round(mean - means[NO_LOSS], 4)
            own["weight"] = float(weight) if own["change"][weight] <= HARMLESS else own["weight"]
    return found


def _by_weight(means: dict[str, float]) -> list[tuple[str, float]]:
    """The rows with a loss and their means, the smallest weight first."""
    return sorted((line for line in means.items() if line[0] != NO_LOSS), key=lambda line: float(line[0].split(" ")[-1]))


def _means(found: pd.DataFrame) -> list[tuple[str, dict[str, float]]]:
    """(data set, {row: mean over the seeds that all of its rows have}). `ConfigError` for other columns than `INPUT`."""
    require(
        tuple(found.columns) == INPUT, f"a search sees the columns {', '.join(INPUT)} of one metric, got {[*found.columns]}"
    )
    wide = [
        (name, own.pivot(index="seed", columns="row", values="value")) for name, own in found.groupby("dataset", sort=False)
    ]
    return [(name, own.dropna().mean().to_dict()) for name, own in wide]
