"""The plug-in on layers that somebody else has wrapped: S is what the host computes, and its gradient reaches what
trains there."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from sarlib.config import ConfigError
from sarlib.entropy import similarity, spatial_entropy
from sarlib.last_block import forward
from sarlib.plugin import SAR

pytestmark = pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:.*weight_norm.*is deprecated")

WEIGHT = 0.3


class LowRank(nn.Module):
    """y = W x + B A drop(x), W frozen: what adapter libraries put in the place of a linear layer."""

    def __init__(self, base: nn.Linear, *, rank: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.drop = nn.Dropout(dropout)
        self.a = nn.Parameter(torch.randn(rank, base.in_features, dtype=base.weight.dtype))
        self.b = nn.Parameter(torch.randn(base.out_features, rank, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.drop(x) @ self.a.T @ self.b.T


class FakeQuantized(nn.Module):
    """A linear layer whose weight has 16 values, with the identity as derivative of the rounding."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight
        step = weight.detach().abs().amax() / 8
        return F.linear(x, weight + ((weight / step).round() * step - weight).detach(), self.base.bias)


class Scaled(nn.Module):
    """A parametrisation: three times the parameter."""

    def forward(self, weight: Tensor) -> Tensor:
        return 3 * weight


def replaced(make: Callable[[nn.Linear], nn.Module]) -> Callable[[nn.Module, str], None]:
    return lambda attn, name: setattr(attn, name, make(getattr(attn, name)))


def in_place(change: Callable[[nn.Linear], object]) -> Callable[[nn.Module, str], None]:
    return lambda attn, name: change(getattr(attn, name)) and None


def quantisation_aware(layer: nn.Linear) -> nn.Module:
    """torch's own: fake quantisation of input, weight and output, whose observers move with every call in training."""
    quantization = pytest.importorskip("torch.ao.quantization", reason="torch has given up its quantisation-aware training")
    wrapped = quantization.QuantWrapper(copy.deepcopy(layer))
    wrapped.qconfig = quantization.get_default_qat_qconfig("x86")
    return quantization.prepare_qat(wrapped.train())


def half(layer: nn.Linear) -> object:
    """As a library does that keeps a frozen weight in half precision and widens it when it is called."""
    forward = nn.Linear.forward
    layer.forward = lambda x: forward(layer, x) / 2
    return layer


#: What is done to a layer that makes queries and keys.
WRAPPED: dict[str, Callable[[nn.Module, str], None]] = {
    "low-rank adapter": replaced(LowRank),
    "low-rank adapter with dropout": replaced(lambda layer: LowRank(layer, dropout=0.3)),
    "pruned": in_place(lambda layer: prune.l1_unstructured(layer, "weight", 0.3)),
    "spectral norm": in_place(spectral_norm),
    "spectral norm as a parametrisation": in_place(parametrizations.spectral_norm),
    "weight norm": in_place(weight_norm),
    "weight norm as a parametrisation": in_place(parametrizations.weight_norm),
    "a parametrisation": in_place(lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())),
    "fake-quantised": replaced(FakeQuantized),
    "torch's quantisation-aware training": replaced(quantisation_aware),
    "a forward hook that changes the output": in_place(lambda layer: layer.register_forward_hook(lambda _, __, y: 2 * y)),
    "forward replaced": in_place(half),
}


#: They know no other precision than float32.
SINGLE = ("torch's quantisation-aware training",)


def vit(name: str = "vit_tiny_patch16_224", **settings: object) -> nn.Module:
    """A shallow model with parameters away from their initial values, in training mode."""
    small = {"img_size": 96, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 3}
    torch.manual_seed(0)
    return moved(timm.create_model(name, **{**small, **settings}))


def moved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.train()


def images(n: int = 4, size: int = 96) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def spy_on_attention(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float]]:
    """What attention is called with, call by call: queries and keys (B, H, N, d), and the scale."""
    calls, fused = [], F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, **settings: object) -> Tensor:
        calls.append((q, k, scale or q.shape[-1] ** -0.5))
        return fused(q, k, v, scale=scale, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float]]:
    return spy_on_attention(monkeypatch)


def of_the_host(attended: list[tuple[Tensor, Tensor, float]], *, prefix: int, mean: bool = False) -> Tensor:
    """S (B, H, h, h) of the last call."""
    q, k, scale = attended[-1]
    query = q[:, :, prefix:].mean(2) if mean else q[:, :, 0]
    n = int((k.shape[2] - prefix) ** 0.5)
    return similarity(query, k[:, :, prefix:], grid=(n, n)) * (scale * q.shape[-1] ** 0.5)


# ---- wrapped layers ----------------------------------------------------------------------------------------------------------

#: Hosts by the layers that make their queries and keys.
HOSTS = {
    "vit_tiny_patch16_224": (["qkv"], {}),
    "vit_tiny_patch16_224 with q/k norm": (["qkv"], {"qk_norm": True}),
    "vit_medium_patch16_reg4_gap_256": (["qkv"], {}),
    "eva02_tiny_patch14_224": (["q_proj", "k_proj"], {"img_size": 84, "qkv_fused": False}),
    "vit_base_patch16_rope_reg1_gap_256": (["qkv"], {}),
    "beit_base_patch16_224": (["qkv"], {}),
}


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("case", HOSTS)
def test_wrapped_layer(case: str, way: str, attended: list) -> None:
    """Three steps: S and gradients are those of the queries and keys that the layer itself made, and the host is as without."""
    layers, settings = HOSTS[case]
    dtype = torch.float32 if way in SINGLE else torch.float64

    def build() -> nn.Module:
        model = vit(case.split()[0], **settings)
        attn = model.blocks[-1].attn
        if "qkv_bias_separate" in vars(attn):
            attn.qkv_bias_separate = True  # otherwise the host reads the weight and never calls what wraps it
        for layer in layers:
            WRAPPED[way](attn, layer)
        return model.to(dtype)

    assert_three_steps(build(), build(), images(size=settings.get("img_size", 96)).to(dtype), attended)


def assert_three_steps(model: nn.Module, alone: nn.Module, x: Tensor, attended: list) -> None:
    """Of `model` with SAR and of its twin without."""
    sar = SAR(model, weight=WEIGHT)
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in (model, alone)]
    layer = set(model.blocks[-1].attn.parameters())
    close = {"atol": 1e-5, "rtol": 1e-3} if x.dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-7}
    prefix, mean = model.num_prefix_tokens, getattr(model, "cls_token", model) is None
    for step in range(3):
        torch.manual_seed(step)
        alone(x).square().mean().backward()
        torch.manual_seed(step)
        logits = model(x)
        expected = of_the_host(attended, prefix=prefix, mean=mean)
        (found,) = sar._maps
        torch.testing.assert_close(found, expected, **close)
        assert found.std() > 1e-3
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        by_hand = WEIGHT * spatial_entropy(expected)
        right = torch.autograd.grad(by_hand, trained, retain_graph=True, materialize_grads=True)
        gradients = torch.autograd.grad(sar.loss(), trained, retain_graph=True, materialize_grads=True)
        for gradient, other in zip(gradients, right, strict=True):
            torch.testing.assert_close(gradient, other, **close)
        assert any(
            gradient.abs().max() > 0 for parameter, gradient in zip(trained, gradients, strict=True) if parameter in layer
        )
        logits.square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for (name, a), b in zip(model.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"SAR changed {name} of the host"


@pytest.mark.parametrize("way", ["low-rank adapter", "pruned", "spectral norm as a parametrisation"])
def test_layer_wrapped_after_sar(way: str, attended: list) -> None:
    """A notebook may add adapters to a model that has SAR already; so may somebody who replaces what stands behind
    the layer."""
    model = vit(qk_norm=True)
    attn = model.blocks[-1].attn
    sar = SAR(model)
    WRAPPED[way](attn, "qkv")
    attn.q_norm, attn.k_norm = nn.Sequential(attn.q_norm, nn.Tanh()), nn.Sequential(attn.k_norm, nn.Tanh())
    model(images())
    torch.testing.assert_close(sar._maps[0], of_the_host(attended, prefix=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_weight_that_is_read_and_whose_layer_is_never_called(name: str, attended: list) -> None:
    """EVA adds its biases itself, in one operation with the weight: what a parametrisation does to that happens once."""
    size = 84 if "14" in name else 96

    def build() -> nn.Module:
        model = vit(name, img_size=size)
        parametrizations.spectral_norm(model.blocks[-1].attn.qkv)
        return model.double()

    assert_three_steps(build(), build(), images(size=size).double(), attended)


def test_beit_says_what_adapters_need() -> None:
    """It reads the weight of `qkv`, in front of nothing that could be called: an adapter would train nothing, in silence."""
    model = vit("beit_base_patch16_224")
    model.blocks[-1].attn.qkv = LowRank(model.blocks[-1].attn.qkv)
    with pytest.raises(ConfigError, match="attn.qkv_bias_separate = True"):
        SAR(model)
    model.blocks[-1].attn.qkv_bias_separate = True
    assert SAR(model)._maps == []


@pytest.mark.parametrize("way", ["low-rank adapter", "pruned", "spectral norm", "a parametrisation", "fake-quantised"])
def test_class_token_alone_refuses_wrapped_layers(way: str) -> None:
    """`sarlib.last_block.forward` multiplies by the weights itself."""
    model = vit()
    WRAPPED[way](model.blocks[-1].attn, "qkv")
    with pytest.raises(ConfigError, match="sarlib.SAR"):
        forward(model, images())


def test_autocast() -> None:
    """Queries and keys have the layer's precision, their products are float32."""
    model = vit()
    model.blocks[-1].attn.qkv = LowRank(model.blocks[-1].attn.qkv)
    exact, sar = SAR(copy.deepcopy(model)), SAR(model)
    exact._host(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(images())
    (found,), (right,) = sar._maps, exact._maps
    assert found.dtype == torch.float32
    assert (found - right).std() < 0.02 * right.std()
    assert not torch.equal(found, found.bfloat16().float()), "the products are float32"


def test_plain_layer_keeps_its_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys are formed where nobody has wrapped anything: hooks around the attention as a whole change nothing."""
    monkeypatch.setattr("sarlib.plugin.products", lambda *_, **__: pytest.fail("keys were formed"))
    model = vit()
    model.blocks[-1].register_forward_hook(lambda *_: None)
    model.blocks[-1].attn.register_forward_pre_hook(lambda *_: None)
    sar = SAR(model)
    model(images())
    assert sar.loss() > 0


# ---- adapters of peft --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "lokr"])
@pytest.mark.parametrize("case", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_peft(case: str, method: str, attended: list) -> None:
    peft = pytest.importorskip("peft", reason="peft, whose adapters are tried, is not installed")
    layers, settings = HOSTS[case]
    adapters = {
        "lora": lambda: peft.LoraConfig(target_modules=layers, init_lora_weights=False, lora_dropout=0.1),
        "dora": lambda: peft.LoraConfig(target_modules=layers, init_lora_weights=False, use_dora=True),
        "ia3": lambda: peft.IA3Config(target_modules=layers, feedforward_modules=[], init_ia3_weights=False),
        "lokr": lambda: peft.LoKrConfig(target_modules=layers, init_weights=False),
    }

    def build() -> nn.Module:
        return peft.get_peft_model(vit(case, **settings), adapters[method]()).double().train()

    model, x = build(), images(size=settings.get("img_size", 96)).double()
    assert_three_steps(model, build(), x, attended)
    for merged in (model.merge_adapter, model.unmerge_adapter, model.merge_and_unload):
        host = merged() or model
        sar = SAR(host)
        host(x)
        torch.testing.assert_close(sar._maps[0], of_the_host(attended, prefix=1), atol=1e-10, rtol=1e-7)


# ---- wrapped, and checkpointed or compiled as well ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["low-rank adapter with dropout", "weight norm as a parametrisation"])
@pytest.mark.parametrize("whole", [False, True])
def test_wrapped_layer_in_a_checkpoint(way: str, whole: bool) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = vit()
        WRAPPED[way](model.blocks[-1].attn, "qkv")
        model.set_grad_checkpointing(checkpointed and not whole)
        sar = SAR(model, weight=1.0)
        for step in range(2):
            torch.manual_seed(step)
            y = checkpoint(model, images(), use_reentrant=False) if checkpointed and whole else model(images())
            assert len(sar._maps) == 1
            (y.square().mean() + sar.loss()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("way", ["low-rank adapter", "pruned", "weight norm as a parametrisation"])
def test_wrapped_layer_compiled(way: str) -> None:
    torch._dynamo.reset()
    gradients = []
    for compiled in (False, True):
        model = vit()
        WRAPPED[way](model.blocks[-1].attn, "qkv")
        sar = SAR(model, weight=1.0)
        run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        for _ in range(2):
            (run(images()).square().mean() + sar.loss()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
