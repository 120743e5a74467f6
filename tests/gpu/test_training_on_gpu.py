"""Trainings on a GPU, in bfloat16 and compiled: within its rounding they are those of the CPU in float32."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bench import overhead, plan

from sarlib.experiments.presets import TINY
from sarlib.run import Run
from sarlib.runner.machine import Machine
from sarlib.runner.schedule import execute_all
from sarlib.runner.store import Record, Store

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
DRAWN = (overhead.DRLOC_ALONE, overhead.BOTH)  # DRLoc draws its pairs on the device


def gradient(step: overhead.Step) -> torch.Tensor:
    step.backward()
    return torch.cat([each.grad.flatten().cpu() for each in step.task.parameters() if each.grad is not None])


@pytest.mark.parametrize("name", TINY.architectures())
def test_losses_and_gradients_are_those_of_the_cpu(gpu: torch.device, name: str) -> None:
    """bfloat16 has 8 bits: 1 % of a loss, and gradients that point the same way."""
    declared = overhead.sides(TINY.architectures()[name], preset=TINY, image_size=plan.trial().overhead_pixels)
    for side, run in declared.items():
        pixels, targets = overhead._batch(plan.trial(), CPU)
        ours, theirs = (overhead.Step(run, pixels.to(device), targets.to(device)) for device in (gpu, CPU))
        found, wanted = (step.task(*step.batch).detach().cpu() for step in (ours, theirs))
        assert found.dtype == torch.float32 and found.isfinite().all()
        if side not in DRAWN:
            assert torch.allclose(found, wanted, rtol=0.01, atol=0.005), (side, found, wanted)
            assert F.cosine_similarity(gradient(ours), gradient(theirs), dim=0) > 0.99, side


@pytest.fixture
def run(smallest_run: Run) -> Run:
    """Without stochastic depth, whose masks the device draws."""
    return dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, drop_path=0.0))


def trained(
    run: Run, folder: Path, device: torch.device, *, processes: int = 1, micro_batches: int = 1
) -> tuple[Record, Store]:
    store = Store(folder)
    machine = Machine(device=device.type, workers=1, threads=1, processes=processes, micro_batches=micro_batches)
    return execute_all([run], store=store, root=None, machine=machine)[run.key], store


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_training_is_that_of_the_cpu(
    gpu: torch.device, run: Run, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, reference = trained(run, tmp_path / "cpu", CPU)
    if gpu.type == "cuda":
        monkeypatch.setenv("SAR_COMPILE", str(int(compiled)))
    elif compiled:
        pytest.skip("a rehearsal compiles nothing")
    ours, store = trained(run, tmp_path / "gpu", gpu)
    assert ours.provenance["compiled"] == compiled and ours.provenance["input"] == "device"
    one, other = (where.history(run).query("split == 'train' and metric == 'loss'") for where in (store, reference))
    assert one["value"].tolist() == pytest.approx(other["value"].tolist(), rel=0.02)
    assert ours.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=0.05)
    assert ours.metrics["entropy"] == pytest.approx(theirs.metrics["entropy"], abs=0.1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one(gpu: torch.device, run: Run, tmp_path: Path) -> None:
    """Gradients exchanged by NCCL, against one GPU that takes each batch in the same two halves."""
    theirs, _ = trained(run, tmp_path / "one", gpu, micro_batches=2)
    ours, _ = trained(run, tmp_path / "two", gpu, processes=2)
    assert ours.provenance["processes"] == 2
    for name in ("loss", "entropy"):
        assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=0.02)
