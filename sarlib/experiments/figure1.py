"""Figure 1: what attention masks of the last block select, without labels, without SAR and with it."""

from __future__ import annotations

from sarlib.experiments import self_supervised
from sarlib.experiments.declaration import Table
from sarlib.experiments.figure4 import compared, drawn
from sarlib.experiments.settings import Sets
from sarlib.experiments.table4 import settings
from sarlib.run import Run


def declare(sets: Sets) -> Table:
    """The first setting of Table 4; drawn as Figure 4, with a self-supervised network between its two."""
    first = settings(sets)[0]
    shown = compared("figure1", first, _without_labels(sets) or sets.published(first))
    title = "Attention masks that hold 60 % of the mass"
    return Table(title=title, cells=tuple(compared("figure1", first)), drawn=drawn(shown), leads=("entropy", "components"))


def _without_labels(sets: Sets) -> dict[str, Run]:
    """DINO's first run in the appendix; none where the preset has published networks, of which one is DINO's."""
    hosts = () if sets.preset.published else self_supervised.declare(sets).cells
    return {cell.row: cell.run for cell in reversed(hosts) if cell.row == "DINO"}
