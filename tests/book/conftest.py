"""One build of the book serves all tests of its pages, so they have to run in one process (the group "book")."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book")]
sys.path.append(str(Path(__file__).parent))  # last: tests/ has a conftest too
import build  # noqa: E402  (scripts of the book, not a package)
import stage  # noqa: E402
from staged_book import copy_reference, executed, fail, write_results  # noqa: E402


@pytest.fixture
def source() -> Path:
    return stage.NOTEBOOKS / "table2.ipynb"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reference results of table 2 at the main preset, older ones of the reader at tiny, which then failed; none of table 1;
    and committed results of others."""
    runs = tmp_path_factory.mktemp("runs")
    source = stage.NOTEBOOKS / "table2.ipynb"
    write_results(runs / "reference" / "laptop", runs / "reference" / "store", executed(source))
    older = executed(source)
    older.cells[-1].source += "\n# as it was"
    write_results(runs / "tiny", runs / "store", older)
    fail(runs / "tiny")
    copy_reference(runs)
    return runs


@pytest.fixture(scope="session")
def staged(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staged")
    stage.stage(folder, runs=runs)
    return folder


@pytest.fixture(scope="session")
def book(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages."""
    out = tmp_path_factory.mktemp("book")
    assert build.build(staged, out) == 0, "the build warns: see the captured output"
    return out / "_build" / "html"
