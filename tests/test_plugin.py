"""The two-line plug-in on timm's models, against S from the queries and keys that the host itself hands to its attention."""

import copy
import inspect
import io
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import AttentionRope
from torch.nn.parallel import DistributedDataParallel

from sarlib import plugin
from sarlib.config import ConfigError
from sarlib.entropy import similarity, spatial_entropy
from sarlib.last_block import ROWS, LastBlock
from sarlib.plugin import SAR
from sarlib.scores import scores


def host(name="vit_tiny_patch16_224", *, size=(32, 48), seed=0, **settings):
    """A shallow model of that name, with parameters away from their initial values, in training mode without dropout."""
    torch.manual_seed(seed)
    model = timm.create_model(name, **{"depth": 1, "img_size": size, "num_classes": 3, **settings})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.train()


def images(n=2, size=(32, 48), seed=1):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def queries_and_keys(monkeypatch):
    """What fused attention is called with, call by call: (B, H, N, d) each."""
    calls, fused = [], F.scaled_dot_product_attention

    def spy(q, k, v, **settings):
        calls.append((q, k))
        return fused(q, k, v, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


# ---- S on timm's models ------------------------------------------------------------------------------------------------------

MODELS = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch32_224": {"size": (64, 96)},
    "vit_tiny_patch16_224 with q/k norm": {"qk_norm": True},
    "deit_tiny_patch16_224": {},
    "deit_tiny_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "vit_small_patch14_dinov2": {"size": (28, 42)},
    "vit_small_patch14_reg4_dinov2": {"size": (28, 42)},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_rope_mixed_224": {},
    "eva02_tiny_patch14_224": {"size": (28, 42)},
    "beit_base_patch16_224": {},
    "vit_relpos_small_patch16_224": {},
    "vit_medium_patch16_reg4_gap_256": {},
    "vit_base_patch16_rope_reg1_gap_256": {},
}


@pytest.mark.parametrize("case", MODELS)
def test_similarity_of_timm_models(case, queries_and_keys):
    """Class token (or mean patch) query against patch keys, as the host makes them: biases, norms, rotary embedding and all."""
    settings = dict(MODELS[case])
    size = settings.pop("size", (32, 48))
    model = host(case.split()[0], size=size, **settings)
    sar = SAR(model)
    model(images(size=size))
    q, k = queries_and_keys[-1]
    prefix = model.num_prefix_tokens
    query = q[:, :, 0] if getattr(model, "cls_token", None) is not None else q[:, :, prefix:].mean(2)
    expected = similarity(query, k[:, :, prefix:], grid=(2, 3))
    (found,) = sar._maps
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert found.shape[2:] == (2, 3) and found.std() > 1e-3
    assert sar.loss().item() == pytest.approx(0.01 * spatial_entropy(expected).item(), rel=1e-3)
    assert sar.entropy.item() == pytest.approx(spatial_entropy(expected).item(), rel=1e-3)


def test_grouped_keys(queries_and_keys):
    if "num_kv_heads" not in inspect.signature(AttentionRope).parameters:
        pytest.skip("this timm has no grouped keys")
    model = host("vit_small_patch16_rope_224", qkv_fused=False, num_kv_heads=2)
    sar = SAR(model)
    model(images())
    q, k = queries_and_keys[-1]
    torch.testing.assert_close(sar._maps[0], similarity(q[:, :, 0], k[:, :, 1:], grid=(2, 3)), atol=2e-5, rtol=1e-4)


def test_gradient_is_that_of_the_hosts_own_queries_and_keys(queries_and_keys):
    model, x = host(depth=2).double(), images(8).double()
    sar = SAR(model, weight=0.3)
    model(x)
    q, k = queries_and_keys[-1]
    by_hand = 0.3 * spatial_entropy(similarity(q[:, :, 0], k[:, :, 1:], grid=(2, 3)))
    expected = torch.autograd.grad(by_hand, inputs(model), retain_graph=True)
    found = torch.autograd.grad(sar.loss(), inputs(model))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)
        assert b.abs().max() > 0


def inputs(model):
    """Parameters that S depends on."""
    return model.cls_token, model.patch_embed.proj.weight, model.blocks[0].mlp.fc1.weight, model.blocks[-1].norm1.weight


def test_image_size_may_change(queries_and_keys):
    model = host(dynamic_img_size=True)
    sar = SAR(model)
    model(images(size=(64, 16)))
    assert sar._maps[0].shape == (2, 3, 4, 1)
    model(images(size=(48, 48)))
    first, second = sar._maps
    assert sar.loss().item() == pytest.approx(0.01 * (spatial_entropy(first) + spatial_entropy(second)).item() / 2)


def test_float32_under_autocast():
    """The products of what reaches the layer are those of float64; bfloat16 ones would be off by 1e-3."""
    model, seen = host(), []
    sar = SAR(model)
    attn = model.blocks[-1].attn
    attn.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images())
        (found,) = sar._maps
        loss = sar.loss()
    assert logits.dtype == torch.bfloat16 and loss.dtype == found.dtype == torch.float32
    exact = scores(copy.deepcopy(attn).double(), seen[0].double(), skip=1)
    torch.testing.assert_close(found.flatten(2).double(), exact, atol=1e-5, rtol=1e-5)


# ---- the loop around it ------------------------------------------------------------------------------------------------------


def test_loss_covers_every_forward_since_the_last():
    """Two views of unequal size count by images; each forward counts once; gradients of accumulated steps add up."""
    model, sar, x = (m := host()), SAR(m), images(6)
    model(x)
    whole = sar.loss()
    model(x[:4])
    model(x[4:])
    torch.testing.assert_close(sar.loss(), whole)
    gradients = []
    for parts in ([x], [x[:3], x[3:]]):
        model.zero_grad()
        for part in parts:
            (model(part).mean() * 0 + sar.loss() * len(part) / len(x)).backward()
        gradients.append(model.blocks[-1].attn.qkv.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_loss_without_a_new_forward_is_an_error():
    model, sar = (m := host()), SAR(m)
    with pytest.raises(ConfigError, match="no new forward"):
        sar.loss()
    model(images())
    sar.loss()
    with pytest.raises(ConfigError, match="no new forward"):
        sar.loss()
    with torch.no_grad():
        model(images())
    with pytest.raises(ConfigError, match="gradients on"):
        sar.loss()


def test_forgotten_losses_are_told(monkeypatch):
    monkeypatch.setattr(plugin, "FORGOTTEN", 3)
    model, sar = (m := host()), SAR(m)
    for _ in range(3):
        model(images())
    with pytest.raises(ConfigError, match="3 training forward passes"):
        model(images())
    assert len(sar._maps) == 4


def test_evaluation_costs_nothing(monkeypatch):
    model, sar = (m := host()), SAR(m)
    model.eval()
    monkeypatch.setattr(plugin, "scores", lambda *_, **__: pytest.fail("computed in evaluation mode"))
    model(images())
    assert sar.loss() == 0 and sar._maps == []


def test_maps_for_figures():
    """In evaluation mode, without touching what is recorded, and every module's mode is put back."""
    model, sar, x = (m := host(drop_path_rate=0.5, depth=2)), SAR(m), images()
    model.blocks[0].eval()
    model(x)
    recorded = list(sar._maps)
    found = sar.maps(x)
    assert sar._maps == recorded and not found.requires_grad
    assert model.training and not model.blocks[0].training and model.blocks[1].mlp.training
    model.eval()
    torch.testing.assert_close(found, sar.maps(x))
    assert found.shape == (2, 3, 2, 3)
    with pytest.raises(AssertionError, match="height"):
        sar.maps(images(size=(31, 48)))
    model(x)
    assert len(sar._maps) == 1, "an error leaves it observing no longer"


def test_state_dict_and_outputs_stay():
    plain, model, x = host(), host(), images()
    sar = SAR(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model(x), plain(x), atol=0, rtol=0)
    assert model.blocks[-1].attn.fused_attn
    sar.remove()
    model(x)
    assert len(sar._maps) == 1


def test_gradient_checkpointing():
    """The block runs twice; S is recorded once and its gradient is the same."""
    gradients = []
    for checkpointing in (False, True):
        model = host(depth=2)
        model.set_grad_checkpointing(checkpointing)
        sar = SAR(model, weight=1.0)
        (model(images(8)).square().mean() + sar.loss()).backward()
        assert sar._maps == []
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_compiled(name):
    """One graph without a break, hook and all; the wrapped model may be given as well as the bare one."""
    torch._dynamo.reset()
    model, x = host(name), images(8)
    plain, plain_sar = (m := host(name)), SAR(m, weight=1.0)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    sar = SAR(compiled, weight=1.0)
    for _ in range(2):
        model.zero_grad()
        plain.zero_grad()
        loss, expected = compiled(x).mean() + sar.loss(), plain(x).mean() + plain_sar.loss()
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    compiled.eval()
    compiled(x)
    assert sar.loss() == 0


def test_distributed(tmp_path):
    """DistributedDataParallel sees one backward pass; micro-batches under no_sync add up to the plain gradient."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain, x = host(), images(8)
        plain_sar = SAR(plain, weight=1.0)
        (plain(x).mean() + plain_sar.loss()).backward()
        model = DistributedDataParallel(host())
        sar = SAR(model, weight=1.0)
        for _ in range(2):
            model.zero_grad()
            with model.no_sync():
                ((model(x[:4]).mean() + sar.loss()) / 2).backward()
            ((model(x[4:]).mean() + sar.loss()) / 2).backward()
        for a, b in zip(model.module.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_copies_and_pickles_are_independent():
    """A moving average copies the model with its hooks, perhaps between forward and loss."""
    model, sar = (m := host()), SAR(m)
    model(images())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin(images())
        assert len(sar._maps) == 1
    saved = io.BytesIO()
    torch.save(model, saved)
    assert sar.loss().requires_grad


# ---- surgery, refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "row"), [("F", "C"), ("C", "C"), ("B", "B"), ("D", "D")])
def test_surgery(variant, row):
    model, stock = host(), host().state_dict()
    sar = SAR(model, variant=variant)
    assert model.blocks[-1].row == ROWS[row]
    assert not any(model.load_state_dict(stock, strict=True))
    model(images())
    assert sar.loss().requires_grad


@pytest.mark.parametrize("variant", ["E", "A", None])
def test_no_surgery(variant):
    model = host()
    SAR(model, variant=variant)
    assert not isinstance(model.blocks[-1], LastBlock)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "cait_xxs24_224", "resnet18", "naflexvit_base_patch16_gap", "samvit_base_patch16"]
)
def test_models_that_it_does_not_fit(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ConfigError, match=type(model).__name__):
        SAR(model)


def test_other_refusals():
    with pytest.raises(ConfigError, match="choose from A, B, C, D, E, F"):
        SAR(host(), variant="G")
    with pytest.raises(ConfigError, match="negative"):
        SAR(host(), weight=-1)
    with pytest.raises(ConfigError, match="stock Block"):
        SAR(host("vit_small_patch16_dinov3"), variant="F")
    model = host(patch_drop_rate=0.5)
    SAR(model)
    with pytest.raises(ConfigError, match="patch dropout"):
        model(images())
