"""What make promises: an environment that is built once and whole, targets that follow from the notebooks, one-line errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Stands in for Python: makes a .venv that holds a copy of itself, notes its arguments and its environment, and fails at what
#: FAIL names. `-c` is for the check of the version.
PYTHON = """#!/bin/sh
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
echo "$*" >> "${here%/.venv/bin}/calls"
env > "${here%/.venv/bin}/environment"
case " ${FAIL:-} " in *" $2 "*) echo "${WORDS:-}" >&2; exit 1 ;; esac
"""


@pytest.fixture(params=["checkout", "mit Leerzeichen, häßlich"])
def anywhere(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A checkout in a folder of that name."""
    return new_checkout(tmp_path / request.param)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return new_checkout(tmp_path)


def new_checkout(folder: Path) -> Path:
    """The Makefile with a stand-in for Python and two notebooks, in an otherwise empty folder."""
    (folder / "book" / "notebooks").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "book/environment.sh"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("table1", "table2"):
        (folder / "book" / "notebooks" / f"{name}.ipynb").touch()
    write_program(folder / "python-stand-in", PYTHON)
    return folder


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def make(
    checkout: Path, *arguments: str, fail: str = "", environment: dict[str, str] | None = None, programs: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run make as a user would: the variables of the make that runs these tests are not the user's.

    `fail` is what the stand-in for Python fails at, `programs` a folder whose programs come before the machine's.
    """
    outer = ("MAKE", "PRESET", "DATA", "SEEDS", "WORKERS", "DEVICE", "GPUS")
    settings = {name: value for name, value in os.environ.items() if not name.startswith(outer)} | {"FAIL": fail}
    if programs is not None:
        settings["PATH"] = f"{programs}:{settings['PATH']}"
    command = ["make", f"PYTHON={checkout / 'python-stand-in'}", *arguments]
    return subprocess.run(
        command, cwd=checkout, env=settings | (environment or {}), capture_output=True, text=True, check=False
    )


def calls(checkout: Path) -> list[str]:
    """What Python was called with since the last look."""
    log = checkout / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def environment_of_last_call(checkout: Path) -> dict[str, str]:
    lines = (checkout / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_environment_is_built_before_the_first_table_and_only_then(anywhere: Path) -> None:
    checkout = anywhere
    assert make(checkout, "table2").returncode == 0
    venv, pip, uv, table = calls(checkout)
    assert venv == "-m venv .venv"
    assert pip.startswith("-m pip install") and pip.endswith(" uv")
    assert uv == "-m uv pip install --python .venv/bin/python --compile-bytecode -r requirements.lock -e ."
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
    assert "no Python 3.11, 3.12 or 3.13 found: PYTHON=/nowhere/python is not a Python that can be started" in outcome.stderr


def test_a_python_that_is_too_old_is_named_with_its_version(checkout: Path) -> None:
    old = checkout / "old python"
    write_program(old, '#!/bin/sh\ncase "$2" in *platform*) echo 3.9.1 ;; *) exit 1 ;; esac\n')
    outcome = make(checkout, "environment", f"PYTHON={old}")
    assert outcome.returncode == 2
    assert f"found: PYTHON={old} is Python 3.9.1" in outcome.stderr and not (checkout / ".venv").exists()


def test_without_a_package_index_it_says_so_in_one_line(checkout: Path) -> None:
    words = {
        "WORDS": "WARNING: Retrying after connection broken by 'NewConnectionError'\nERROR: No matching distribution found"
    }
    outcome = make(checkout, "environment", fail="pip", environment=words)
    said = [line for line in outcome.stderr.splitlines() if not line.startswith(("building", "it takes", "make:"))]
    assert outcome.returncode == 2 and len(said) == 1 and said[0].startswith("no package index can be reached")
    assert [call.split()[1] for call in calls(checkout)] == ["venv", "pip"], "pip was tried once more, in vain"


def test_another_failure_of_pip_is_shown(checkout: Path) -> None:
    outcome = make(checkout, "environment", fail="pip uv", environment={"WORDS": "ERROR: no space left on device"})
    assert outcome.returncode == 2 and "no space left on device" in outcome.stderr
    assert "no package index" not in outcome.stderr


def test_settings_of_the_user_do_not_reach_the_programs(checkout: Path) -> None:
    theirs = {"PIP_USER": "1", "PIP_TARGET": "/elsewhere", "MPLBACKEND": "Agg", "PYTHONPATH": "/elsewhere", "LC_ALL": "C"}
    theirs |= {"PYTHONIOENCODING": "ascii", "PYTHONSAFEPATH": "1"}
    assert make(checkout, "table2", environment=theirs).returncode == 0
    found = environment_of_last_call(checkout)
    assert found["PIP_USER"] == "0" and found["PYTHONUTF8"] == "1"
    assert not {"PIP_TARGET", "MPLBACKEND", "PYTHONPATH", "PYTHONIOENCODING", "PYTHONSAFEPATH"} & found.keys()


def test_without_a_home_no_cache_is_written_there(checkout: Path) -> None:
    assert make(checkout, "environment", environment={"HOME": "/nowhere/at/all"}).returncode == 0
    assert environment_of_last_call(checkout)["UV_NO_CACHE"] == "1"


@pytest.mark.parametrize("gpu", [False, True], ids=["no GPU", "GPU"])
def test_the_size_is_said_where_cuda_is_of_no_use(checkout: Path, gpu: bool) -> None:
    programs = checkout / "programs"
    write_program(programs / "uname", "#!/bin/sh\necho Linux\n")
    if gpu:
        write_program(programs / "nvidia-smi", "#!/bin/sh\n")
    elif shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU here")
    said = make(checkout, "environment", programs=programs).stderr
    assert ("it takes 6 GB" in said and "TORCH=cpu" in said) != gpu


def test_torch_without_cuda_comes_from_its_own_index(checkout: Path) -> None:
    outcome = make(checkout, "environment", "TORCH=cpu")
    assert outcome.returncode == 0 and "it takes 6 GB" not in outcome.stderr
    uv = calls(checkout)[-1]
    assert uv == "-m uv pip install --python .venv/bin/python --compile-bytecode --torch-backend=cpu -r .venv/cpu.lock -e ."
    whole, lock = ((checkout / path).read_text() for path in ("requirements.lock", ".venv/cpu.lock"))
    assert re.search("^nvidia-", whole, re.M) and not re.search("^(nvidia|cuda|triton)", lock, re.M)
    assert re.search("^torch==", lock, re.M) and re.search("^torchvision==", lock, re.M)
    assert make(checkout, "environment", "TORCH=cpu", "-B", fail="uv").returncode == 2
    outcome = make(checkout, "environment", "TORCH=gpu", "-B")
    assert outcome.returncode == 2 and "TORCH=gpu is unknown" in outcome.stderr


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


def test_a_misspelt_target_brings_the_nearest_names(checkout: Path) -> None:
    outcome = make(checkout, "tabel2", f"PYTHON={sys.executable}")
    assert outcome.returncode == 2 and calls(checkout) == []
    said = outcome.stderr.splitlines()[0]
    assert said.startswith("there is no target tabel2; did you mean table2 or") and said.endswith("make help lists all")


def test_a_misspelt_variable_is_not_ignored(checkout: Path) -> None:
    outcome = make(checkout, "table2", "SEED=5")
    assert outcome.returncode == 2 and "there is no variable SEED; the variables are PRESET" in outcome.stderr
    assert calls(checkout) == []


def test_tables_do_not_share_the_cores_under_make_j(checkout: Path) -> None:
    """The stand-in takes a folder for as long as it runs; where two run at once, one of them finds it taken."""
    make(checkout, "environment")
    calls(checkout)
    program = PYTHON + 'mkdir table || echo "two at once" >> calls\nsleep 0.3\nrmdir table\n'
    write_program(checkout / ".venv" / "bin" / "python", program)
    assert make(checkout, "-j", "2", "table1", "table2").returncode == 0
    assert [call.split()[1] for call in calls(checkout)] == ["table1", "table2"]


def test_jupyterlab_gets_its_options(checkout: Path) -> None:
    write_program(checkout / "programs" / "id", "#!/bin/sh\necho 1000\n")
    assert make(checkout, "lab", "LAB=--no-browser --port=9999", programs=checkout / "programs").returncode == 0
    assert calls(checkout)[-1] == "-m jupyterlab --ServerApp.root_dir=book/notebooks --no-browser --port=9999"


def test_jupyterlab_as_root_needs_an_option_that_is_named(checkout: Path) -> None:
    write_program(checkout / "programs" / "id", "#!/bin/sh\necho 0\n")
    outcome = make(checkout, "lab", programs=checkout / "programs")
    assert outcome.returncode == 2 and "make lab LAB=--allow-root" in outcome.stderr
    assert "jupyterlab" not in calls(checkout)[-1]
    assert make(checkout, "lab", "LAB=--allow-root", programs=checkout / "programs").returncode == 0
    assert calls(checkout) == ["-m jupyterlab --ServerApp.root_dir=book/notebooks --allow-root"]


def test_lint_and_bench_are_run_in_the_environment(checkout: Path) -> None:
    make(checkout, "environment")
    calls(checkout)
    assert make(checkout, "lint").returncode == 0
    assert calls(checkout) == ["-m ruff check .", "-m ruff format --check ."]
    assert make(checkout, "bench", "DEVICE=cpu").returncode == 0
    assert calls(checkout) == ["-m bench --device cpu"]
    assert environment_of_last_call(checkout)["PWD"] == str(checkout / "book")


def test_the_check_for_a_gpu_is_given_python_and_folders(checkout: Path) -> None:
    make(checkout, "environment")
    write_program(checkout / "book" / "gpu_check.sh", 'printf "<%s>" "$@"\n')
    outcome = make(checkout, "gpu-check", "OUT=the results", "DATA=it's")
    assert outcome.stdout == "<.venv/bin/python><the results><it's>"


def test_continuous_integration_lints_before_it_tests(checkout: Path) -> None:
    (checkout / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci")
    write_program(checkout / "programs" / "make", '#!/bin/sh\necho "$*" >> calls\n')
    settings = os.environ | {"PATH": f"{checkout / 'programs'}:{os.environ['PATH']}"}
    subprocess.run(["bash", ".ci/run"], cwd=checkout, env=settings, check=True)
    assert calls(checkout) == ["lint", "test"]


def test_a_new_notebook_is_a_new_target(checkout: Path) -> None:
    (checkout / "book" / "notebooks" / "table3.ipynb").touch()
    make(checkout, "environment")
    calls(checkout)
    make(checkout, "tables")
    assert [call.split()[1] for call in calls(checkout)] == ["table1", "table2", "table3"]


def test_help_names_every_target_of_the_interface(checkout: Path) -> None:
    text = make(checkout).stdout
    for target in (
        "table1, table2",
        "tables",
        "book",
        "lab",
        "test",
        "lint",
        "bench",
        "gpu-check",
        "reference",
        "clean",
        "lock",
    ):
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
    settings = "table2 --preset tiny --seeds 8"
    kept, executed = f"-m sarlib {settings} --keep-as-reference", f"book/execute.py {settings}"
    assert calls(checkout) == [kept, executed], "executed after it was kept: its last cell is set beside the reference"
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
