"""What can be measured of a finished run: functions of the run and of a `Measurement`, a file a subject. Importing this imports
no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sarlib.config import require_known
from sarlib.run import Measurement

if TYPE_CHECKING:
    from sarlib.measures.finished import Finished

#: By `Measurement.name`, which is also the name of the function: the file that it is in.
MEASURES = {
    **dict.fromkeys(("collapse", "maps", "heads", "clips", "objects"), "maps"),
    **dict.fromkeys(("natural", "corrupted"), "shifted"),
    **dict.fromkeys(("segments", "boxes"), "dense"),
    **dict.fromkeys(("features", "untrained_features", "pixels", "floors"), "features"),
}


def take(finished: Finished, wanted: Measurement) -> dict[str, Any]:
    """{"metrics": {name: number}, "arrays": {name: nested list}} of what the run's network makes of the images that are wanted.

    In evaluation mode and float32 whatever the device; weights at the end of training, not their average. `ConfigError` for an
    unknown measurement, images that are not there, or of another size than the architecture can take.
    """
    require_known("measurement", wanted.name, MEASURES)
    return getattr(importlib.import_module(f"sarlib.measures.{MEASURES[wanted.name]}"), wanted.name)(finished, wanted)
