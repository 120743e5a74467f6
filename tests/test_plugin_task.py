"""timm's training task with the loss of the plug-in, and the example of the book."""

import runpy
from pathlib import Path

import pytest
import torch
from test_plugin import host, images
from timm.task import ClassificationTask

from sarlib.last_block import ROWS
from sarlib.plugin import SARTask

EXAMPLE = Path(__file__).parents[1] / "book" / "examples" / "plug_in.py"


def test_task():
    """timm's own task plus the loss."""
    x, y = images(), torch.tensor([0, 2])
    theirs = ClassificationTask(host(), torch.nn.CrossEntropyLoss(), verbose=False)
    task = SARTask(host(), torch.nn.CrossEntropyLoss(), weight=0.5, verbose=False)
    expected, found = theirs(x, y), task(x, y)
    torch.testing.assert_close(found["output"], expected["output"])
    torch.testing.assert_close(found["loss"], expected["loss"] + 0.5 * task.sar.entropy)
    assert found["sar"].item() == pytest.approx(0.5 * task.sar.entropy.item()) and not found["sar"].requires_grad
    found["loss"].backward()
    task.eval()
    assert task(x, y)["sar"] == 0
    assert list(task.state_dict()) == list(theirs.state_dict())
    assert SARTask(host(), torch.nn.CrossEntropyLoss(), variant="F", verbose=False).sar._host.blocks[-1].row == ROWS["C"]


@pytest.mark.skipif(not hasattr(ClassificationTask, "setup_ema"), reason="this timm leaves the moving average to the loop")
def test_task_with_moving_average():
    """Moving average and checkpoint are as before."""
    x, y = images(), torch.tensor([0, 2])
    theirs = ClassificationTask(host(), torch.nn.CrossEntropyLoss(), verbose=False)
    task = SARTask(host(), torch.nn.CrossEntropyLoss(), weight=0.5, verbose=False)
    task(x, y)["loss"].backward()
    task.setup_ema()(x)
    task.update_ema()
    assert list(task.get_checkpoint_state()["state_dict"]) == list(theirs.get_checkpoint_state()["state_dict"])
    task.get_trainable_module(ema=True).module.train()(x)
    assert task.sar._maps == [], "the copy for the moving average records for itself"


def test_example(capsys):
    pytest.importorskip("sklearn")
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    runpy.run_path(str(EXAMPLE))["main"](1)
    assert "epoch 0: loss" in capsys.readouterr().out
