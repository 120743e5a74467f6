"""Figure 1: what attention masks of the last block select, without SAR and with it."""

from __future__ import annotations

from sarlib.experiments.declaration import Table
from sarlib.experiments.figure4 import compared, drawn
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import settings


def declare(sets: Sets) -> Table:
    """The first setting of Table 4; drawn from the same measurement as Figure 4, with published networks where they are."""
    first = settings(sets)[0]
    shown = compared("figure1", first, sets.published(first))
    title = "Attention masks that hold 60 % of the mass"
    return Table(title=title, cells=tuple(compared("figure1", first)), drawn=drawn(shown), leads=("entropy", "components"))
