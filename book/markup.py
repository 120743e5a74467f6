"""Writes tables in Markdown, for the chapters and the README."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table with the columns `head`; the cells of `rows` as `str` gives them."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ("---",) * len(head), *rows))
