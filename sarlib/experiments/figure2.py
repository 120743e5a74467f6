"""Figure 2: the spatial entropy of one map, step by step."""

from __future__ import annotations

import dataclasses

from sarlib.experiments.declaration import Table
from sarlib.experiments.figure4 import compared, drawn
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import settings


def declare(sets: Sets) -> Table:
    """SAR's network of the first setting of Table 4; drawn from the same measurement as Figure 4."""
    *_, sar = compared("figure2", settings(sets)[0])
    cells = [dataclasses.replace(sar, baseline=None)]
    return Table(title="The entropy of a map", cells=tuple(cells), drawn=drawn(cells), leads=("entropy", "components"))
