"""What make promises: an environment that is built once and whole, targets that follow from the notebooks, one-line errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Stands in for Python: makes a .venv that holds a copy of itself, notes what it is asked for, fails at what FAIL names.
PYTHON = """#!/bin/sh
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
esac
echo "$*" >> calls
case " ${FAIL:-} " in *" $2 "*) exit 1 ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile with a stand-in for Python and two notebooks, in an otherwise empty folder."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "book" / "notebooks").mkdir(parents=True)
    for name in ("table1", "table2"):
        (tmp_path / "book" / "notebooks" / f"{name}.ipynb").touch()
    python = tmp_path / "python-stand-in"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(checkout: Path, *arguments: str, fail: str = "") -> subprocess.CompletedProcess[str]:
    """Run make as a user would: the variables of the make that runs these tests are not the user's."""
    outer = ("MAKE", "PRESET", "DATA", "SEEDS", "WORKERS", "DEVICE", "GPUS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    command = ["make", f"PYTHON={checkout / 'python-stand-in'}", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment | {"FAIL": fail}, capture_output=True, text=True, check=False)


def calls(checkout: Path) -> list[str]:
    """What Python was asked for since the last look."""
    log = checkout / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_environment_is_built_before_the_first_table_and_only_then(checkout: Path) -> None:
    assert make(checkout, "table2").returncode == 0
    venv, pip, uv, table = calls(checkout)
    assert venv == "-m venv .venv"
    assert pip.startswith("-m pip install") and pip.endswith(" uv")
    assert uv == "-m uv pip install --python .venv/bin/python -r requirements.lock -e ."
    assert table == "book/execute.py table2 --preset laptop"
    make(checkout, "table2")
    assert calls(checkout) == [table]


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_environment_is_built_again_when_older_than_its_declaration(checkout: Path, changed: str) -> None:
    make(checkout, "environment")
    calls(checkout)
    later = (checkout / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(checkout / changed, (later, later))
    make(checkout, "environment")
    assert any("-r requirements.lock" in call for call in calls(checkout))


def test_an_installation_that_failed_is_taken_up_again(checkout: Path) -> None:
    assert make(checkout, "environment", fail="pip uv").returncode == 2
    assert not (checkout / ".venv" / ".installed").exists()
    calls(checkout)
    assert make(checkout, "environment", fail="uv").returncode == 0
    assert calls(checkout)[-1] == "-m pip install -r requirements.lock -e ."


def test_a_rebuild_that_fails_leaves_no_environment_that_looks_good(checkout: Path) -> None:
    make(checkout, "environment")
    later = (checkout / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(checkout / "requirements.lock", (later, later))
    assert make(checkout, "environment", fail="pip uv").returncode == 2
    assert not (checkout / ".venv" / ".installed").exists()


def test_without_a_python_that_fits_it_says_which(checkout: Path) -> None:
    outcome = make(checkout, "environment", "PYTHON=/nowhere/python")
    assert outcome.returncode == 2
    assert "no Python 3.11, 3.12 or 3.13 found" in outcome.stderr


def test_variables_become_arguments_whatever_they_hold(checkout: Path) -> None:
    make(checkout, "environment")
    calls(checkout)
    make(
        checkout,
        "table1",
        "PRESET=tiny",
        "DATA=it's $$HOME",
        "DATASETS=shapes-object, 48 images;digits",
        "SEEDS=2",
        "WORKERS=1",
        "DEVICE=cpu",
    )
    expected = "--preset tiny --data it's $HOME --datasets shapes-object, 48 images;digits --seeds 2 --workers 1 --device cpu"
    assert calls(checkout) == [f"book/execute.py table1 {expected}"]


def test_a_table_without_a_notebook_fails_at_once_in_one_line(checkout: Path) -> None:
    outcome = make(checkout, "table3")
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines()[0] == "table3 is not declared yet; available: table1, table2"
    assert outcome.stdout == ""
    assert calls(checkout) == []


def test_a_new_notebook_is_a_new_target(checkout: Path) -> None:
    (checkout / "book" / "notebooks" / "table3.ipynb").touch()
    make(checkout, "environment")
    calls(checkout)
    make(checkout, "tables")
    assert [call.split()[1] for call in calls(checkout)] == ["table1", "table2", "table3"]


def test_help_names_every_target_of_the_interface(checkout: Path) -> None:
    text = make(checkout).stdout
    for target in ("table1, table2", "tables", "book", "lab", "test", "bench", "reference", "clean", "lock"):
        assert target in text
    assert calls(checkout) == []


def test_clean_keeps_trainings_and_reference(checkout: Path) -> None:
    for folder in ("store/0123", "reference/laptop", "laptop", "tiny"):
        (checkout / "runs" / folder).mkdir(parents=True)
    (checkout / "book" / "_build").mkdir()
    outcome = make(checkout, "clean")
    assert sorted(path.name for path in (checkout / "runs").iterdir()) == ["reference", "store"]
    assert (checkout / "runs" / "store" / "0123").exists() and not (checkout / "book" / "_build").exists()
    assert "runs/store/" in outcome.stdout


def test_reference_keeps_table_and_notebook_of_the_preset(checkout: Path) -> None:
    make(checkout, "environment")
    calls(checkout)
    (checkout / "runs" / "reference" / "tiny").mkdir(parents=True)
    (checkout / "runs" / "tiny").mkdir()
    (checkout / "runs" / "tiny" / "table2.ipynb").write_text("executed")
    make(checkout, "reference", "PRESET=tiny", "SEEDS=8")
    assert calls(checkout) == ["-m sarlib table2 --preset tiny --seeds 8 --keep-as-reference"]
    assert (checkout / "runs" / "reference" / "tiny" / "table2.ipynb").read_text() == "executed"


def test_a_notebook_that_shows_other_results_does_not_become_reference(checkout: Path) -> None:
    make(checkout, "environment")
    calls(checkout)
    (checkout / "runs" / "tiny").mkdir(parents=True)
    (checkout / "runs" / "tiny" / "table2.ipynb").touch()
    (checkout / "runs" / "tiny" / "table2.csv").touch()
    os.utime(checkout / "runs" / "tiny" / "table2.ipynb", (0, 0))
    outcome = make(checkout, "reference", "PRESET=tiny")
    assert outcome.returncode == 2 and "run make table2 first" in outcome.stderr
    assert calls(checkout) == []
