"""A second SAR on the same model, copies, and what becomes of the model afterwards."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from test_plugin_loop import gradients, images, vit
from torch import nn

from sarlib.config import ConfigError
from sarlib.plugin import SAR


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def test_second_sar_takes_the_place_of_the_first() -> None:
    model = vit()
    first = SAR(model, weight=0.1)
    hooks, loss = hooks_of(model), None
    model(images())
    loss = first.loss()
    model(images())
    second = SAR(model, weight=0.2)
    assert hooks_of(model) == hooks and second._maps == []
    model(images())
    for used in (first.loss, first.remove, lambda: first.maps(images())):
        with pytest.raises(ConfigError, match="a later SAR"):
            used()
    assert len(second._maps) == 1
    torch.testing.assert_close(second.loss(), 2 * loss)
    second.remove()
    assert hooks_of(model) == 0


def test_second_sar_on_a_compiled_model_that_ran() -> None:
    """A cell run twice. Compiled code goes on to call the hooks that it was compiled with."""
    torch._dynamo.reset()
    model = vit()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(3):
        sar = SAR(compiled)
        compiled(images())
        assert len(sar._maps) == 1
        assert sar.loss() > 0


def test_second_sar_after_the_last_block_is_replaced() -> None:
    model = vit()
    SAR(model)
    model.blocks[-1] = copy.deepcopy(vit().blocks[-1])
    sar = SAR(model)
    model(images())
    assert len(sar._maps) == 1 and len(model.patch_embed._forward_pre_hooks) == 1


def test_one_that_does_not_fit_leaves_the_first_alone() -> None:
    model = vit()
    first = SAR(model)
    for settings in ({"weight": -1.0}, {"variant": "G"}):
        with pytest.raises(ConfigError):
            SAR(model, **settings)
    model(images())
    assert first.loss() > 0


def test_loss_after_remove() -> None:
    """What was recorded before counts; after that, the error names the cause, and a compiled model records no longer."""
    torch._dynamo.reset()
    model = vit()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    sar = SAR(model)
    compiled(images())
    sar.remove()
    assert sar.loss() > 0
    compiled(images())
    for used in (sar.loss, lambda: sar.maps(images())):
        with pytest.raises(ConfigError, match=r"remove\(\) has taken"):
            used()
    assert SAR(model)._maps == []


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copy_has_its_own(duplicate: Callable) -> None:
    model = vit()
    sar = SAR(model)
    model(images())
    twin, its = duplicate((model, sar))
    later, _ = duplicate((model, sar))
    assert hooks_of(twin) == hooks_of(model)
    twin(images(2))
    assert len(its._maps) == len(sar._maps) == 1 and its.loss() > 0
    third = SAR(later)
    assert hooks_of(later) == hooks_of(model)
    later(images())
    assert len(third._maps) == 1 and len(its._maps) == 0 and len(sar._maps) == 1
    its.remove()
    assert hooks_of(twin) == 0
    assert sar.loss() > 0, "the model that was copied has kept its own"


def test_copy_of_a_layer_is_no_copy_of_the_model() -> None:
    """Libraries copy layers before they wrap them."""
    model = vit()
    SAR(model)
    for layer in (model.blocks[-1].attn, model.blocks[-1].attn.q_norm, model.patch_embed):
        assert len(pickle.dumps(layer)) < len(pickle.dumps(model)) / 2


# ---- export, torch.func ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("variant", [None, "B", "C", "D", "F"])
def test_script_after_remove(variant: str | None) -> None:
    model = vit()
    sar = SAR(model, variant=variant)
    sar.remove()
    model.eval()
    assert torch.equal(torch.jit.script(model)(images()), model(images()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
def test_export_in_evaluation_mode() -> None:
    """With the hooks on: they have nothing to do there."""
    model = vit().eval()
    sar = SAR(model, variant="F")
    expected = model(images())
    assert torch.equal(torch.jit.trace(model, images())(images()), expected)
    torch.testing.assert_close(torch.export.export(model, (images(),)).module()(images()), expected)
    assert sar.loss() == 0


def test_feature_extraction_after_remove() -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = vit().eval()
    sar = SAR(model)
    with pytest.raises(ConfigError, match=r"sar.remove\(\) before tracing"):
        extraction.create_feature_extractor(model, ["norm"])
    sar.remove()
    assert extraction.create_feature_extractor(model, ["norm"])(images())["norm"].shape == (4, 17, 16)


def test_functional_call() -> None:
    """The way for those who would use torch.func.grad, which the entropy's operator does not know."""
    plain, model = vit(), vit()
    sar = SAR(model, weight=1.0)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in plain.named_parameters()}
    loss = torch.func.functional_call(model, parameters, (images(),)).square().mean() + sar.loss()
    found = torch.autograd.grad(loss, list(parameters.values()))
    for a, b in zip(found, gradients(plain, plain, SAR(plain, weight=1.0), steps=1), strict=True):
        torch.testing.assert_close(a, b)
