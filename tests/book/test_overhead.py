"""The claim about training time, from benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sarlib.report.judgement import CONTRADICTED, SUPPORTED, UNDECIDED

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "runs" / "reference" / "bench"
sys.path.insert(0, str(ROOT / "book"))
from overhead import overhead  # noqa: E402  (a script of the book, not a package)


def write(folder: Path, *ratios: tuple[float, float, float]) -> None:
    measured = [
        {
            "name": "training step with each regulariser",
            "ratios": [
                {"side": "SAR", "over": "none"} | dict(zip(("value", "low", "high"), ratio, strict=True)),
                {"side": "SAR", "over": "SAR's block", "value": 9.0, "low": 9.0, "high": 9.0},
            ],
        }
        for ratio in ratios
    ]
    other = {"name": "training step", "ratios": [{"side": "SAR", "over": "none", "value": 9.0, "low": 9.0, "high": 9.0}]}
    (folder / "cpu.json").write_text(json.dumps({"device": "CPU of a test", "measurements": [other, *measured]}))


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([(1.03, 1.02, 1.035), (1.02, 1.01, 1.03)], SUPPORTED),
        ([(1.03, 0.98, 1.08)], UNDECIDED),
        ([(1.08, 1.07, 1.09), (1.05, 1.04, 1.06)], CONTRADICTED),
    ],
)
def test_the_mean_overhead_is_judged_by_its_interval(
    ratios: list[tuple[float, float, float]], verdict: str, tmp_path: Path
) -> None:
    write(tmp_path, *ratios)
    line = overhead(tmp_path).loc["overhead"]
    assert (line["verdict"], line["n"], line["judged on"]) == (verdict, len(ratios), "CPU of a test")


def test_the_interval_is_of_a_mean_of_independent_measurements(tmp_path: Path) -> None:
    write(tmp_path, (1.06, 1.03, 1.09), (1.02, 0.98, 1.06))
    line = overhead(tmp_path).loc["overhead"]
    assert (line["ours"], line["interval"]) == ("+4.0 %", "[+1.5, +6.5]")  # half of the root of 3^2 + 4^2


def test_the_committed_benchmark_is_judged() -> None:
    shown = overhead(REFERENCE)
    assert len(shown) >= 1 and set(shown["n"]) == {4}
    assert overhead(REFERENCE / "nowhere").empty
