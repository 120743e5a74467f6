"""The overhead table: every regularizer's step starts from the same weights, has that regularizer in its gradient, and is set
against the step without; the chapter shows it beside the paper's figure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from bench import overhead, plan, report
from bench.interleaved import Measurement, Timing, Unequal, ratio
from torch import Tensor, nn

from sarlib.config import ARCHITECTURES, REGULARIZERS
from sarlib.experiments.presets import LAPTOP, TINY

CPU = torch.device("cpu")
TRIAL = plan.trial()
ROW_C = [overhead.BLOCK, overhead.SAR, *overhead.BASELINES, overhead.BOTH]
ROW_A = [overhead.NONE, overhead.DRLOC_ALONE]


@pytest.fixture(scope="module", params=TINY.architectures().values(), ids=TINY.architectures())
def steps(request: pytest.FixtureRequest) -> dict[str, overhead.Step]:
    """The sides of one architecture. Tests may take gradients, but no step."""
    declared = overhead.sides(request.param, preset=TINY, image_size=TRIAL.overhead_pixels)
    return {name: overhead.Step(run, *overhead._batch(TRIAL, CPU)) for name, run in declared.items()}


def test_every_architecture_has_every_regulariser_over_the_step_without() -> None:
    measurements, facts = overhead.measure_overhead(TRIAL, CPU)
    assert [one.settings["architecture"] for one in measurements] == list(TINY.architectures()) and not facts
    for one in measurements:
        assert {"B", "pixels", "dim", "depth", "precision", "compiled", "threads"} <= one.settings.keys()
        samples = {timing.name: np.array(timing.samples) for timing in one.timings}
        assert next(iter(samples)) == overhead.NONE and sorted(samples) == sorted(ROW_A + ROW_C)
        found = {(each.side, each.over): each.value for each in one.ratios}
        assert found.keys() == {(side, overhead.NONE) for side in samples if side != overhead.NONE} | {
            (overhead.SAR, overhead.BLOCK)
        }
        for (side, over), value in found.items():
            assert value == pytest.approx(np.prod(samples[side] / samples[over]) ** 0.5)  # the trial has two rounds


@pytest.mark.parametrize("name", TINY.architectures())
def test_sides_are_the_rows_of_the_tables_with_every_known_regulariser(name: str) -> None:
    model = TINY.architectures()[name]
    declared = overhead.sides(model, preset=TINY, image_size=TRIAL.overhead_pixels)
    of_images = set(REGULARIZERS) - {"space_time_entropy"}  # which is for clips
    assert {"none", *(each.name for run in declared.values() for each in run.regularizers)} == of_images
    assert {side for side, run in declared.items() if run.model.variant == "A"} == set(ROW_A)
    assert {side for side, run in declared.items() if run.model.variant == "C"} == set(ROW_C)
    off = {side for side, run in declared.items() if not run.regularizers}
    assert off == {overhead.NONE, overhead.BLOCK}
    both = declared[overhead.BOTH]
    assert (both.regularizers[0].name, both.regularizers[1:]) == (
        "spatial_entropy",
        declared[overhead.DRLOC_ALONE].regularizers,
    )
    assert declared[overhead.DRLOC_ALONE].regularizers[0].weight == (0.1 if model.name in ("t2t", "cvt") else 0.5)


def test_all_sides_start_from_equal_weights_of_their_own(steps: dict[str, overhead.Step]) -> None:
    reference = dict(steps[overhead.NONE].task.model.named_parameters())
    for name, step in steps.items():
        assert step.task.training
        weights = dict(step.task.model.named_parameters())
        missing = reference.keys() - weights.keys()
        assert len(missing) == (2 if name in ROW_C else 0) and all(".norm2." in parameter for parameter in missing)
        assert weights.keys() <= reference.keys()
        assert all(torch.equal(weight, reference[parameter]) for parameter, weight in weights.items()), name
    addresses = [parameter.data_ptr() for step in steps.values() for parameter in step.task.parameters()]
    assert len(set(addresses)) == len(addresses), "two sides share weights"


def test_every_regulariser_is_in_the_gradient_of_its_step(steps: dict[str, overhead.Step]) -> None:
    gradients = {name: _gradient(step) for name, step in steps.items()}
    for row in (ROW_A, ROW_C):
        for one, other in itertools.combinations(row, 2):
            difference = (gradients[one] - gradients[other]).norm() / gradients[other].norm()
            assert difference > 1e-4, f"{one} and {other} have the same gradient"


def test_a_step_is_the_optimizers_on_the_weighted_losses() -> None:
    """Against AdamW on a loss that is put together here, both without weight decay."""
    run = overhead.sides(TINY.architectures()["ViT"], preset=TINY, image_size=TRIAL.overhead_pixels)[overhead.BOTH]
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, weight_decay=0.0))
    batch = overhead._batch(TRIAL, CPU)
    ours, theirs = overhead.Step(run, *batch), overhead.Step(run, *batch)
    optimizer = torch.optim.AdamW(theirs.task.parameters(), lr=overhead.LEARNING_RATE, weight_decay=0.0, fused=True)
    for seed in range(2):
        torch.manual_seed(seed)  # DRLoc draws its pairs
        ours()
        torch.manual_seed(seed)
        task, entropy, drloc = theirs.task(*batch)
        optimizer.zero_grad()
        (task + 0.01 * entropy + 0.5 * drloc).backward()
        optimizer.step()
    pairs = list(zip(ours.task.named_parameters(), theirs.task.parameters(), strict=True))
    assert any(name.startswith("regularizers.") for (name, _), _ in pairs)
    for (name, mine), other in pairs:
        assert torch.allclose(mine, other, rtol=0, atol=0.01 * overhead.LEARNING_RATE), name


def test_sides_with_other_weights_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, build = itertools.count(), overhead.tasks.create

    def build_anew(*arguments: object, **settings: object) -> nn.Module:
        torch.manual_seed(next(seeds))
        return build(*arguments, **settings)

    monkeypatch.setattr(overhead.tasks, "create", build_anew)
    with pytest.raises(Unequal, match=f"^{overhead.SAR} and {overhead.BLOCK} differ in cross entropy"):
        overhead.measure_overhead(TRIAL, CPU)


def test_a_cpu_measures_the_batches_of_the_laptops_trainings() -> None:
    chosen = plan.full(CPU)
    assert (chosen.overhead_preset, chosen.overhead_batch) == (LAPTOP.name, LAPTOP.recipe.batch_size)
    assert {model.name for model in LAPTOP.architectures().values()} == set(ARCHITECTURES)


def test_chapter_shows_the_overheads_beside_the_papers(speed: ModuleType) -> None:
    outcome = _assembled(_measurement("ViT", sar=1.05), _measurement("PVT", sar=0.99))
    head, _, none, *rows = speed.overheads(outcome).split("\n\n")[1].splitlines()
    assert head == "| regulariser | over | ViT | PVT | the paper, on average |"
    assert none == "| none |  | 100 ms | 100 ms |  |"
    assert rows == [
        "| SAR's block | none | -2.0 % [-2.0, -2.0] | -2.0 % [-2.0, -2.0] |  |",
        "| SAR | none | +5.0 % [+5.0, +5.0] | -1.0 % [-1.0, -1.0] | +2.9 % |",
        "| SAR | SAR's block | +7.1 % [+7.1, +7.1] | +1.0 % [+1.0, +1.0] |  |",
    ]
    assert speed.overheads(outcome).startswith("B 50, threads 2 (4 rounds):"), "settings that differ are no architecture's"


def test_chapter_says_where_a_report_has_no_overheads(speed: ModuleType, tmp_path: Path) -> None:
    new = _assembled(_measurement("ViT", sar=1.05))
    old = new | {"measurements": [{**new["measurements"][0], "name": "training step"}]}
    for folder, outcome in (("one", old), ("other", new)):
        report.write(outcome, tmp_path / folder / "bench" / "a.json")
    without, shown = (speed.sections(tmp_path / folder) for folder in ("one", "other"))
    assert "### What each regulariser costs" in without and speed.NO_OVERHEAD in without
    assert speed.NO_OVERHEAD not in shown and shown.count("×") == 0, "the overheads are shown twice"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "book")
    import speed

    yield speed


def _gradient(step: overhead.Step) -> Tensor:
    """Of the last block's query and key weights."""
    step.task.zero_grad()
    step.backward()
    named = step.task.model.blocks[-1].attn.named_parameters()
    return torch.cat(
        [weight.grad.flatten() for name, weight in named if name in ("qkv.weight", "q_proj.weight", "k_proj.weight")]
    )


def _measurement(architecture: str, *, sar: float) -> Measurement:
    """Steps of 0.1 s without regulariser; `sar` times that with SAR."""
    seconds = {overhead.NONE: 0.1, overhead.BLOCK: 0.098, overhead.SAR: 0.1 * sar}
    none, block, with_sar = (Timing(name=name, samples=(value,) * 4, calls=1) for name, value in seconds.items())
    return Measurement(
        name=overhead.NAME,
        settings={"architecture": architecture, "depth": {"ViT": 4, "PVT": 2}[architecture], "B": 50, "threads": 2},
        timings=(none, block, with_sar),
        ratios=(ratio(block, none), ratio(with_sar, none), ratio(with_sar, block)),
        checks=(),
    )


def _assembled(*measurements: Measurement) -> report.Report:
    return report.assemble(measurements, [], device=CPU, seconds=1.0, skipped=[], trial=False)
