"""Whether results agree with reference results, cell by cell."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from constructed import SETS, TABLE2, results_of

from sarlib import report


def test_agreement_bit_by_bit_then_by_intervals(tmp_path: Path) -> None:
    results, path = results_of(TABLE2), tmp_path / "table2.csv"

    def judged(theirs: pd.DataFrame) -> list[str]:
        report.write_csv(theirs, path)
        return list(report.agreement(results, TABLE2, path)["agreement"])

    def changed(by: np.ndarray | float, *, metric: str = "top1") -> pd.DataFrame:
        return results.assign(value=results["value"] + np.where(results["metric"] == metric, by, 0.0))

    noise = np.random.default_rng(1).normal(0, 1e-3, len(results))
    assert judged(results) == ["bit-equal"] * 4
    assert judged(changed(1.0, metric="seconds")) == ["bit-equal"] * 4  # another machine
    assert judged(changed(1e-12, metric="entropy")) == ["agrees"] * 4
    assert judged(changed(noise)) == ["agrees"] * 4
    assert judged(changed(noise + 1.0)) == ["differs"] * 4  # far less than the seeds differ among themselves: paired
    assert judged(results.assign(seed=results["seed"] + 10)) == ["agrees"] * 4  # no shared seed: Welch
    assert judged(changed(80.0).assign(seed=results["seed"] + 10)) == ["differs"] * 4
    assert judged(changed(1.0)[results["seed"] == 0]) == ["too few seeds"] * 4
    assert judged(results[results["dataset"] == SETS[0]]) == ["bit-equal"] * 2 + ["no reference"] * 2
    assert judged(results.assign(key="another")) == ["earlier declaration"] * 4
    notes = report.agreement(results, TABLE2, path)["note"]
    assert set(notes) == {"of an earlier declaration: another configuration; commit unknown"}
    assert report.agreement(results, TABLE2, str(path)).equals(report.agreement(results, TABLE2, path))
    assert list(report.agreement(results, TABLE2, tmp_path / "absent.csv")["agreement"]) == ["no reference"] * 4
    assert list(report.agreement(results.iloc[:0], TABLE2, path)["agreement"]) == ["no result"] * 4


def test_a_run_that_failed_on_both_sides_is_no_difference(tmp_path: Path) -> None:
    results = results_of(TABLE2)
    results.loc[results["seed"] == 1, "value"] = math.nan
    report.write_csv(results, tmp_path / "table2.csv")
    assert list(report.agreement(results, TABLE2, tmp_path / "table2.csv")["agreement"]) == ["bit-equal"] * 4
