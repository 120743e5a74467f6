"""The check for a borrowed GPU, rehearsed on the CPU: every part passes once, one that fails or is late spoils no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

#: Stands in for Python: notes what is run, fails at what FAIL names, waits for a signal at what WAIT names.
PYTHON = """#!/bin/sh
case "$1" in -c) echo "${DEVICE_NAME:-a GPU}"; exit ;; esac
case "$*" in *--check) exit 0 ;; esac
echo "$2 $3" >> "$CALLS"
(shift 2 && echo "$*") >> "${CALLS%calls}arguments"
echo "the words of $2"
case " ${FAIL:-} " in *" $2 "*) exit 1 ;; esac
case " ${WAIT:-} " in *" $2 "*) touch "$CALLS.waiting"; sleep 600 ;; esac
"""


def command(python: Path | str, out: Path | str, *data: str) -> list[str]:
    return ["bash", str(ROOT / "book" / "gpu_check.sh"), str(python), str(out), *data]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "python"
    path.write_text(PYTHON)
    path.chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return path


def check(python: Path | str, out: Path | str, *data: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | environment
    return subprocess.run(command(python, out, *data), env=settings, capture_output=True, text=True, timeout=900, check=False)


def calls(stand_in: Path) -> list[str]:
    """The modules that were run since the last look, tables by name."""
    log = stand_in.with_name("calls")
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.split()[1] if line.startswith("sarlib") else line.split()[0] for line in lines]


ALL = ["pytest", "bench", *(["table2", "table4"] * 3)]


def test_every_part_passes_once_in_a_rehearsal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = check(sys.executable, out, SAR_REHEARSE="1", LIMIT="900")
    assert done.returncode == 0, done.stdout + done.stderr
    log = (out / "log.txt").read_text()
    assert " passed" in log and "0 failed" not in log and "loss forward and backward" in log
    [report] = (out / "runs" / "bench").glob("*-trial.json")
    assert json.loads(report.read_text())["trial"]
    assert pd.read_csv(out / "runs" / "tiny" / "table4.csv")["seed"].unique().tolist() == [0]
    assert len((out / "passed.txt").read_text().splitlines()) == 3
    results = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    again = check(sys.executable, out, SAR_REHEARSE="1")
    assert again.returncode == 0 and " passed" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == results


def test_all_parts_are_run_in_order_with_the_data(stand_in: Path, tmp_path: Path) -> None:
    """Tables with more and more seeds, so that whole seeds of every table come as early as can be."""
    assert check(os.path.relpath(stand_in), tmp_path / "out", "images").returncode == 0
    assert (tmp_path / "arguments").read_text().splitlines()[2] == "table2 --preset gpu --device cuda --data images --seeds 1"
    assert calls(stand_in) == ALL
    assert check(stand_in, tmp_path / "out", "images").returncode == 0
    assert calls(stand_in) == []


def test_a_part_that_fails_is_named_and_tried_again_alone(stand_in: Path, tmp_path: Path) -> None:
    done = check(stand_in, tmp_path / "out", FAIL="bench")
    assert done.returncode == 1 and "failed: benchmark" in done.stdout
    assert calls(stand_in) == ALL
    assert check(stand_in, tmp_path / "out").returncode == 0
    assert calls(stand_in) == ["bench"]
    assert (tmp_path / "out" / "log.txt").read_text().count("the words of bench") == 2


def test_what_passed_counts_for_its_device(stand_in: Path, tmp_path: Path) -> None:
    check(stand_in, tmp_path / "out")
    calls(stand_in)
    check(stand_in, tmp_path / "out", DEVICE_NAME="another GPU")
    assert calls(stand_in) == ALL


def test_the_time_limit_stops_a_part_and_leaves_the_rest_for_the_next_call(stand_in: Path, tmp_path: Path) -> None:
    """The part that is stopped would take ten minutes; the one before it has most of the limit to start in."""
    done = check(stand_in, tmp_path / "out", WAIT="bench", LIMIT="20")
    assert done.returncode == 0
    assert "benchmark: stopped, the time is up" in done.stdout and "table2, seeds: 1: left for the next call" in done.stdout
    assert calls(stand_in) == ["pytest", "bench"]
    check(stand_in, tmp_path / "out")
    assert calls(stand_in) == ALL[1:]


def test_an_interruption_ends_the_part_too(stand_in: Path, tmp_path: Path) -> None:
    environment = os.environ | {"WAIT": "bench"}
    waiting = tmp_path / "calls.waiting"
    with subprocess.Popen(command(stand_in, tmp_path / "out"), env=environment, stdout=subprocess.PIPE) as process:
        while not waiting.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=600)  # returns when nobody holds the pipe any more
        assert process.returncode == 130
    assert calls(stand_in) == ["pytest", "bench"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_before_anything_is_done(tmp_path: Path) -> None:
    done = check(sys.executable, tmp_path / "out")
    assert done.returncode == 2 and "no usable GPU" in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
    assert not (tmp_path / "out").exists()


def test_bad_input_is_told_in_a_line(stand_in: Path, tmp_path: Path) -> None:
    nowhere, forced = check(stand_in, ""), check(stand_in, tmp_path / "out", SAR_ENTROPY="cpu")
    assert nowhere.returncode == forced.returncode == 2
    assert nowhere.stderr == "sarlib: OUT= names the folder for the results: make gpu-check OUT=results\n"
    assert forced.stderr.startswith("sarlib: SAR_ENTROPY would make other figures")
    (tmp_path / "file").touch()
    unwritable = check(stand_in, tmp_path / "file" / "out")
    assert unwritable.returncode == 2 and "name another folder" in unwritable.stderr
    data = check(sys.executable, tmp_path / "out", str(tmp_path / "nowhere"), SAR_REHEARSE="1")
    assert data.returncode == 2 and "there is no such folder" in data.stderr
    assert calls(stand_in) == [] and not (tmp_path / "out").exists()


def test_all_tests_for_a_gpu_are_where_it_looks_for_them() -> None:
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()}
    assert marked - {Path(__file__).resolve()} == set((ROOT / "tests" / "gpu").glob("test_*.py"))
