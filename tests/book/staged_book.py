"""Results as `make` leaves them, for the tests of the built book."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
#: Reference results that come with the code: pages with tables, figures, verdicts and records of runs.
WHOLE = ("table9", "appendix")

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def executed(source: Path) -> nbformat.NotebookNode:
    """The source as papermill would leave it, with outputs of each kind that our notebooks have."""
    notebook = nbformat.read(source, 4)
    injected = nbformat.v4.new_code_cell("# Parameters\npreset = 'laptop'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    outputs = (
        nbformat.v4.new_output(
            "execute_result", {"text/html": "<table class='dataframe'><tr><td>1</td></tr></table>", "text/plain": "1"}
        ),
        nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "a figure"}),
        nbformat.v4.new_output("stream", name="stdout", text="text"),
    )
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count, cell.outputs = count, list(outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.metadata["papermill"] = {"start_time": "2026-01-31T12:00:00+00:00"}
    return notebook


def write_results(folder: Path, store: Path, notebook: nbformat.NotebookNode) -> None:
    """Notebook, tidy results and one record of a run, as `make table2` leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "table2.ipynb")
    pd.DataFrame({"seed": [0, 1], "key": "00ff"}).to_csv(folder / "table2.csv", index=False)
    (store / "00ff").mkdir(parents=True, exist_ok=True)
    provenance = {"device": "CPU of a test", "versions": {"torch": "2.99"}, "commit": "0123456789abcdef", "dirty": False}
    (store / "00ff" / "result.json").write_text(json.dumps({"metrics": {"seconds": 61.0}, "provenance": provenance}))


def fail(folder: Path) -> None:
    """Leave what a notebook leaves that raised."""
    folder.mkdir(parents=True, exist_ok=True)
    error = nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])
    cell = nbformat.v4.new_code_cell("1 / 0", outputs=[error])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "table2.failed.ipynb")


def copy_reference(runs: Path, names: tuple[str, ...] = WHOLE) -> None:
    """Committed results of these tables, with the records of their runs and the kept attention."""
    reference = ROOT / "runs" / "reference"
    (runs / "reference" / "laptop").mkdir(parents=True, exist_ok=True)
    for name in names:
        for suffix in (".csv", ".ipynb"):
            shutil.copy(reference / "laptop" / f"{name}{suffix}", runs / "reference" / "laptop")
        for key in pd.read_csv(reference / "laptop" / f"{name}.csv", dtype=str)["key"].unique():
            shutil.copytree(reference / "store" / key, runs / "reference" / "store" / key, dirs_exist_ok=True)
    shutil.copy(reference / "attention.json", runs / "reference")
