"""Writes `sarlib/experiments/doses.yml` from the committed results of the table `dose`: `python book/doses.py`.

The searches see the entropies and the training losses of the table and nothing else; a test holds file and results together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sarlib.config import require
from sarlib.durable import write_durably
from sarlib.experiments import doses
from sarlib.experiments.doses import NO_LOSS
from sarlib.experiments.results import read_csv

#: The change of the entropy, as a share of it, that a matched dose makes; and the training loss, in nats, that may be lost.
LOWERED, HARMLESS = -0.25, 0.05
#: What a search is given, and nothing else: `value` is the entropy, or the training loss.
INPUT = ("dataset", "row", "seed", "value")

REFERENCE = Path(__file__).resolve().parent.parent / "runs" / "reference"


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
    seen = [*found.columns]
    require(tuple(seen) == INPUT, f"a search sees the columns {', '.join(INPUT)} of one metric, got {seen}")
    sets = found.set_index(["dataset", "seed", "row"])["value"].groupby("dataset", sort=False)
    return [(name, own.droplevel(0).unstack().dropna().mean().to_dict()) for name, own in sets]


def searched(reference: Path) -> dict[str, dict[str, object]]:
    """By preset: what both searches find in its `dose.csv`, with the seeds and the commits of the runs behind it."""
    found = {}
    for path in sorted(reference.glob("*/dose.csv")):
        results = read_csv(path)
        part = {name: results[results["table"] == name] for name in ("dose", "dose-others")}
        records = [reference / "store" / key / "result.json" for key in results["key"].unique()]
        commits = {json.loads(record.read_text())["provenance"]["commit"] for record in records if record.exists()}
        found[path.parent.name] = {
            "from": f"runs/reference/{path.parent.name}/dose.csv",
            "seeds": sorted(map(int, results["seed"].unique())),
            "commits": sorted(commit[:7] for commit in commits if commit),
            "matched": search_matched(only(part["dose"], "entropy")),
            "harmless": search_harmless(only(part["dose-others"], "train_loss")),
        }
    return found


def text(found: dict[str, dict[str, object]], before: str) -> str:
    """The file's comment as it was `before`, and what was found."""
    comment = [line for line in before.splitlines() if line.startswith("#")]
    return "\n".join((*comment, yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=120)))


if __name__ == "__main__":
    write_durably(doses.FILE, text(searched(REFERENCE), doses.FILE.read_text(encoding="utf-8")).encode())
    print(f"wrote {doses.FILE.name}", file=sys.stderr)
