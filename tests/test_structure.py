"""How sarlib is built: rooms import downwards only, files do not import each other in a circle, and none is long."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sarlib"
#: From the top down; what is in no room is free to be imported by all above the rooms that it imports.
ROOMS = ("report", "experiments", "runner", "measures", "trainer", "tasks", "models", "data", "config")
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(name: str) -> set[str]:
    """The modules of sarlib that one imports, anywhere in it, also for its annotations alone."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{each.name}" for each in node.names}
            found |= inside & set(MODULES) or {node.module}
            found |= {node.module} if inside - set(MODULES) else set()
    return (found & set(MODULES)) - {name, "sarlib"}


def test_no_file_is_imported_by_what_it_imports() -> None:
    assert len(list(TopologicalSorter({name: imported(name) for name in MODULES}).static_order())) == len(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_down_and_files_are_short(name: str) -> None:
    def floor(module: str) -> int:
        return ROOMS.index(module.split(".")[1]) if module.count(".") and module.split(".")[1] in ROOMS else -1

    above = [other for other in imported(name) if -1 < floor(other) < floor(name)]
    assert above == [] and len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 350
