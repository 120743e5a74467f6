"""What the searches of the table `dose` found, `doses.yml`: the matched dose of SAR's loss, and harmless weights of the others.

The matched dose is the smallest weight that lowers the entropy of the maps by a quarter. A harmless weight of another
regulariser is the largest that costs no more than .05 nats of the training loss. Neither search sees an accuracy: it is not in
its input. `python book/doses.py` has the searches and writes the file from the committed results of the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("doses.yml")
NO_LOSS = "0"


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
