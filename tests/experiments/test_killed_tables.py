"""SIGKILL at any moment of a table, in its parents, its children or its measurements: it ends as if nothing had been.

SAR_KILLS=50 kills the tables 50 times instead of 6.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from pathlib import Path

import pytest
from mortal import Life, warm_process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX")

KILLS = int(os.environ.get("SAR_KILLS", "6"))
TOGETHER = 3  # kills of the same tables


def test_tables_killed_anywhere_end_with_the_same_bytes(tmp_path: Path) -> None:
    """The tables as printed, and every line of their CSVs that is not the machine's. Moments are drawn from each part of the
    whole length, by turns in calls to the file system and in seconds; each life goes on where the one before it died."""
    draw = random.Random(0)
    killed: list[Life] = []
    with warm_process() as live:
        whole = live("tables", tmp_path / "whole")
        for trial in itertools.count():
            folder, number = tmp_path / str(trial), min(TOGETHER, KILLS - len(killed))
            moments = [(part + draw.random()) / number for part in range(number)]
            for ahead in (moment - before for before, moment in zip([0.0, *moments], moments)):
                by_turns = {"at_call": math.ceil(ahead * whole.calls)}, {"after_seconds": ahead * whole.seconds}
                life = live("tables", folder, **by_turns[trial % 2])
                killed += [life] * life.killed
            assert live("tables", folder).result == whole.result
            left = [path.name for pattern in ("*.corrupt*", "*.tmp") for path in folder.rglob(pattern)]
            assert not left, "nothing is broken, nothing is left half-written"
            if len(killed) >= KILLS:
                break
    kept = tmp_path / "whole" / "store"
    assert len(list(kept.glob("*/result.json"))) == 9 and len(list(kept.glob("*/measured/*.json"))) == 6
    assert whole.result.count("CANNOT BE TESTED") == 3 and not any(life.result for life in killed)
    print(f"{len(killed)} kills: the tables end with the same {len(whole.result)} characters")
