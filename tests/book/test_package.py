"""What surrounds the code: the package holds what it needs, and licence, citation, workflow and references say what is so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import api
import departures
import nbformat
import pytest
import stage
import without_outputs
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_an_installation_has_its_data_and_runs_outside_a_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "sarlib", source / "sarlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("sarlib/experiments/claims.yml", "sarlib/py.typed", "sarlib/data/imagenet100.txt"):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names) and not [name for name in names if name.startswith("tests")]
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = {name: value for name, value in os.environ.items() if name != "SAR_RUNS"}
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    code = "import sarlib, sarlib.experiments as e; e.declare('table2', preset='tiny'); print(sarlib.__file__, e.runs_folder())"
    settings = {"cwd": elsewhere, "env": environment, "capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-c", code], **settings)
    assert str(tmp_path / "installed") in done.stdout and str(elsewhere / "runs") in done.stdout


def test_citation_licence_and_project_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"] == "MIT"
    assert citation["authors"] == PROJECT["authors"] == [{"name": "the sarlib developers"}]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert citation["preferred-citation"]["doi"] in (ROOT / "book" / "references.bib").read_text()
    assert f"version = {{{PROJECT['version']}}}" in (ROOT / "book" / "bibliography.md").read_text()


def test_the_readme_names_every_extra() -> None:
    sentence = (ROOT / "README.md").read_text().split("the extras are ")[1].split(".")[0]
    assert set(sentence.replace("`", "").replace(" and", ",").split(", ")) == set(PROJECT["optional-dependencies"])


def test_the_workflow_runs_the_whole_check_and_builds_the_book() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step.get("run", "") for step in jobs["check"]["steps"]]
    assert ".ci/run" in commands and "make book" in commands
    assert jobs["publish"]["needs"] == "check"
    assert ".ci/oldest" in [step.get("run", "") for step in jobs["oldest"]["steps"]], "the lower bounds are tried"


def test_every_public_name_is_in_the_reference_with_its_docstring() -> None:
    section = api.section()
    for modules in api.PUBLIC.values():
        for name in (name for names in modules.values() for name in names):
            entry = section.split(f"### `{name}`\n")[1].split("\n### ")[0]
            assert len(entry.split("```", 2)[2].split()) > 3, f"{name} has no docstring"


def test_every_departure_names_what_exists() -> None:
    for entry in departures.load():
        here = entry["here"]
        assert ("where" in here) == ("test" in here), entry["subject"]
        if "where" in here:
            path, _, name = here["test"].partition("::")
            assert (ROOT / here["where"]).exists() and f"def {name}(" in (ROOT / path).read_text(), entry["subject"]
        for side in ("text", "code"):
            assert set(entry[side]) == {"says", "source"}


def test_buttons_and_links_are_there_where_the_address_is_known() -> None:
    assert "launch_buttons" not in stage._configuration("") and "repository" not in stage._configuration("")
    known = stage._configuration("https://example.org/sarlib")
    assert known["repository"]["url"] == "https://example.org/sarlib" and "colab_url" in known["launch_buttons"]
    assert "](https://example.org/sarlib/blob/main/sarlib/" in departures.section([], repository="https://example.org/sarlib")


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "notebooks").glob("**/*.ipynb")), ids=lambda path: path.stem)
def test_git_sees_a_notebook_that_was_run_as_it_was(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert without_outputs.stripped(source) == source
    notebook = json.loads(source)
    for cell in notebook["cells"]:
        cell["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01"}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [{"output_type": "stream", "name": "stdout", "text": "±"}], 3
    notebook["metadata"]["language_info"]["version"] = "3.12.1"
    assert without_outputs.stripped(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n") == source
    assert without_outputs.stripped("no notebook") == "no notebook"


def test_the_notebook_to_explore_is_valid_and_calls_what_there_is() -> None:
    from sarlib import explore

    notebook = nbformat.read(ROOT / "book" / "notebooks" / "explore" / "explore.ipynb", 4)
    nbformat.validate(notebook)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    called = {word.split("(")[0] for word in code.replace("*", " ").split("explore.")[1:]}
    assert called >= {"changed", "train", "load", "look"} and all(hasattr(explore, name) for name in called)
