"""The benchmark: turns and statistics on clocks that the test sets, baselines that give our loss, a report that reads back."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, pairwise, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from adversarial_maps import adversarial, random_maps
from bench import __main__ as command
from bench import augmentation, bars, baselines, device, loss, maps, overhead, plan, report, step
from bench.device import WAITS, waits
from bench.interleaved import (
    Check,
    Effort,
    Fact,
    Measurement,
    Side,
    Timing,
    Unequal,
    interleave,
    measure,
    orders,
    ratio,
    require_equal,
)
from scipy import ndimage

from sarlib.config import ConfigError
from sarlib.entropy import component_counts

CPU = torch.device("cpu")


class Clock:
    """A clock that only runs while one of two sides does. A call takes longer by `drift` each time; who comes first in a round
    takes `first` times as long."""

    def __init__(self, *, drift: float = 0.0, first: float = 1.0) -> None:
        self.time, self.drift, self.first, self.calls = 0.0, drift, first, 0
        self.log: list[str] = []

    def now(self) -> float:
        return self.time

    def side(self, name: str, seconds: float, *, repeats: int = 1) -> Side:
        def run() -> None:
            slow = self.first if self.calls % 2 == 0 else 1.0  # rounds begin after four calls: two of each side
            self.time += seconds * slow * (1 + self.drift * self.calls)
            self.calls += 1
            self.log.append(name)

        return Side(name=name, run=run, repeats=repeats)


def effort(rounds: int) -> Effort:
    return Effort(seconds=0.0, rounds=(rounds, rounds), sample_seconds=0.0)


def test_a_side_twice_as_slow_has_ratio_two_and_a_tight_interval() -> None:
    clock = Clock()
    sides = [clock.side("fast", 1.0), clock.side("slow", 2.0)]
    measured = measure("work", sides, effort=effort(10), now=clock.now, settings={}, pairs=[("fast", "slow")])
    slow, fast = measured.ratios
    assert (slow.side, slow.over, fast.side, fast.over) == ("slow", "fast", "fast", "slow")
    assert slow.value == pytest.approx(2) and slow.low == pytest.approx(2) and slow.high == pytest.approx(2)
    assert fast.value == pytest.approx(0.5)
    assert [timing.median for timing in measured.timings] == [1.0, 2.0]


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    clock = Clock(drift=0.05)
    fast, slow = interleave([clock.side("fast", 1.0), clock.side("slow", 2.0)], effort=effort(40), now=clock.now)
    assert max(fast.samples) > 2.5 * min(fast.samples)
    assert ratio(slow, fast).value == pytest.approx(2, rel=0.01)
    assert slow.median / fast.median == pytest.approx(2, rel=0.03)


def test_who_comes_first_does_not_matter() -> None:
    clock = Clock(first=1.5)
    timings = interleave([clock.side("one", 1.0), clock.side("other", 1.0)], effort=effort(20), now=clock.now)
    assert Counter(timings[0].samples) == Counter(timings[1].samples)  # both came first ten times
    assert ratio(*timings).value == pytest.approx(1)


def test_interval_covers_the_true_ratio_of_noisy_sides() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        one, other = (timing(str(seconds), seconds * rng.lognormal(0, 0.1, 30)) for seconds in (1.0, 1.3))
        found = ratio(other, one)
        assert found.low <= found.value <= found.high
        hits += found.low <= 1.3 <= found.high
    assert hits >= 34  # 38 expected


def test_rounds_are_turns_balanced_over_positions_and_drawn_anew() -> None:
    order = list(orders(3, 12, seed=1))
    assert all(sorted(one) == [0, 1, 2] for one in order)
    for start in range(0, 12, 3):
        assert all(len({one[position] for one in order[start : start + 3]}) == 3 for position in range(3))
    assert len({tuple(one) for one in order}) > 3
    assert list(orders(3, 12, seed=1)) == order != list(orders(3, 12, seed=2))


def test_samples_are_seconds_per_piece_of_work_however_many_calls_they_take() -> None:
    clock = Clock()
    timings = interleave(
        [clock.side("short", 0.001), clock.side("graph of 20", 0.02, repeats=20)],
        effort=Effort(seconds=1.0, rounds=(2, 100), sample_seconds=0.01),
        now=clock.now,
    )
    assert [timing.calls for timing in timings] == [10, 1]
    assert [timing.median for timing in timings] == pytest.approx([0.001, 0.001])
    assert len(timings[0].samples) == 32  # as many whole blocks of two rounds as fit into a second at 0.03 s each
    runs = [name for name, following in pairwise([*clock.log[4:], ""]) if name != following]
    assert len(runs) >= 32, "the sides ran one after the other, not in turns"


def test_sides_that_differ_cannot_be_compared() -> None:
    ones = torch.ones(3)
    check = require_equal("a", "b", what="loss", found=ones * (1 + 1e-6), reference=ones, tolerance=1e-5)
    assert 0 < check.difference < 1e-5
    for found in (ones * 1.1, ones * torch.nan, torch.ones(4)):
        with pytest.raises(Unequal, match="a and b differ in loss"):
            require_equal("a", "b", what="loss", found=found, reference=ones, tolerance=1e-5)
    similarity = maps.similarity_maps("random", images=1, heads=2, grid=7)
    with pytest.raises(Unequal, match="differ in loss"):
        loss.require_equal_loss("halved", lambda maps: baselines.released(maps) / 2, similarity)
    with pytest.raises(Unequal, match="differ in gradient"):
        loss.require_equal_loss("detached", lambda maps: baselines.released(maps.detach()) + 0 * maps.sum(), similarity)


EXACT = [baselines.released, baselines.released_tightened, baselines.released_with_scipy]


@pytest.mark.parametrize("baseline", EXACT, ids=lambda baseline: baseline.__name__)
@pytest.mark.parametrize("kind", ["random", "smooth", "adversarial", "adversarial set of the tests"])
def test_baselines_give_our_loss_and_gradient(baseline: Callable, kind: str) -> None:
    pytest.importorskip("cv2")
    for grid in (7, 14):
        if kind in maps.KINDS:
            similarity = maps.similarity_maps(kind, images=12, heads=6, grid=grid)
        else:
            similarity = torch.from_numpy(adversarial(grid, grid))
        checks = loss.require_equal_loss(baseline.__name__, baseline, similarity)
        assert [check.what for check in checks] == ["loss", "gradient"]
        assert all(check.tolerance <= 1e-5 for check in checks)


def test_kornia_is_right_where_its_partition_is_and_only_there() -> None:
    pytest.importorskip("kornia")
    random = maps.similarity_maps("random", images=4, heads=6, grid=14)
    share, right = baselines.share_of_wrong_partitions(random)
    assert share == 0 and right.all()
    loss.require_equal_loss("kornia", baselines.kornia_pooling, random)

    spiral = torch.where(torch.from_numpy(maps.spiral(28)), 2.0, -1.0) + torch.rand(28, 28)
    mixed = torch.stack([spiral, torch.from_numpy(random_maps(1, 28, 28)[0]), spiral.T])
    share, right = baselines.share_of_wrong_partitions(mixed)
    assert share == pytest.approx(2 / 3) and right.tolist() == [False, True, False]
    loss.require_equal_loss("kornia", baselines.kornia_pooling, mixed[right])
    with pytest.raises(Unequal):
        loss.require_equal_loss("kornia", baselines.kornia_pooling, mixed)


@pytest.mark.parametrize("grid", [7, 14, 28])
def test_maps_are_what_their_kind_says(grid: int) -> None:
    for kind in maps.KINDS:
        similarity = maps.similarity_maps(kind, images=100, heads=3, grid=grid)
        assert similarity.shape == (100, 3, grid, grid) and similarity.dtype == torch.float32
        assert torch.equal(similarity, maps.similarity_maps(kind, images=100, heads=3, grid=grid))
        centred = similarity - similarity.mean((-2, -1), keepdim=True)
        assert (centred.abs().amin((-2, -1)) > 0.9 * maps.MARGIN * similarity.std((-2, -1))).all()
    random, smooth = (maps.similarity_maps(kind, images=20, heads=6, grid=grid) for kind in ("random", "smooth"))
    assert component_counts(smooth).double().mean() < component_counts(random).double().mean()


@pytest.mark.parametrize("grid", [7, 14, 28])
def test_shapes_have_as_many_components_as_they_claim(grid: int) -> None:
    for shape in (maps.spiral, maps.comb, maps.snake, maps.checkerboard):
        assert ndimage.label(shape(grid), structure=np.ones((3, 3)))[1] == 1, shape.__name__
    assert ndimage.label(maps.dots(grid), structure=np.ones((3, 3)))[1] == ((grid + 1) // 2) ** 2
    assert maps.spiral(grid).sum() > 0.4 * grid**2
    spiral = maps.spiral(grid)  # connected without corners, and no square of four: a path
    assert ndimage.label(spiral)[1] == 1 and not (spiral[1:, 1:] & spiral[:-1, 1:] & spiral[1:, :-1] & spiral[:-1, :-1]).any()


def test_steps_that_do_not_agree_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = step.timm.create_model("vit_small_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=2, num_classes=5)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 3])
    checks = step.require_equal_steps(model, images, labels)
    assert {check.side for check in checks} == {step.CLASS_ROW, step.METHOD}
    assert all(check.difference < 1e-4 for check in checks)
    assert all(check.difference > 0 for check in checks if "gradient" in check.what), "something was compared with itself"
    exact = step.last_block.class_attention
    monkeypatch.setattr(step.last_block, "class_attention", lambda attn, y: (exact(attn, y)[0] * 1.01, exact(attn, y)[1]))
    with pytest.raises(Unequal, match=f"^{step.CLASS_ROW} and {step.STOCK} differ"):
        step.require_equal_steps(model, images, labels)


def test_waits_of_the_host_are_counted_by_torchs_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = ["error"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def run() -> None:
        if modes[-1] == "warn":
            warnings.warn("Synchronization debug mode does not yet detect all synchronizing operations", stacklevel=1)
            for _ in range(2):
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    assert waits(run) == 2
    assert modes == ["error", "warn", "error"]


class Graph:
    """Stands in for a CUDA graph: what runs while it is captured is run again at a replay."""

    captured: Callable[[], object] = staticmethod(lambda: None)

    def replay(self) -> None:
        Graph.captured()


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of torch.cuda that the benchmark makes, answered on a CPU."""
    modes = ["default"]
    for name, answer in {
        "Stream": lambda: SimpleNamespace(wait_stream=lambda _: None),
        "current_stream": lambda: SimpleNamespace(wait_stream=lambda _: None),
        "stream": lambda _: contextlib.nullcontext(),
        "graph": lambda _: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "synchronize": lambda *_: None,
        "get_sync_debug_mode": lambda: modes[-1],
        "set_sync_debug_mode": modes.append,
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: 100,
        "max_memory_allocated": lambda _: 100 + 2**20,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)


def test_a_replay_that_gives_something_else_is_not_timed(pretended_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(3.0), torch.tensor([1.0, 2.0])

    def captured() -> tuple[Side, Check]:
        """Three runs to warm up, each with tensors of its own, then those that write to the graph's."""
        answers = chain((outcome() for _ in range(3)), repeat(memory))
        return device.captured(lambda: next(answers))

    memory = outcome()
    replayed = staticmethod(lambda: [to.copy_(what) for to, what in zip(memory, outcome(), strict=True)])
    monkeypatch.setattr(Graph, "captured", replayed)
    side, check = captured()
    assert side.repeats == device.REPEATS and check.difference == 0
    monkeypatch.setattr(Graph, "captured", staticmethod(lambda: None))
    with pytest.raises(Unequal, match="CUDA graph"):
        captured()


def test_parts_for_a_gpu_measure_what_they_say(pretended_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    check = Check(side=device.GRAPH, against=loss.OURS, what="loss", difference=0.0, tolerance=0.0)
    monkeypatch.setattr(device, "captured", lambda run: (Side(name=device.GRAPH, run=run), check))
    trial = plan.trial()
    measurements, facts = device.measure_device(trial, CPU)
    assert [measurement.name for measurement in measurements].count(device.KERNEL) == len(trial.kernel_grids)
    (host,) = (measurement for measurement in measurements if measurement.name == device.HOST)
    assert host.settings["k"] == trial.baseline_grid and {ratio.side for ratio in host.ratios} >= {loss.RELEASED}
    assert {fact.name for fact in facts} == {WAITS, "peak memory over that of S"}
    found = step._facts(Side(name="step", run=lambda: None), CPU, {"side": "step"})
    assert [fact.value for fact in found] == [1.0, 0]


def timing(name: str, samples: Iterable[float]) -> Timing:
    return Timing(name=name, samples=tuple(samples), calls=1)


def assembled(times: dict[str, list[float]], *, trial: bool = False, **settings: object) -> report.Report:
    timings = [timing(name, samples) for name, samples in times.items()]
    measurement = Measurement(
        name=loss.NAME,
        settings={"B": 256, "H": 6, "k": 14, "maps": "random", "threads": 1} | settings,
        timings=tuple(timings),
        ratios=tuple(ratio(other, timings[0]) for other in timings[1:]),
        checks=(Check(side=loss.RELEASED, against=loss.OURS, what="loss", difference=0.0, tolerance=1e-5),),
    )
    fact = Fact(name="share", settings={"k": 14}, value=0.25, unit="share")
    return report.assemble([measurement], [fact], device=CPU, seconds=12.3, skipped=["the GPU: there is none"], trial=trial)


def test_report_reads_back_and_says_where_it_comes_from(tmp_path: Path) -> None:
    outcome = assembled({loss.OURS: [1e-3, 1.1e-3], loss.RELEASED: [9e-3, 9.9e-3]})
    path = tmp_path / "bench" / report.file_name(outcome)
    report.write(outcome, path)
    assert report.read(path) == outcome
    assert {"commit", "dirty", "device", "versions", "threads", "date", "seconds", "kind"} <= outcome.keys()
    assert {"torch", "timm", "kornia"} <= outcome["versions"].keys()
    with pytest.raises(ConfigError, match="make bench"):
        report.read(tmp_path / "none.json")
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot read"):
        report.read(path)


def test_tables_show_medians_ratios_and_what_was_left_out() -> None:
    outcome = assembled({loss.OURS: [1e-3, 1e-3], loss.RELEASED: [9e-3, 9e-3]})
    ours, released = report.comparisons(outcome).to_dict("records")
    assert ours["median"] == 1e-3 and np.isnan(ours["ratio"]) and ours["over"] == ""
    assert released["ratio"] == pytest.approx(9) and released["over"] == loss.OURS and released["difference"] == 0
    shown = report.text(outcome)
    for words in ("1 ms", "9 ms", "9.000 x sarlib", "k 14", "share: 0.25", "left out: the GPU: there is none", "reached"):
        assert words in shown


@pytest.mark.parametrize(("factors", "verdict"), [((9, 9.5), "reached"), ((6, 7), "missed"), ((7, 9), "open")])
def test_verdicts_need_the_whole_interval(factors: tuple[float, float], verdict: str) -> None:
    (entry,) = assembled({loss.OURS: [1.0, 1.0], loss.RELEASED: list(factors)})["bars"]
    assert entry["verdict"] == verdict and entry["limit"] == 8
    assert assembled({loss.OURS: [1.0, 1.0], loss.RELEASED: list(factors)}, B=64)["bars"] == []
    assert assembled({loss.OURS: [1.0, 1.0], loss.RELEASED: list(factors)}, trial=True)["bars"] == []


def test_bars_on_a_gpu_are_judged_where_it_is_the_one_they_name() -> None:
    graph = {"name": device.GRAPH, "median": 2e-5, "low": 1.9e-5, "high": 2.1e-5}
    kernel = {"name": device.KERNEL, "settings": {"B": 1024, "H": 6, "k": 14, "maps": "random"}, "sides": [graph], "ratios": []}
    steps = {
        "name": step.NAME,
        "settings": {"model": "vit_small_patch16_224", "compiled": True, "B": 256},
        "sides": [{"name": step.METHOD, "median": 0.03, "low": 0.029, "high": 0.031}],
        "ratios": [
            {"side": step.METHOD, "over": step.STOCK, "value": 0.96, "low": 0.955, "high": 0.965},
            {"side": step.METHOD, "over": step.WITHOUT_SKIP, "value": 1.001, "low": 1.0, "high": 1.003},
        ],
    }
    found = bars.judge({"kind": "cuda", "device": "NVIDIA H100 80GB HBM3", "measurements": [kernel, steps]})
    assert [entry["verdict"] for entry in found] == ["reached", "open", "missed", "reached"]
    assert bars.judge({"kind": "cuda", "device": "NVIDIA A100", "measurements": [kernel, steps]}) == []


def test_file_name_is_the_devices() -> None:
    name = {"device": "CPU Intel(R) Xeon(R) Gold 6140 @ 2.30GHz", "trial": False}
    assert report.file_name(name) == "cpu-intel-xeon-gold-6140-2-30ghz.json"
    assert report.file_name(name | {"trial": True}).endswith("-trial.json")


def test_chapter_shows_reports_and_says_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "book")
    import speed

    assert speed.NOT_MEASURED in speed.sections(tmp_path)
    outcome = assembled({loss.OURS: [1e-3, 1e-3], loss.RELEASED: [9e-3, 9e-3]})
    report.write(outcome | {"trial": True}, tmp_path / "bench" / "trial.json")
    assert speed.NOT_MEASURED in speed.sections(tmp_path), "a trial was shown"
    report.write(outcome, tmp_path / "reference" / "bench" / "a.json")
    report.write(outcome, tmp_path / "bench" / "a.json")
    shown = speed.sections(tmp_path)
    assert shown.index("Your own results") < shown.index("Reference results")
    assert "| ≥ 8 | 9 [9, 9] | reached |" in shown and "| 9 ms | 9 [9, 9] × sarlib | 2 |" in shown
    for words in (f"## {outcome['device']}", "k 14", "0.25 share", "the GPU: there is none"):
        assert words in shown


def test_trial_runs_from_end_to_end(runs_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kornia")
    assert command.main(["--device", "cpu", "--quick"]) == 0
    (path,) = (runs_folder / "bench").iterdir()
    outcome = report.read(path)
    assert path.name == report.file_name(outcome) and path.name.endswith("-trial.json") and outcome["trial"]
    frame = report.comparisons(outcome)
    assert set(frame["measurement"]) == {loss.NAME, augmentation.NAME, step.NAME, overhead.NAME}
    assert {loss.OURS, loss.KORNIA, *loss.EXACT_BASELINES, step.STOCK, step.METHOD, step.PLUGIN} <= set(frame["side"])
    assert (frame["median"] > 0).all() and len(outcome["skipped"]) == 2
    shown = capsys.readouterr().out
    assert "mean nothing" in shown and str(path) in shown and "left out: kernel" in shown


def test_bad_input_and_unequal_sides_end_in_one_line(
    runs_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["--device", "tpu", "--quick"]) == 2
    assert "unknown device" in capsys.readouterr().err

    def unequal(*_: object) -> None:
        raise Unequal("a and b differ in loss")

    monkeypatch.setattr(command, "measure_loss", unequal)
    assert command.main(["--device", "cpu", "--quick"]) == 1
    assert "a and b differ in loss" in capsys.readouterr().err
    monkeypatch.setenv("SAR_ENTROPY", "cpu")
    assert command.main(["--device", "cpu", "--quick"]) == 2
    assert "SAR_ENTROPY" in capsys.readouterr().err
    assert not (runs_folder / "bench").exists()
