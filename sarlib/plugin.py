"""SAR in anyone's training loop: two lines, on timm's transformers as they are.

    sar = sarlib.SAR(model)
    ...
    loss = criterion(model(images), labels) + sar.loss()

The host keeps its code, its state dict and its fused attention: a hook sees the input of the last attention layer and computes
the one row of similarities that the loss needs once more, in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Attention, AttentionRope
from timm.models import beit, eva, vision_transformer_relpos
from timm.task import ClassificationTask
from torch import Tensor, nn

from sarlib.config import ConfigError
from sarlib.entropy import spatial_entropy
from sarlib.last_block import ROWS, on_grid, set_variant
from sarlib.scores import scores

#: Layers in which every patch attends to every other one. Position biases, where they have them, are no part of Equation 4.
GLOBAL_ATTENTION = (
    Attention,
    AttentionRope,
    eva.EvaAttention,
    beit.Attention,
    vision_transformer_relpos.RelPosAttention,
)

#: Table 1c: E and F are the last blocks of A and C with the loss.
LAST_BLOCKS = {**{variant: variant for variant in ROWS}, "E": "A", "F": "C"}

#: Forward passes without `loss()` after which something is wrong: every one of them keeps its graph alive.
FORGOTTEN = 64


class SAR:
    """The spatial entropy loss (Equation 9) of a timm transformer's last block, weighted by `weight`.

    model: a timm model with a list of `blocks` and global attention in the last of them (vit, deit, deit3, dinov2, dinov3, eva,
        beit, ...), bare or wrapped by DistributedDataParallel or torch.compile. Without a class token the mean of the patch
        queries stands in for its query.
    weight: lambda; an attribute that may be changed at any time, for example by a schedule.
    variant: a row of Table 1c whose last block the model gets (`sarlib.last_block.set_variant`), "F" for the paper's method;
        None leaves the model as it is.

    In training mode, with gradients on, every forward pass is recorded, and `loss()` covers all since the last call of it. In
    evaluation mode nothing is computed and `loss()` is 0. Make it before a compiled model first runs: torch.compile looks for
    hooks only then. Gradient checkpointing works in its non-reentrant form, timm's default.

    Raises `ConfigError` for a model that this does not fit.
    """

    def __init__(self, model: nn.Module, *, weight: float = 0.01, variant: str | None = None) -> None:
        if weight < 0:
            raise ConfigError(f"the weight of the loss must not be negative, got {weight}")
        host = _unwrapped(model)
        _require_global_attention(host)
        if variant is not None:
            set_variant(host, _last_block_of(variant))
        self.weight = weight
        self.entropy: Tensor | None = None  # of the last `loss()`, nats a map, unweighted and detached: for logs
        self._host = host
        self._class_token = getattr(host, "cls_token", None) is not None
        self._observing = False
        self._grid: tuple[int, int] | None = None
        self._maps: list[Tensor] = []
        self._hooks = [
            host.patch_embed.register_forward_pre_hook(self._note_grid),
            host.blocks[-1].attn.register_forward_pre_hook(self._record, with_kwargs=True),
        ]

    def loss(self) -> Tensor:
        """`weight` times the mean entropy of all maps recorded since the last call: a scalar with gradient, in nats."""
        maps, self._maps = self._maps, []
        if not maps:
            return self._nothing_recorded()
        images = sum(len(m) for m in maps)
        entropy = torch.stack([spatial_entropy(m) * (len(m) / images) for m in maps]).sum()
        self.entropy = entropy.detach()
        return self.weight * entropy

    def maps(self, images: Tensor) -> Tensor:
        """Similarity maps (B, H, h, w) of `images` in evaluation mode, without gradient: what `sarlib.tasks.masks` takes."""
        recorded, self._maps = self._maps, []
        modes = [(module, module.training) for module in self._host.modules()]
        self._observing = True
        self._host.eval()
        try:
            with torch.no_grad():
                self._host(images)
            return self._maps[0]
        finally:
            self._maps, self._observing = recorded, False
            for module, training in modes:
                module.training = training

    def remove(self) -> None:
        """Takes the hooks off the model; its last block stays as it is."""
        for hook in self._hooks:
            hook.remove()

    def _note_grid(self, embed: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._grid = tuple(embed.dynamic_feat_size(args[0].shape[-2:]))

    def _record(self, attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        if not (self._observing or (attn.training and torch.is_grad_enabled())):
            return
        skip = self._host.num_prefix_tokens
        row = scores(attn, args[0], skip=skip, class_token=self._class_token, rope=kwargs.get("rope"))
        if self._grid is None:
            # Gradient checkpointing runs the block again during the backward pass, and has to find the same operations.
            return
        self._maps.append(on_grid(row, self._grid))
        self._grid = None
        if len(self._maps) > FORGOTTEN:
            raise ConfigError(f"{FORGOTTEN} training forward passes without sar.loss(): call it after each, or use no_grad")

    def _nothing_recorded(self) -> Tensor:
        if self._host.training:
            raise ConfigError(
                "sar.loss() found no new forward pass: run the model with gradients on before each call, make SAR(model) "
                "before the compiled model first runs, and use non-reentrant gradient checkpointing"
            )
        return torch.zeros((), device=next(self._host.parameters()).device)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles (of the model with its hooks, for a moving average say) leave the recorded graph behind."""
        return {**self.__dict__, "_maps": [], "_grid": None, "entropy": None}


class SARTask(ClassificationTask):
    """timm's classification task with the loss of `SAR` added: for timm's training loop, or any that calls a `TrainingTask`.

    Takes the arguments of `ClassificationTask` and of `SAR`. The result has one more entry, `sar`: the weighted loss added.
    """

    def __init__(self, model: nn.Module, *args: Any, weight: float = 0.01, variant: str | None = None, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.sar = SAR(model, weight=weight, variant=variant)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        result = super().forward(input, target)
        added = self.sar.loss()
        return {**result, "loss": result["loss"] + added, "sar": added.detach()}


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's and DistributedDataParallel's wrappers, in any order."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module):
            return _unwrapped(inner)
    return model


def _last_block_of(variant: str) -> str:
    if variant not in LAST_BLOCKS:
        raise ConfigError(f"unknown variant {variant!r}; choose from {', '.join(LAST_BLOCKS)}")
    return LAST_BLOCKS[variant]


def _require_global_attention(host: nn.Module) -> None:
    name = type(host).__name__
    blocks = getattr(host, "blocks", None)
    attn = getattr(blocks[-1], "attn", None) if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks) else None
    if type(attn) not in GLOBAL_ATTENTION:
        found = "none" if attn is None else type(attn).__name__
        raise ConfigError(f"{name} has no last block with global attention of a known kind (found: {found}), which SAR needs")
    if not hasattr(getattr(host, "patch_embed", None), "dynamic_feat_size") or not hasattr(host, "num_prefix_tokens"):
        raise ConfigError(f"{name} does not say how its tokens lie on a grid (patch_embed, num_prefix_tokens): SAR needs that")
