"""The source notebooks are thin, clean and take the parameters they are given; executing one keeps a result or says why not."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from sarlib import __main__ as command_line

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import execute  # noqa: E402  (a script of the book, not a package)

SOURCES = sorted(execute.NOTEBOOKS.glob("*.ipynb"))
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)

PARAMETERS = {"preset": "tiny", "data": None, "datasets": None, "seeds": None, "workers": None, "device": "auto"}


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each_source
def test_source_is_valid_and_holds_no_output(source: Path) -> None:
    notebook = nbformat.read(source, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None


@each_source
def test_source_is_thin(source: Path) -> None:
    notebook = nbformat.read(source, 4)
    assert len(notebook.cells) <= 10
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert len(code) < 4000
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.comprehension)
    assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, forbidden)]


@each_source
def test_source_takes_exactly_the_parameters_it_is_given(source: Path) -> None:
    known = papermill.inspect_notebook(source)
    assert list(known) == list(command_line.parameters([source.stem])[1])
    assert known["preset"]["default"] == '"tiny"', "the size at which the cells run one by one in JupyterLab"


def test_arguments_become_parameters() -> None:
    arguments = [
        "table2",
        "--preset",
        "gpu",
        "--data",
        "d",
        "--seeds",
        "3",
        "--workers",
        "2",
        "--device",
        "cpu",
        "--gpus",
        "1",
        "--cluster",
        "c.yml",
    ]
    expected = {
        "preset": "gpu",
        "data": "d",
        "datasets": "a, b;c",
        "seeds": 3,
        "workers": 2,
        "device": "cpu",
        "gpus": 1,
        "cluster": "c.yml",
    }
    assert command_line.parameters([*arguments, "--datasets", "a, b;c"]) == ("table2", expected)


def write_notebook(path: Path, *codes: str) -> Path:
    parameters = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
    cells = [nbformat.v4.new_code_cell(code) for code in (parameters, *codes)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_executed_notebook_is_whole_and_names_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """It runs in this environment's kernel even where others are called python3, and no startup file of the user runs in it."""
    for variable, folder in (("JUPYTER_DATA_DIR", tmp_path / "data"), ("JUPYTER_PATH", tmp_path / "path")):
        kernel = folder / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(
            json.dumps({"argv": ["/nowhere/python", "{connection_file}"], "display_name": "", "language": "python"})
        )
        monkeypatch.setenv(variable, str(folder))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "0.py").write_text("seeds = 'of the user'")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    code = "import sys; print('to the terminal', file=sys.stderr); print(sys.prefix, preset, seeds)"
    source = write_notebook(tmp_path / "source.ipynb", code)
    target = tmp_path / "runs" / "tiny" / "source.ipynb"
    execute.execute(source, target, PARAMETERS | {"preset": "laptop"})

    executed = nbformat.read(target, 4)
    [output] = executed.cells[-1].outputs
    assert output.text == f"{sys.prefix} laptop None\n"
    assert "to the terminal" in capfd.readouterr().err
    assert str(tmp_path) not in json.dumps(executed.metadata)
    assert [path.name for path in target.parent.iterdir()] == ["source.ipynb"]


#: Without an entry for the user in the system's list of accounts, as in a container that was started with an unknown user id.
NO_ACCOUNT = "import pwd\ndef getpwuid(uid):\n    raise KeyError(uid)\npwd.getpwuid = getpwuid\n"


@pytest.mark.parametrize("hostile", ["MPLBACKEND", "no home", "home that cannot be written to", "LC_ALL", "odd folder"])
def test_figures_are_in_the_executed_notebook_whatever_the_environment(tmp_path: Path, hostile: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))}
    folder = tmp_path / ("häßlich, mit Leerzeichen" if hostile == "odd folder" else "folder")
    folder.mkdir()
    if hostile == "no home":
        (tmp_path / "sitecustomize.py").write_text(NO_ACCOUNT)
        del environment["HOME"]
    environment |= {
        "MPLBACKEND": {"MPLBACKEND": "Agg"},
        "home that cannot be written to": {"HOME": "/proc/self"},  # which not even root can
        "LC_ALL": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    }.get(hostile, {})
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('±')\nprint('±')"
    source, target = write_notebook(folder / "source.ipynb", code), folder / "runs" / "target.ipynb"
    call = f"execute.execute(pathlib.Path({str(source)!r}), pathlib.Path({str(target)!r}), {PARAMETERS!r})"
    (folder / "script.py").write_text(f"import execute, pathlib\n{call}\n", encoding="utf-8")
    done = subprocess.run([sys.executable, folder / "script.py"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = nbformat.read(target, 4).cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output.text for output in outputs if output.get("name") == "stdout"] == ["±\n"]


def test_executed_notebook_knows_the_results_that_it_shows(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "tiny" / "source.ipynb"
    write = f"import pathlib; pathlib.Path({str(target.with_suffix('.csv'))!r}).write_text('seed,key\\n')"
    target.parent.mkdir(parents=True)
    execute.execute(write_notebook(tmp_path / "source.ipynb", write), target, PARAMETERS)
    assert nbformat.read(target, 4).metadata["results"] == execute.digest(target.with_suffix(".csv"))
    assert execute.digest(target.with_suffix(".none")) is None


def test_a_sign_that_the_terminal_lacks_does_not_lose_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is printed when all is done: a sign that cannot be encoded is then replaced."""
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(execute, "stop_cleanly", lambda: None)
    monkeypatch.setattr(execute, "execute", lambda *_: None)
    check = command_line.main
    monkeypatch.setattr(command_line, "main", lambda arguments: print("±") if "--show" in arguments else check(arguments))
    monkeypatch.setenv("SAR_RUNS", str(tmp_path))
    assert execute.main(["table2", "--preset", "tiny"]) == 0
    terminal.flush()
    assert written.getvalue().startswith(b"?\nwrote ")


def test_notebook_that_raises_is_kept_apart_and_does_not_replace_a_result(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "tiny" / "source.ipynb"
    target.parent.mkdir(parents=True)
    target.write_text("an earlier result")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError"):
        execute.execute(write_notebook(tmp_path / "source.ipynb", "1 / 0"), target, PARAMETERS)
    assert target.read_text() == "an earlier result"
    assert "ZeroDivisionError" in execute.failed(target).read_text()
    execute.execute(write_notebook(tmp_path / "source.ipynb", "1 / 1"), target, PARAMETERS)
    assert [path.name for path in target.parent.iterdir()] == ["source.ipynb"]


def test_input_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    code = "from sarlib.config import ConfigError\nraise ConfigError('no such folder')"
    target = tmp_path / "runs" / "tiny" / "source.ipynb"
    with pytest.raises(PapermillExecutionError, match="no such folder"):
        execute.execute(write_notebook(tmp_path / "source.ipynb", code), target, PARAMETERS)
    assert not target.parent.exists()


def test_kernel_that_dies_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "tiny" / "source.ipynb"
    with pytest.raises(execute.Stopped):
        execute.execute(write_notebook(tmp_path / "source.ipynb", "import os; os._exit(1)"), target, PARAMETERS)
    assert not target.parent.exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_stopped_notebook_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    started, target = tmp_path / "started", tmp_path / "runs" / "tiny" / "source.ipynb"
    code = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(3600)"
    source = write_notebook(tmp_path / "source.ipynb", code)
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'book')!r})\n"
        "import execute, pathlib\n"
        "execute.stop_cleanly()\n"
        f"execute.execute(pathlib.Path({str(source)!r}), pathlib.Path({str(target)!r}), {PARAMETERS!r})\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (started.exists() and started.read_text()):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.1)
    process.send_signal(stop)
    process.communicate(timeout=600)
    assert process.returncode != 0
    assert not target.parent.exists() and list(scratch.glob("sarlib-*")) == []
    with pytest.raises(ProcessLookupError):
        for _ in range(6000):  # the kernel goes with its parent
            os.kill(int(started.read_text()), 0)
            time.sleep(0.1)


@pytest.mark.parametrize("page", sorted((ROOT / "runs" / "reference").glob("*/*.ipynb")), ids=lambda page: page.stem)
def test_a_page_of_reference_results_was_executed_when_they_were_there(page: Path) -> None:
    """Beside the reference results, all of its cells are the same numbers."""
    printed = "".join(
        output["data"].get("text/html", "")
        for cell in nbformat.read(page, 4).cells
        if cell.cell_type == "code" and "report.agreement(" in cell.source
        for output in cell.outputs
    )
    assert "bit-equal" in printed
    for other in ("no reference", "no result", "agrees", "differs", "too few seeds"):
        assert f">{other}<" not in printed, f"{page.name}: {other}"
