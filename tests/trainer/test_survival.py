"""SIGKILL at any moment costs time and nothing else: what is on disk is whole, and a training ends with the weights that
it would have had.

SAR_KILLS=500 kills the training 500 times instead of 50.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mortal import Life, warm_process
from safetensors.torch import load_file

from sarlib.run import Run
from sarlib.runner.store import Store
from sarlib.trainer import checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX")

KILLS = int(os.environ.get("SAR_KILLS", "50"))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def live() -> Iterator[Callable[..., Life]]:
    with warm_process() as live:
        yield live


def test_a_training_killed_anywhere_ends_with_the_same_weights(live: Callable[..., Life], tmp_path: Path) -> None:
    """Each training is killed at five moments drawn over its length, by turns in seconds and in calls to the file system;
    each life goes on where the one before it died, and the last one is left to finish."""
    whole = live("training", tmp_path / "whole")
    draw = random.Random(0)
    killed: list[Life] = []
    trainings = 0
    while len(killed) < KILLS:
        folder = tmp_path / str(trainings)
        unit, length = (("after_seconds", whole.seconds), ("at_call", whole.calls))[trainings % 2]
        moments = sorted(draw.uniform(0, length) for _ in range(min(5, KILLS - len(killed))))
        for before, moment in zip([0.0, *moments], moments):
            ahead = moment - before
            life = live("training", folder, **{unit: ahead if unit == "after_seconds" else math.ceil(ahead)})
            if life.killed:
                killed.append(life)
        assert live("training", folder).result == whole.result
        assert not list(folder.glob("*.corrupt")), "no kill breaks a checkpoint"
        assert len(list(folder.iterdir())) <= 3, "the last two, and at most what the last kill left half-written"
        trainings += 1
    inside = sum(life.saving for life in killed)
    print(
        f"{len(killed)} kills of {trainings} trainings, {inside} inside the writing of a checkpoint: all ended with the "
        "same weights"
    )
    assert KILLS // 10 <= inside < len(killed)


def test_a_kill_inside_a_save_leaves_the_new_checkpoint_or_the_one_before(
    live: Callable[..., Life], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def after(folder: Path, **moment: int) -> tuple[Life, int]:
        for number in (1, 2):
            checkpoint.save(folder, {"key": "k", "number": number, "weights": torch.full((1000,), float(number))})
        life = live("saving", folder, **moment)
        state = checkpoint.load(folder, key="k", device=CPU)
        assert (state["weights"] == state["number"]).all()
        return life, state["number"]

    whole, _ = after(tmp_path / "whole")
    outcomes = [after(tmp_path / str(call), at_call=call) for call in range(1, whole.calls + 1)]
    assert all(life.killed for life, _ in outcomes)
    numbers = [number for _, number in outcomes]
    assert numbers == sorted(numbers) and set(numbers) == {2, 3}, "whole at every boundary, new from the rename on"
    assert not capsys.readouterr().err, "nothing was found broken"


def test_a_kill_inside_the_writing_of_a_record_leaves_all_or_nothing(
    live: Callable[..., Life], tmp_path: Path, with_recipe: Callable[..., Run]
) -> None:
    run = with_recipe(ema=0.9)

    def whole(store: Store) -> bool:
        if store.read(run) is None:
            return False
        assert load_file(store.folder(run) / "weights.safetensors")["w"].sum() == 1000
        assert store.history(run).value.tolist() == [50.0]
        return True

    def after(store: Store, **moment: int) -> tuple[Life, bool]:
        checkpoint.save(store.folder(run), {"key": run.key})
        return live("recording", store.root, **moment), whole(store)

    uninterrupted, kept = after(Store(tmp_path / "whole"))
    assert kept and uninterrupted.result == run.key
    kept_at = []
    for call in range(1, uninterrupted.calls + 1):
        store = Store(tmp_path / str(call))
        life, kept = after(store, at_call=call)
        assert life.killed
        kept_at.append(kept)
        assert kept or checkpoint.load(store.folder(run), key=run.key, device=CPU), "what is not kept can be resumed"
        live("recording", store.root)
        assert whole(store) and len(list(store.folder(run).iterdir())) == 4, "a second attempt ends well and clears up"
    assert kept_at == sorted(kept_at) and set(kept_at) == {False, True}
    assert not list(tmp_path.glob("*/*.corrupt*"))
