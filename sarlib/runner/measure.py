"""What is measured of finished runs: answered from the store or taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sarlib.run import Measurement, Run
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store


def measure_all(
    pairs: Iterable[tuple[Run, Measurement]], *, store: Store, root: Path | None, machine: Machine
) -> dict[tuple[str, str], dict[str, Any]]:
    """What each pair gives, by the keys of run and measurement."""
    found = {}
    for run, measurement in pairs:
        known = store.read_measured(run, measurement)
        if known is None:
            known = MEASURES[measurement.name](run, measurement, store, root)
            file = store.folder(run) / "measured" / f"{measurement.key}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(known))
        found[run.key, measurement.key] = known
    return found


def _collapse(run: Run, measurement: Measurement, store: Store, root: Path | None) -> dict[str, Any]:
    from sarlib.report import collapse
    from sarlib.runner import maps

    shown = maps.first_images(dataclasses.replace(run, data=measurement.data), measurement.images, root=root)
    return {"metrics": collapse.measures(maps.similarity(run, store=store, images=shown)), "arrays": {}}


def _maps(run: Run, measurement: Measurement, store: Store, root: Path | None) -> dict[str, Any]:
    from sarlib.runner import maps

    shown = maps.first_images(dataclasses.replace(run, data=measurement.data), measurement.images, root=root)
    return {"metrics": {}, "arrays": {"attention": maps.attention(maps.similarity(run, store=store, images=shown)).tolist()}}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"collapse": _collapse, "maps": _maps}
