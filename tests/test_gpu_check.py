"""The check for a borrowed GPU, rehearsed on the CPU: every part gives its file, goes on where it ended, and spares the others."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from sarlib.bench.interleaved import Fact, Unequal
from sarlib.config import ConfigError, TrainingError
from sarlib.gpu_check import __main__ as command
from sarlib.gpu_check import bars, feeding, kernel, plan, records, runner, tables, training
from sarlib.gpu_check.parts import Found, Part, Task
from sarlib.results import read_csv

NAMES = [part.name for part in command.PARTS]

#: Seconds that no test needs, however busy the machine.
AMPLE = 3600.0

FACT = Fact(name="a fact", settings={}, value=1.0, unit="1")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(folder=tmp_path / "out", device="cpu", threads=1, code="one", plan=plan.rehearsal())


def good(task: Task) -> Iterator[Found]:
    yield Found(facts=(FACT,))


def broken(task: Task) -> Iterator[Found]:
    yield Found(facts=(FACT,))
    raise RuntimeError("the first line\nand a second one")


def crashing(task: Task) -> Iterator[Found]:
    yield Found(facts=(FACT,))
    os._exit(7)


def listening(task: Task) -> Iterator[Found]:
    yield Found(facts=(FACT,))
    time.sleep(600)


def deaf(task: Task) -> Iterator[Found]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield Found(facts=(FACT,))
    time.sleep(600)


def cifar10(root: Path) -> Path:
    """Twelve training and ten test images of two classes, where the enlarged CIFAR-10 is looked for."""
    for split, n in (("train", 6), ("test", 5)):
        for shade, name in enumerate(("cat", "dog")):
            folder = root / "cifar10" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (32, 32), (20 * i, 100 * shade, 50)).save(folder / f"{i}.png")
    return root


def test_every_part_gives_its_file_and_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(records, "code", lambda: "one")  # whatever happens to the checkout meanwhile
    out = tmp_path / "out"
    arguments = ["--rehearse", "--out", str(out), "--data", str(cifar10(tmp_path / "data")), "--minutes", "60"]
    assert command.main(arguments) == 0
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in NAMES}
    assert {record["status"] for record in found.values()} == {"done"}
    (steps,) = found["training"]["measurements"]
    assert [side["name"] for side in steps["sides"]] == [training.STOCK, training.BASELINE, training.SAR]
    (fed,) = found["feeding"]["measurements"]
    assert [side["name"] for side in fed["sides"]] == [feeding.SYNTHETIC, feeding.RESIDENT, feeding.STREAMED, feeding.CIFAR]
    assert len(found["kernel"]["checks"]) == 2 * len(plan.rehearsal().grids) * len(plan.rehearsal().kinds) * 2
    (report,) = out.glob("bench-*-trial.json")
    assert {measurement["name"] for measurement in json.loads(report.read_text())["measurements"]} > {"training step"}
    assert read_csv(out / "table4.csv")["seed"].unique().tolist() == [0]
    assert [part["part"] for part in json.loads((out / "summary.json").read_text())["parts"]] == NAMES

    first = {name: (out / f"{name}.json").stat().st_mtime_ns for name in NAMES}
    capsys.readouterr()
    assert command.main(arguments) == 0
    second = {name: (out / f"{name}.json").stat().st_mtime_ns for name in NAMES}
    assert [name for name in NAMES if second[name] != first[name]] == ["environment"]
    assert capsys.readouterr().out.count("from an earlier call") == len(NAMES) - 1


def test_a_part_that_fails_is_told_in_a_line_and_the_others_go_on(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [Part(name=find.__name__, find=find) for find in (broken, crashing, good)]
    first, second, last = runner.run(parts, task, seconds=AMPLE)
    assert (first["status"], first["error"]) == ("failed", "RuntimeError: the first line")
    assert (second["status"], second["error"]) == ("failed", "its process ended with exit code 7")
    assert last["status"] == "done"
    for name in ("broken", "crashing", "good"):
        assert records.read(task.folder, name)["facts"] == [dataclasses.asdict(FACT)], "what was found before is kept"
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(parts)
    again = runner.run(parts, task, seconds=AMPLE)
    assert [outcome["status"] for outcome in again] == ["failed", "failed", "done"]
    assert capsys.readouterr().out.count("from an earlier call") == 1, "what failed is tried again, and only that"


@pytest.mark.parametrize("find", [listening, deaf])
def test_the_time_limit_ends_a_part_whether_it_listens_or_not(task: Task, find: object) -> None:
    """A part that was let go on would take ten minutes."""
    runner.run([Part(name="good", find=good)], task, seconds=AMPLE)  # the first one waits for imports
    stopped, left = runner.run([Part(name="long", find=find), Part(name="late", find=good)], task, seconds=6)
    assert (stopped["status"], left["status"]) == ("stopped", "left")
    assert records.read(task.folder, "long")["facts"] == [dataclasses.asdict(FACT)]
    assert not records.path(task.folder, "late").exists()


def test_a_part_without_time_enough_is_not_begun(task: Task) -> None:
    parts = [
        Part(name="good", find=good),
        Part(name="long", find=good, least=2 * AMPLE),
        Part(name="short", find=good, least=1.0),
    ]
    assert [outcome["status"] for outcome in runner.run(parts, task, seconds=AMPLE)] == ["done", "left", "done"]


def test_results_count_for_the_code_and_the_device_that_they_were_made_with(task: Task) -> None:
    records.write(Part(name="good", find=good), task, Found(), status=records.DONE, seconds=1.0)
    record = records.read(task.folder, "good")
    device = record["device"]
    assert records.finished(record, task, device=device)
    assert not records.finished(None, task, device=device)
    assert not records.finished(record, task, device="another")
    assert not records.finished(record, dataclasses.replace(task, code="another"), device=device)
    assert not records.finished(record | {"trial": False}, task, device=device)
    assert not records.finished(record | {"status": records.STOPPED}, task, device=device)


def test_tables_go_on_run_by_run_and_show_whole_seeds_only(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_RUNS", "")  # put back at the end
    task = dataclasses.replace(task, plan=dataclasses.replace(task.plan, seeds=2))
    runs = tables.find(task)
    for _ in range(3 + 1):  # the three rows of the first seed, and one of the second
        next(runs)
    runs.close()
    assert read_csv(task.folder / "table4.csv")["seed"].unique().tolist() == [0]
    finished = {file: file.stat().st_mtime_ns for file in task.folder.glob("runs/store/*/result.json")}
    assert len(finished) == 4
    assert [len(found.facts) for found in tables.find(task)] == [1] * 6
    assert read_csv(task.folder / "table4.csv")["seed"].unique().tolist() == [0, 1]
    assert all(file.stat().st_mtime_ns == written for file, written in finished.items())


def test_a_loss_that_differs_from_the_cpus_is_noticed(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, calls = kernel.spatial_entropy, iter(range(10**6))
    monkeypatch.setattr(kernel, "spatial_entropy", lambda maps: exact(maps) * (1 + 1e-3 * (next(calls) % 2)))
    with pytest.raises(
        TrainingError, match=r"^8 checks of the loss failed, the first: cpu, 7, random, float32 .* differ in loss"
    ):
        list(kernel.find(task))


def test_steps_of_different_losses_are_not_compared(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = training.Stock.forward
    monkeypatch.setattr(training.Stock, "forward", lambda self, *batch: exact(self, *batch) * 1.1)
    with pytest.raises(Unequal, match="differ in loss"):
        next(training.find(task))


def test_batches_halve_until_one_fits(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = dataclasses.replace(task.plan, batches=(8, 4, 2))
    exact = training.Step.__call__

    def short_of_memory(self: training.Step, pixels: torch.Tensor, targets: torch.Tensor) -> None:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("out of memory")
        exact(self, pixels, targets)

    monkeypatch.setattr(training.Step, "__call__", short_of_memory)
    found = next(training.find(dataclasses.replace(task, plan=enough)))
    assert found.measurements[0].settings["B"] == 4
    with pytest.raises(ConfigError, match="not even batches of 8 images"):
        next(training.find(dataclasses.replace(task, plan=dataclasses.replace(task.plan, batches=(8,)))))


def test_speeds_are_judged_by_their_intervals() -> None:
    def step(device: str, sar: tuple[float, float, float]) -> dict:
        side = dict(zip(("low", "median", "high"), sar), name=training.SAR)
        ratio = dict(zip(("low", "value", "high"), (0.7, 0.8, 0.9)), side=training.SAR, over=training.STOCK)
        return {
            "device": device,
            "measurements": [{"name": training.NAME, "settings": {"B": 512}, "sides": [side], "ratios": [ratio]}],
        }

    speed, ratio = bars.judge(step("NVIDIA H100 80GB HBM3", (0.05, 0.0512, 0.07)))
    assert (
        speed["value"] == pytest.approx(10_000)
        and speed["low"] == pytest.approx(512 / 0.07)
        and speed["high"] == pytest.approx(10_240)
    )
    assert speed["verdict"] == "open"
    assert ratio["value"] == pytest.approx(1.25) and ratio["low"] == pytest.approx(1 / 0.9) and ratio["verdict"] == "open"
    verdicts = [bars.judge(step("H100", seconds))[0]["verdict"] for seconds in ((0.05, 0.05, 0.06), (0.07, 0.07, 0.07))]
    assert verdicts == ["reached", "missed"]
    assert [entry["what"] for entry in bars.judge(step("A100", (0.05, 0.05, 0.05)))] == [ratio["what"]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert "needs a GPU" in told.err and "--rehearse" in told.err and len(told.err.splitlines()) == 1 and not told.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "told"), [(["--minutes", "0"], "above 0"), (["--data", "nowhere"], "no such folder")])
def test_bad_input_is_told_in_a_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--rehearse", "--out", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_figures_are_not_made_with_a_forced_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAR_ENTROPY", "cpu")
    assert command.main(["--rehearse", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("sarlib: SAR_ENTROPY would make other figures")
