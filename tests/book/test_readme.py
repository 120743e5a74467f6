"""The README says what is so: its figures are those of the committed results, its commands and its tree exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "book"))


def test_tables_are_those_of_the_reference_results() -> None:
    import readme

    assert readme.rendered(README) == README, "run python book/readme.py"


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    mentioned = set(re.findall(r"`?make ([a-z][a-z0-9-]*)", README))
    declared = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M)) | {
        path.stem for path in (ROOT / "book" / "notebooks").glob("*.ipynb")
    }
    assert mentioned and mentioned <= declared


def test_every_file_of_the_tree_exists() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    inside = re.findall(r"\b([a-z_]+(?:\.py|\.yml|/))", tree)
    assert len(inside) > 15
    for name in set(inside) - {"store/"}:  # the reader's own: made by the first run
        assert any((ROOT / folder / name.rstrip("/")).exists() for folder in ("", "sarlib", "book", "runs")), name


def test_links_resolve() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_nothing_is_left_open() -> None:
    assert not re.search(r"@[A-Z]+@|TODO|FIXME", README)
