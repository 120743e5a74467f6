"""The command line: one line and exit code 2 for bad input, no Jupyter needed, killed and started again without loss."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from PIL import Image

from sarlib import experiments, report
from sarlib.__main__ import main, parameters
from sarlib.experiments import TABLES

TINY = ["table2", "--preset", "tiny", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table77"], "unknown table 'table77'"),
        (["tabel2"], "(did you mean table2 or table"),
        ([*TINY, "--preset", "papr"], "(did you mean paper?)"),
        ([*TINY, "--preset", "huge"], "unknown preset 'huge'"),
        ([*TINY, "--seeds", "-1"], "1 or more; got -1"),
        ([*TINY, "--seeds", "three"], "invalid int value: 'three'"),
        ([*TINY, "--device", "tpu"], "unknown device 'tpu'"),
        ([*TINY, "--gpus", "0"], "gpus must be 1 or more"),
        ([*TINY, "--gpus", "2", "--workers", "2"], "leave WORKERS out"),
        ([*TINY, "--cluster", "no.yml"], "cannot read the cluster file no.yml"),
        ([*TINY, "--workers", "0"], "workers must be 1 or more"),
        ([*TINY, "--data", "no/such/folder"], "there is no such folder"),
        ([*TINY, "--datasets", "mnist"], "has no data set mnist"),
        ([*TINY, "--colour", "red"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, runs_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = exit.code
    told = capsys.readouterr()
    assert code == 2 and told.out == ""
    assert message in told.err and told.err.count("\n") == 1
    assert not list(runs_folder.rglob("*.json")), "nothing was trained"


def test_an_unwritable_runs_folder_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAR_RUNS", str(tmp_path / "file" / "runs"))
    assert main([*TINY, "--check"]) == 2
    assert "cannot write to the runs folder" in capsys.readouterr().err


def test_check_trains_nothing(runs_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*TINY, "--check"]) == 0
    assert capsys.readouterr().out == "" and not list(runs_folder.rglob("*.csv"))


def test_check_says_what_lies_below_data(
    runs_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, name in itertools.product(("train", "test"), ("ant", "bee")):
        (tmp_path / "mine" / split / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "mine" / split / name / "0.png")
    (tmp_path / "mine" / "train" / "bee" / "notes.txt").touch()
    assert main([*TINY, "--check", "--data", str(tmp_path)]) == 0
    said = "mine: 2 classes, 2 training and 2 test images, files ignored: 1 .txt\n"
    assert capsys.readouterr().out == said
    monkeypatch.setattr(experiments, "run", lambda experiment, **_: print("trained", file=sys.stderr))
    monkeypatch.setattr(report, "text", lambda *_, **__: "the table")
    assert main([*TINY, "--data", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.err == f"{said}trained\n" and told.out == "the table\n", "before a training too, and beside its results"


SLOW = ("torch", "torchvision", "timm", "sklearn", "seaborn", "matplotlib")


def quick(command: str, without: tuple[str, ...] = SLOW) -> str:
    """What the command line prints in a process that cannot import what takes long."""
    blocked = f"import sys; sys.modules |= dict.fromkeys({without})\nfrom sarlib.__main__ import main\n"
    done = subprocess.run([sys.executable, "-c", blocked + command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_terminal_without_the_signs_of_a_table_shows_the_others(
    runs_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*TINY, "--seeds", "2", "--datasets", "digits, 48 images"]
    assert main([*arguments, "--workers", "1"]) == 0
    told = capsys.readouterr().out
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = subprocess.run([sys.executable, "-m", "sarlib", *arguments, "--show"], capture_output=True)
    assert done.returncode == 0, done.stderr
    experiment = experiments.declare("table2", preset="tiny", seeds=2, datasets="digits, 48 images")
    results = report.read_csv(experiments.csv_path(experiment))
    assert done.stdout.decode("ascii").rstrip() == report.text(results, experiment, encoding="ascii").rstrip()
    assert "±" in told and b"+/-" in done.stdout


def test_help_is_quick() -> None:
    told = quick("main(['--help'])", without=(*SLOW, "pandas", "scipy"))
    assert all(table in told for table in TABLES) and "--keep-as-reference" in told


def test_checks_are_quick(runs_folder: Path) -> None:
    arguments = [[table, "--preset", preset, "--check"] for table in TABLES for preset in ("tiny", "laptop", "gpu")]
    assert quick(f"sys.exit(max(map(main, {arguments})))", without=(*SLOW, "pandas", "scipy")) == ""


@pytest.mark.parametrize("table", ["table2", "appendix"])
def test_a_table_that_the_store_answers_is_quick(table: str, runs_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Neither torch nor timm, for trainings and for what is measured of them; the same lines as before."""
    few = ["--datasets", "digits, 48 images"] if table == "table2" else []
    arguments = [table, "--preset", "tiny", "--seeds", "1", *few]
    assert main([*arguments, "--workers", "1", "--device", "cpu"]) == 0
    csv = runs_folder / "tiny" / f"{table}.csv"
    told, written = capsys.readouterr().out, csv.read_bytes()
    csv.unlink()
    assert quick(f"sys.exit(main({arguments}))") == told and csv.read_bytes() == written
    assert quick(f"sys.exit(main({[*arguments, '--show']}))") == told


def test_the_parameters_of_a_notebook_are_the_options_of_the_command_line() -> None:
    name, found = parameters(["table2", "--preset", "tiny", "--seeds", "2", "--data", "d", "--gpus", "4", "--check"])
    given = {"preset": "tiny", "data": "d", "datasets": None, "seeds": 2}
    assert (name, found) == ("table2", given | {"workers": None, "device": "auto", "gpus": 4, "cluster": None})
    notebooks = (Path(__file__).parents[1] / "book" / "notebooks").glob("*.ipynb")
    for notebook in notebooks:
        cells = json.loads(notebook.read_text())["cells"]
        (cell,) = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
        assert [line.split(" = ")[0] for line in cell["source"]] == list(found)


def test_a_table_needs_no_jupyter_package(runs_folder: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from importlib.machinery import PathFinder
        blocked = ("jupyter", "papermill", "IPython", "ipykernel", "nbformat", "nbclient", "seaborn", "matplotlib")
        class WithoutThem(PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                return None if name.startswith(blocked) else PathFinder.find_spec(name, path, target)
        sys.meta_path[:] = [WithoutThem if finder is PathFinder else finder for finder in sys.meta_path]
        from sarlib.__main__ import main
        sys.exit(main(sys.argv[1:]))
        """
    )
    arguments = [*TINY, "--seeds", "1", "--workers", "1", "--datasets", "shapes-object, 48 images"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ViT + SAR" in done.stdout and (runs_folder / "tiny" / "table2.csv").exists()


def finished(runs_folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in (runs_folder / "store").glob("*/result.json")}


@pytest.mark.skipif(os.name != "posix", reason="process groups and SIGKILL are POSIX")
def test_a_killed_table_loses_no_finished_run(runs_folder: Path) -> None:
    command = [sys.executable, "-m", "sarlib", *TINY, "--seeds", "2", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(finished(runs_folder)) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished(runs_folder)
    assert len(before) >= 3
    subprocess.run(command, check=True, capture_output=True)
    after = finished(runs_folder)
    assert len(after) == 20 and before.items() <= after.items()
    assert not list((runs_folder / "store").glob("*.corrupt*")) and not list((runs_folder / "store").rglob("*.tmp"))


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_ctrl_c_ends_at_once_and_says_what_is_kept(runs_folder: Path) -> None:
    """SIGINT to the whole process group, as a terminal sends it, in the middle of long trainings: there is a checkpoint."""
    command = [sys.executable, "-m", "sarlib", "table2", "--preset", "laptop", "--device", "cpu", "--workers", "2"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a script would inherit "ignored"
    )
    try:
        while not list((runs_folder / "store").glob("*/checkpoint.pt")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert told.strip().splitlines()[-1] == "sarlib: interrupted; finished runs are kept and the others resume"
    assert "Traceback" not in told
    assert list((runs_folder / "store").glob("*/checkpoint.pt"))
