"""Runs a notebook: `python book/execute.py table2 --preset tiny` writes runs/tiny/table2.ipynb and prints the table.

Takes the arguments of `python -m sarlib`. The notebook is executed in a scratch folder and kept only when every code cell was
executed, so that a run that was stopped or failed is never mistaken for a result. Progress reaches the terminal while it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from sarlib.durable import write_durably

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "book" / "notebooks"


class Stopped(RuntimeError):
    """The kernel went away before the last cell: a signal, no memory left."""


def execute(source: Path, target: Path, parameters: dict[str, object]) -> None:
    """Run the notebook `source` with `parameters` and put the result at `target` in one step.

    Raises `Stopped` when cells were left out and `PapermillExecutionError` when one raised; the notebook up to there is then at
    `failed(target)`, unless what it raised is a `ConfigError`: input that was refused is no failure of the notebook.
    """
    with tempfile.TemporaryDirectory(prefix="sarlib-") as scratch, _own_environment(Path(scratch)):
        unfinished = Path(scratch) / source.name
        try:
            papermill.execute_notebook(
                source,
                unfinished,
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                stderr_file=sys.stderr,
                cwd=ROOT,
                extra_arguments=["--log-level=ERROR"],
            )
        except PapermillExecutionError as error:
            if error.ename != "ConfigError":
                _publish(nbformat.read(unfinished, 4), failed(target))
            raise
        except RuntimeError as error:  # what nbclient raises for a dead kernel
            raise Stopped(str(error)) from error
        notebook = nbformat.read(unfinished, 4)
    # papermill calls a notebook completed whose kernel was interrupted; a cell without a count was not executed.
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if missing := sum(cell.execution_count is None for cell in cells):
        raise Stopped(f"{missing} of {len(cells)} cells were not executed")
    _publish(notebook, target)
    failed(target).unlink(missing_ok=True)


def failed(target: Path) -> Path:
    """Where a notebook that raised is kept: beside the place where its result would be."""
    return target.with_suffix(".failed.ipynb")


@contextlib.contextmanager
def _own_environment(scratch: Path) -> Iterator[None]:
    """The kernel's: `python3` is this interpreter, figures go into the notebook, no startup file of the user runs in it.

    A home folder that cannot be written to, or none at all, is replaced by `scratch`.
    """
    before = dict(os.environ)
    os.environ |= {
        "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    if not os.access(os.path.expanduser("~"), os.W_OK):
        os.environ["HOME"] = str(scratch)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def digest(results: Path) -> str | None:
    """Of the CSV file that a notebook has written, None where there is none: shows whether it was written anew since."""
    return hashlib.sha256(results.read_bytes()).hexdigest()[:16] if results.exists() else None


def _publish(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Write the notebook without this machine's paths and without the progress bars, which the terminal has shown.

    It carries the digest of the results that it shows.
    """
    for name in ("input_path", "output_path"):
        notebook.metadata.papermill.pop(name, None)
    if shown := digest(target.with_suffix(".csv")):
        notebook.metadata["results"] = shown
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    write_durably(target, nbformat.writes(notebook).encode())


def stop_cleanly() -> None:
    """Treat a request to terminate as Ctrl-C: the kernel is shut down and the scratch folder removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0, 2 for bad input, 1 for a notebook that failed, 130 when stopped; each with one line."""
    from sarlib import __main__ as command_line
    from sarlib.experiments import runs_folder

    stop_cleanly()
    if code := command_line.main([*arguments, "--check"]):
        return code
    name, parameters = command_line.parameters(arguments)
    target = runs_folder() / parameters["preset"] / f"{name}.ipynb"
    try:
        execute(NOTEBOOKS / f"{name}.ipynb", target, parameters)
    except PapermillExecutionError as error:
        if error.ename == "ConfigError":
            print(f"sarlib: {error.evalue}", file=sys.stderr)
            return 2
        message = (error.evalue or "no message").splitlines()[0]
        print(f"sarlib: {name} failed with {error.ename}: {message} (see {os.path.relpath(failed(target))})", file=sys.stderr)
        return 1
    except (Stopped, KeyboardInterrupt) as stop:
        why = f" ({stop})" if str(stop) else ""
        print(f"sarlib: {name} was stopped{why}; finished runs are kept and the others resume", file=sys.stderr)
        return 130
    command_line.main([*arguments, "--show"])
    print(f"wrote {os.path.relpath(target)} and {target.with_suffix('.csv').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
