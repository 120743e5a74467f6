"""The loop: resumable to the bit, deterministic by seed, learning, regularising the right way, loud if it cannot go on."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rounded import without_key_biases

from sarlib import data, last_block
from sarlib import regularizers as losses
from sarlib.config import ConfigError, Regularizer, TrainingError
from sarlib.entropy import spatial_entropy
from sarlib.run import Run
from sarlib.tasks.task import Task
from sarlib.trainer import checkpoint
from sarlib.trainer import loop as training
from sarlib.trainer.interruption import Interrupted
from sarlib.trainer.loop import Trained, train
from sarlib.trainer.step import gradient_norms, untrained

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for a kill: nothing in the code may catch it."""


def fit(run: Run, folder: Path, *, kill_after: int | None = None, pretrained: dict[str, torch.Tensor] | None = None) -> Trained:
    """Train with a checkpoint after every step; `kill_after` that many steps the training is torn down."""
    done = 0

    def on_step(images: int) -> None:
        nonlocal done
        done += bool(images)
        if kill_after is not None and done > kill_after:
            raise Killed

    images = data.load(run.data, seed=run.seed, root=None)
    return train(run, images=images, device=CPU, folder=folder, on_step=on_step, checkpoint_seconds=0.0, pretrained=pretrained)


def same_bits(one: Trained, other: Trained) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.task.state_dict().values(), other.task.state_dict().values(), strict=True))


@pytest.mark.parametrize("kill_after", [0, 1, 2, 3, 5, 8])
def test_resumed_equals_uninterrupted(tmp_path: Path, with_recipe: Callable[..., Run], kill_after: int) -> None:
    """Three steps an epoch: kills at the start, inside an epoch, at its last step, in a later epoch, at the very end."""
    run = with_recipe(ema=0.9)
    whole = fit(run, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(run, tmp_path / "killed", kill_after=kill_after)
    resumed = fit(run, tmp_path / "killed")
    assert same_bits(whole, resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True))
    assert whole.history == resumed.history


def test_resuming_does_not_repeat_steps(tmp_path: Path, smallest_run: Run) -> None:
    with pytest.raises(Killed):
        fit(smallest_run, tmp_path, kill_after=5)
    counted = []
    images = data.load(smallest_run.data, seed=0, root=None)
    train(smallest_run, images=images, device=CPU, folder=tmp_path, on_step=counted.append)
    assert counted[0] == 5 * 8, "what the checkpoint holds is announced"
    assert counted[1:] == [8] * 4, "nine steps in all"


def test_the_seed_decides_everything(tmp_path: Path, smallest_run: Run) -> None:
    torch.manual_seed(1)
    first = fit(smallest_run, tmp_path / "1")
    torch.manual_seed(2)
    assert same_bits(first, fit(smallest_run, tmp_path / "2"))
    assert not same_bits(first, fit(dataclasses.replace(smallest_run, seed=1), tmp_path / "3"))


def test_rows_with_one_seed_start_from_the_same_weights(smallest_run: Run) -> None:
    stock = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, variant="A"))
    ours, theirs = (untrained(run, classes=10, device=CPU).model.state_dict() for run in (smallest_run, stock))
    assert set(ours) <= set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def mean_entropy(run: Run, model: torch.nn.Module) -> float:
    images, _ = data.load(run.data, seed=run.seed, root=None)
    with torch.no_grad():
        pixels = images.pixels.float() / 127.5 - 1
        return spatial_entropy(last_block.forward(model.eval(), pixels).similarity).item()


def test_the_regulariser_lowers_the_entropy(tmp_path: Path, with_recipe: Callable[..., Run]) -> None:
    """A lost weight would leave the runs equal, a wrong sign would raise the entropy."""
    run = with_recipe(epochs=12)
    plain = dataclasses.replace(run, regularizers=())
    strong = dataclasses.replace(run, regularizers=(Regularizer(name="spatial_entropy", weight=10.0),))
    without, with_it = (mean_entropy(each, fit(each, tmp_path / each.key).task.model) for each in (plain, strong))
    assert with_it < 0.8 * without


def test_the_task_is_learnt(tmp_path: Path, with_recipe: Callable[..., Run]) -> None:
    history = fit(with_recipe(epochs=30, lr=3e-3), tmp_path).history
    losses = [row["value"] for row in history if (row["split"], row["metric"]) == ("train", "loss")]
    assert len(losses) == 30 and losses[-1] < losses[0] - 0.15


def test_history_holds_what_the_recipe_promises(tmp_path: Path, smallest_run: Run) -> None:
    history = fit(smallest_run, tmp_path).history
    evaluated = [row["epoch"] for row in history if row["split"] == "test" and row["metric"] == "top1"]
    assert evaluated == [1, 2, 3]
    weights = {row["epoch"]: row["value"] for row in history if row["metric"] == "weight"}
    assert weights == {0: 0.0, 1: pytest.approx(0.01), 2: pytest.approx(0.005)}
    norms = {row["metric"] for row in history if row["metric"].startswith("gradient_") and row["value"] > 0}
    assert norms == {"gradient_task", "gradient_regularizer"}


def test_gradient_norms_are_those_of_the_query_and_key_rows(smallest_run: Run) -> None:
    task = untrained(smallest_run, classes=10, device=CPU)
    found = task.eval()(torch.randn(4, 3, 32, 32), torch.eye(10)[:4])
    norms = gradient_norms(task, found)
    found[1].backward(retain_graph=True)
    gradient = task.model.blocks[-1].attn.qkv.weight.grad
    assert norms["gradient_regularizer"] == pytest.approx(gradient[:32].norm().item(), rel=1e-5)
    assert gradient[32:].abs().max() == 0, "values take no part in S"


def test_a_loss_that_is_not_finite_stops_with_its_step(
    tmp_path: Path, smallest_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at_step(4, monkeypatch)
    message = (
        f"run {smallest_run.key}: the loss is not finite at epoch 1, step 1 .*spatial_entropy nan.*seed 0.; its last checkpoint"
    )
    with pytest.raises(TrainingError, match=f"{message} is intact"):
        fit(smallest_run, tmp_path)
    kept = checkpoint.load(tmp_path, key=smallest_run.key, device=CPU)
    assert (kept["progress"]["epoch"], kept["progress"]["step"]) == (1, 1)
    assert all(tensor.isfinite().all() for tensor in kept["task"].values())


def break_at_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From this step on (0, 1, ...) the regulariser of a run is not a number."""
    factors = iter([1.0] * step)
    monkeypatch.setitem(
        losses.FUNCTIONS, "spatial_entropy", ("similarity", lambda maps: maps.mean() * next(factors, float("nan")))
    )


def test_losses_read_seldom_are_the_same(tmp_path: Path, smallest_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU losses are read every so many steps: the history, and the step that an error names, do not depend on it."""
    often = fit(smallest_run, tmp_path / "often")
    monkeypatch.setitem(training.READ_EVERY, "cpu", 2)
    seldom = fit(smallest_run, tmp_path / "seldom")
    assert same_bits(often, seldom) and often.history == seldom.history
    break_at_step(4, monkeypatch)
    with pytest.raises(TrainingError, match="at epoch 1, step 1 "):
        fit(smallest_run, tmp_path / "broken")


def test_short_epochs_are_read_and_stop_too(tmp_path: Path, smallest_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps an epoch, losses read every fourth: a signal is obeyed at the fourth step of the training."""
    monkeypatch.setitem(training.READ_EVERY, "cpu", 4)
    done = []

    def on_step(covered: int) -> None:
        done.append(covered)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        train(
            smallest_run, images=data.load(smallest_run.data, seed=0, root=None), device=CPU, folder=tmp_path, on_step=on_step
        )
    assert len(done) == 1 + 4


def test_a_gradient_that_is_not_finite_stops_before_it_is_saved(
    tmp_path: Path, smallest_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqrt(0) is 0 and its slope infinite: a finite loss, a gradient that is none."""
    monkeypatch.setitem(
        losses.FUNCTIONS, "spatial_entropy", ("similarity", lambda maps: (maps - maps.detach()).square().sum().sqrt())
    )
    with pytest.raises(TrainingError, match="epoch 0, step 0 .*gradient norm nan.*no checkpoint"):
        fit(smallest_run, tmp_path)


def test_micro_batches_give_the_gradient_of_the_whole(tmp_path: Path, with_recipe: Callable[..., Run]) -> None:
    run = without_drop_path(with_recipe())
    images = data.load(run.data, seed=0, root=None)
    whole, micro_batches = (train(run, images=images, device=CPU, folder=tmp_path / str(n), micro_batches=n) for n in (1, 4))
    pair = (without_key_biases(each.task.state_dict()) for each in (whole, micro_batches))
    torch.testing.assert_close(*pair, rtol=1e-4, atol=2e-5)
    with pytest.raises(ConfigError, match="8 images a step cannot be cut into 3 equal micro_batches"):
        train(run, images=images, device=CPU, folder=tmp_path, micro_batches=3)


def without_drop_path(run: Run) -> Run:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, drop_path=0.0))


def test_a_signal_saves_and_the_next_start_goes_on(tmp_path: Path, smallest_run: Run) -> None:
    images = data.load(smallest_run.data, seed=0, root=None)
    whole = fit(smallest_run, tmp_path / "whole")
    done = []

    def on_step(covered: int) -> None:
        done.append(covered)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Interrupted, match="SIGUSR1"):
        train(smallest_run, images=images, device=CPU, folder=tmp_path / "stopped", on_step=on_step)
    assert len(done) == 5, "stops after the step in hand"
    resumed = []
    assert same_bits(whole, train(smallest_run, images=images, device=CPU, folder=tmp_path / "stopped", on_step=resumed.append))
    assert resumed[0] == 4 * 8


def pretrained(run: Run) -> tuple[Run, dict[str, torch.Tensor]]:
    """A run like `run` that starts from a stock network at half its image size, and weights as no training would give them."""
    parent = dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, image_size=16),
        model=dataclasses.replace(run.model, variant="A"),
        regularizers=(),
    )
    weights = untrained(parent, classes=7, device=CPU).kept()
    return dataclasses.replace(run, pretrained=parent), {name: tensor + 0.25 for name, tensor in weights.items()}


def test_a_run_starts_from_the_weights_of_another(
    tmp_path: Path, with_recipe: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step everything but head and positions is the parent's, bit by bit; so is the moving average."""
    run, weights = pretrained(with_recipe(ema=0.9))
    caught = []

    def first(task: Task, batch: object, **rest: object) -> None:
        caught.append({name: value.clone() for name, value in task.model.state_dict().items()})
        raise Killed

    images = data.load(run.data, seed=0, root=None)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "backward", first)
        train(run, images=images, device=CPU, folder=tmp_path, pretrained=weights)
    fresh = untrained(run, classes=10, device=CPU).model.state_dict()
    for name, value in caught[0].items():
        if name.startswith("head"):
            assert torch.equal(value, fresh[name])
        elif name != "pos_embed":
            assert torch.equal(value, weights[name]), name
    assert (caught[0]["pos_embed"] - 0.25).abs().max() < 0.2, "the parent's, on the finer grid"
    ema = train(with_pretrained(run, ema=1 - 1e-9), images=images, device=CPU, folder=tmp_path / "ema", pretrained=weights).ema
    torch.testing.assert_close(ema.model.state_dict()["norm.weight"], weights["norm.weight"], rtol=0, atol=1e-6)


def with_pretrained(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **changes))


@pytest.mark.parametrize("kill_after", [0, 4])
def test_a_pretrained_run_resumes_from_its_own_checkpoint(tmp_path: Path, smallest_run: Run, kill_after: int) -> None:
    run, weights = pretrained(smallest_run)
    whole = fit(run, tmp_path / "whole", pretrained=weights)
    with pytest.raises(Killed):
        fit(run, tmp_path / "killed", kill_after=kill_after, pretrained=weights)
    resumed = fit(run, tmp_path / "killed", pretrained=weights)
    assert same_bits(whole, resumed) and whole.history == resumed.history
    assert not same_bits(whole, fit(smallest_run, tmp_path / "untrained")), "where a run starts shows in the end"


def test_weights_are_given_where_the_run_says_so_and_nowhere_else(tmp_path: Path, smallest_run: Run) -> None:
    run, weights = pretrained(smallest_run)
    with pytest.raises(ConfigError, match=f"run {run.key} starts from another network, whose weights are needed"):
        fit(run, tmp_path)
    with pytest.raises(ConfigError, match=f"run {smallest_run.key} starts untrained"):
        fit(smallest_run, tmp_path, pretrained=weights)


def test_a_checkpoint_of_another_version_is_named_and_left(tmp_path: Path, smallest_run: Run) -> None:
    checkpoint.save(tmp_path, {"key": smallest_run.key, "objective": {}, "optimizer": {}, "ema": None, "progress": {}})
    with pytest.raises(
        TrainingError, match=f"checkpoint in {tmp_path} is of another version of sarlib: finish the run with that"
    ):
        fit(smallest_run, tmp_path)
    assert checkpoint.load(tmp_path, key=smallest_run.key, device=CPU) is not None


def test_mixed_precision_is_for_the_gpu_only(smallest_run: Run) -> None:
    task = untrained(smallest_run, classes=10, device=CPU)
    assert task.output(torch.randn(2, 3, 32, 32)).logits.dtype == torch.float32
