"""pyproject.toml, requirements.lock and environment.yml describe one environment."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
DECLARED = [
    Requirement(line) for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in lines
]


def locked() -> dict[str, set[str]]:
    """Versions by package; the lock holds several of one package where platforms or Python versions need different ones."""
    versions: dict[str, set[str]] = {}
    for line in LOCK.splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line)
            [pin] = requirement.specifier
            assert pin.operator == "==", f"{line}: the lock pins exact versions"
            versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_lock_holds_every_declared_dependency_within_its_range(requirement: Requirement) -> None:
    versions = locked().get(canonicalize_name(requirement.name), set())
    assert versions, f"{requirement.name} is not in requirements.lock: run make lock"
    assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), (
        f"{versions} outside {requirement}"
    )


#: What a part of sarlib needs that not everybody uses, by the extra it belongs to; and what comes with a dependency.
OPTIONAL = {"seaborn": "book", "matplotlib": "book", "submitit": "cluster", "torchmetrics": "detection", "torchcodec": "video"}
BELOW = {"pillow": "torchvision", "triton": "torch", "huggingface-hub": "timm"}


def test_an_installation_without_extras_has_all_that_a_table_imports() -> None:
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    distributions, imported = packages_distributions(), set()
    for path in (ROOT / "sarlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    modules = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"sarlib"}
    needed = {canonicalize_name(distributions.get(module, [module])[0]) for module in modules}  # some may not be installed
    assert {"torch", "scikit-learn"} <= needed
    assert needed <= core | OPTIONAL.keys() | BELOW.keys()
    assert set(OPTIONAL.values()) <= PROJECT["optional-dependencies"].keys() and set(BELOW.values()) <= core


def test_lower_bounds_are_what_is_tried_with_them() -> None:
    """.ci/oldest installs the oldest versions that are allowed: of everything that states one, for every part that it tests."""
    script = (ROOT / ".ci" / "oldest").read_text()
    assert "--resolution lowest-direct" in script and "pytest" in script
    assert set(re.search(r"-e '\.\[(.*)\]'", script)[1].split(",")) == PROJECT["optional-dependencies"].keys() - {"bench"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders - {"book", "gpu"} <= set(re.findall(r"tests/(\w+)", script))
    unbounded = [each.name for each in DECLARED if not any(bound.operator == ">=" for bound in each.specifier)]
    assert unbounded == []


def test_torch_2_13_0_is_excluded() -> None:
    [torch] = [requirement for requirement in DECLARED if requirement.name == "torch"]
    assert not torch.specifier.contains("2.13.0")
    assert "2.13.0" not in locked()["torch"]


def test_lock_is_made_by_make_lock() -> None:
    command = re.search(r"^#\s+(uv pip compile .*)$", LOCK, re.MULTILINE)[1]
    assert command.removeprefix("uv ") in (ROOT / "Makefile").read_text()


def test_nothing_names_an_index_or_a_place_on_a_machine() -> None:
    for name in ("requirements.lock", "environment.yml", "pyproject.toml"):
        text = (ROOT / name).read_text()
        for address in PROJECT["urls"].values():  # of the paper and its authors' code, where nothing is installed from
            assert address.startswith(("https://doi.org/", "https://github.com/"))
            text = text.replace(address, "")
        assert not re.search(r"--(extra-)?index-url|--find-links|https?://|file:|(^|\s)/\w", text), name


def test_environment_yml_installs_the_lock_and_the_package() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert (pip, packages) == ("pip", {"pip": ["-r requirements.lock", "-e ."]})
    version = python.removeprefix("python=")
    assert f"--python-version {version} " in LOCK
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
