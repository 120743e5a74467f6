"""The package: what is imported when, and results on disk."""

from __future__ import annotations

import ast
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from constructed import TABLE2, results_of

from sarlib import report
from sarlib.config import ConfigError
from sarlib.experiments.results import COLUMNS


def test_csv_round_trip_is_bit_exact(tmp_path: Path) -> None:
    values = [
        0.1 + 0.2,
        1 / 3,
        1e-310,
        5e-324,
        -0.0,
        math.nan,
        math.inf,
        np.nextafter(1, 2),
        float(np.float32(0.7)),
        12345678.9,
    ]
    rows = ["0", "0.10", "nan", "NA", "1e3", "A", "ViT + SAR", "ViT, 80 epochs", 'quoted "x"', "λ"]
    lines = [
        ("table1a", row, "shapes", seed, "top1", value, "%", "0012e456")
        for seed, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    results = pd.DataFrame(lines, columns=list(COLUMNS))
    path = tmp_path / "laptop" / "table1.csv"
    report.write_csv(results, path)
    again = report.read_csv(path)
    assert again["value"].to_numpy().tobytes() == results["value"].to_numpy().tobytes()
    assert again.drop(columns="value").equals(results.drop(columns="value").astype({"seed": "int64"}))
    assert [file.name for file in path.parent.iterdir()] == ["table1.csv"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there are no results at"),
        ("", "cannot read results"),
        ("table,row\ntable2,A\n", "lacks the columns dataset, seed, metric, value, unit, key"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0,top1,many,%,k\n", "cannot read results"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0\n", "cannot read results"),
        (",".join(COLUMNS) + "\ntable2,A,shapes,0,top1,1.0,%,k,more,and more\n" * 2, "cannot read results"),
        (",".join(COLUMNS) + "\n" + "table2,A,shapes,0,top1,1.0,%,k\n" * 2, "a measurement twice \\(table2 A shapes 0 top1\\)"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_in_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table2.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        report.read_csv(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write .*table2.csv"):
        report.write_csv(results_of(TABLE2), tmp_path / "file" / "table2.csv")


#: Nothing of a notebook, no plotting library, no torch.
HEAVY = ("IPython", "ipykernel", "matplotlib", "scipy", "seaborn", "timm", "torch", "torchvision")


def imported(code: str) -> list[str]:
    """Which of `HEAVY` a new process has imported after `code`."""
    code = f"{code}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return ast.literal_eval(run.stdout)


def test_a_report_needs_no_plotting_library_and_nothing_of_jupyter() -> None:
    assert imported("import sarlib.report, sys; assert 'sarlib.experiments' not in sys.modules") == []


def test_tables_and_verdicts_need_neither_torch_nor_a_plotting_library() -> None:
    """The modules by themselves: `sarlib.experiments` stands for a package that imports nothing when it is imported."""
    alone = (
        "import sys, types, sarlib; package = types.ModuleType('sarlib.experiments'); "
        "package.__path__ = [sarlib.__path__[0] + '/experiments']; sys.modules['sarlib.experiments'] = package"
    )
    assert imported(f"{alone}; import sarlib.report.judgement, sarlib.report.tables") == []
    interval = "from sarlib.report.statistics import mean_interval; mean_interval([1.0, 2.0])"
    assert imported(f"{alone}; {interval}") == ["scipy"]


def test_no_module_hides_a_function_and_each_is_imported_when_it_is_used() -> None:
    assert {"table", "differences", "contrasts", "verdicts", "figure", "curves", "epochs_to_reach", "agreement"} <= set(
        dir(report)
    )
    assert {"agreement", "text", "maps", "read_csv", "write_csv"} <= set(dir(report))
    for name in report.__all__:
        assert importlib.util.find_spec(f"sarlib.report.{name}") is None, "it would hide the function"
        assert callable(getattr(report, name)) and getattr(report, name).__name__ == name
    with pytest.raises(AttributeError, match="'sarlib.report' has no attribute 'chart'"):
        report.chart  # noqa: B018
