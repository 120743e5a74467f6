"""The claim about training time, from benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import speed

from sarlib.report.judgement import CONTRADICTED, SUPPORTED, UNDECIDED

REFERENCE = Path(__file__).resolve().parents[2] / "runs" / "reference" / "bench"


def outcome(*ratios: tuple[float, float, float]) -> dict[str, Any]:
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
    return {"measurements": [other, *measured]}


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([(1.03, 1.02, 1.035), (1.02, 1.01, 1.03)], SUPPORTED),
        ([(1.03, 0.98, 1.08)], UNDECIDED),
        ([(1.08, 1.07, 1.09), (1.05, 1.04, 1.06)], CONTRADICTED),
    ],
)
def test_the_mean_overhead_is_judged_by_its_interval(ratios: list[tuple[float, float, float]], verdict: str) -> None:
    mean, judged = speed.mean_overhead(outcome(*ratios))
    assert (judged, mean.n) == (verdict, len(ratios))


def test_the_interval_is_of_a_mean_of_independent_measurements() -> None:
    mean, _ = speed.mean_overhead(outcome((1.06, 1.03, 1.09), (1.02, 0.98, 1.06)))
    assert (mean.mean, mean.low, mean.high) == pytest.approx((4.0, 1.5, 6.5))  # half of the root of 3^2 + 4^2


def test_the_committed_benchmark_is_judged_and_shown() -> None:
    committed = [json.loads(path.read_text(encoding="utf-8")) for path in REFERENCE.glob("*.json")]
    assert committed and all(speed.mean_overhead(each)[0].n == 4 for each in committed)
    assert all(f"**{speed.mean_overhead(each)[1]}**" in speed.overheads(each) for each in committed)
    assert speed.mean_overhead(outcome()) is None
