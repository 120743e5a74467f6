"""Write `sarlib/experiments/doses.yml` from the committed results of the table `dose`: `python book/doses.py`.

The searches see the entropies and the training losses of the table and nothing else; a test holds file and results together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from sarlib.durable import write_durably
from sarlib.experiments import doses
from sarlib.experiments.results import read_csv

REFERENCE = Path(__file__).resolve().parent.parent / "runs" / "reference"


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
            "matched": doses.search_matched(doses.only(part["dose"], "entropy")),
            "harmless": doses.search_harmless(doses.only(part["dose-others"], "train_loss")),
        }
    return found


def text(found: dict[str, dict[str, object]], before: str) -> str:
    """The file's comment as it was `before`, and what was found."""
    comment = [line for line in before.splitlines() if line.startswith("#")]
    return "\n".join((*comment, yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=120)))


if __name__ == "__main__":
    write_durably(doses.FILE, text(searched(REFERENCE), doses.FILE.read_text(encoding="utf-8")).encode())
    print(f"wrote {doses.FILE.name}", file=sys.stderr)
