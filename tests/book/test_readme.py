"""README and chapters say what is so: figures are those of the committed results; commands, files and quoted code exist."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "runs" / "README.md", *sorted((ROOT / "book").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
sys.path.insert(0, str(ROOT / "book"))


def test_tables_are_those_of_the_reference_results() -> None:
    import readme

    assert readme.rendered(README) == README, "run python book/readme.py"


@each_page
def test_every_make_target_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = page.read_text(encoding="utf-8")
    mentioned = set(re.findall(r"(?:^\$ |`)make ([a-z][a-z0-9_-]*)", text, flags=re.M))
    declared = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M)) | {
        path.stem for path in (ROOT / "book" / "notebooks").glob("*.ipynb")
    }
    assert mentioned <= declared
    assert mentioned or page.name != "README.md"


@each_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in re.findall(r"`((?:sarlib|tests|book)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


@each_page
def test_code_that_a_chapter_quotes_exists(page: Path) -> None:
    quoted = re.findall(r"\{literalinclude\} (\S+)\n((?::.*\n)*)", page.read_text(encoding="utf-8"))
    for path, options in quoted:
        source = (ROOT / ("book" if path.startswith("examples/") else "") / path).read_text(encoding="utf-8")
        for name in re.findall(r":pyobject: (\S+)", options):
            scope = ast.parse(source).body
            for part in name.split("."):
                [found] = [node for node in scope if getattr(node, "name", None) == part]
                scope = getattr(found, "body", [])
        for text in re.findall(r':(?:start|end)-(?:at|before|after): "(.*)"', options):
            assert text.replace("\\n", "\n") in source, f"{path} lacks {text}"


def test_the_plug_in_chapter_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "book" / "plug_in.md").read_text(encoding="utf-8")))
    assert len(named) > 5 and all((ROOT / "tests" / f"{name}.py").exists() for name in named)


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
