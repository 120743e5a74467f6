"""SAR in anyone's training loop: the two lines of `sarlib`, on timm's transformers as they are.

The host keeps its code, its state dict and its fused attention: a hook sees the input of the last attention layer and computes
the one row of similarities that the loss needs once more, in float32. Where more than plain linear layers make queries and keys
(an adapter, a mask, a norm of the weights), hooks take them from the layer instead: S is what the host computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers import Attention, AttentionRope
from timm.models import beit, eva, vision_transformer_relpos
from timm.task import ClassificationTask
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.module_tracker import ModuleTracker

from sarlib.config import ConfigError, require_known
from sarlib.entropy import spatial_entropy
from sarlib.last_block import ROWS, evaluating, has_class_token, on_grid, set_variant
from sarlib.scores import absorbable, makers, products, scores

#: Layers in which every patch attends to every other one. Position biases, where they have them, are no part of Equation 4.
GLOBAL_ATTENTION = (Attention, AttentionRope, eva.EvaAttention, beit.Attention, vision_transformer_relpos.RelPosAttention)

#: Table 1c: E and F are the last blocks of A and C with the loss.
LAST_BLOCKS = {**{variant: variant for variant in ROWS}, "E": "A", "F": "C"}

#: Forward passes without `loss()` after which something is wrong: every one of them keeps its graph alive.
FORGOTTEN = 64


class SAR:
    """The spatial entropy loss (Equation 9) of a timm transformer's last block, weighted by `weight`.

    model: a timm model with a list of `blocks` and global attention in the last of them (vit, deit, deit3, dinov2, dinov3, eva,
        beit, ...) or one of `sarlib.models`, bare or wrapped by DistributedDataParallel, fully_shard or torch.compile. Without
        a class token the mean of the patch queries stands in for its query.
    weight: lambda; an attribute that may be changed at any time, for example by a schedule.
    variant: a row of Table 1c whose last block the model gets (`sarlib.last_block.set_variant`), "F" for the paper's method;
        None leaves the model as it is.

    In training mode, with gradients on, every forward pass is recorded, and `loss()` covers all since the last call of it. In
    evaluation mode nothing is computed and `loss()` is 0. Make it before a compiled model first runs: torch.compile looks for
    hooks only then. Gradient checkpointing works in its non-reentrant form, timm's default. A later SAR of the same model takes
    the place of this one.

    Raises `ConfigError` for a model that this does not fit.
    """

    def __init__(self, model: nn.Module, *, weight: float = 0.01, variant: str | None = None) -> None:
        if weight < 0:
            raise ConfigError(f"the weight of the loss must not be negative, got {weight}")
        host = _unwrapped(model)
        _require_global_attention(host)
        if variant is not None:
            require_known("variant", variant, LAST_BLOCKS)
            set_variant(host, LAST_BLOCKS[variant])
        self.weight = weight
        self.entropy: Tensor | None = None  # of the last `loss()`, nats a map, unweighted and detached: for logs
        self._host = host
        self._recorder = _Recorder.of(host)
        self._turn = self._recorder.attach(host)

    @property
    def _maps(self) -> list[Tensor]:
        """What is recorded: similarity maps (B, H, h, w) of each forward pass."""
        return self._recorder.maps()

    def loss(self) -> Tensor:
        """`weight` times the mean entropy of all maps recorded since the last call: a scalar with gradient, in nats."""
        self._require_turn()
        maps = self._recorder.maps()
        self._recorder.forget()
        if not maps:
            return self._nothing_recorded()
        images = max(sum(len(m) for m in maps), 1)
        entropy = torch.stack([spatial_entropy(m, axes=m.dim() - 2) * (len(m) / images) for m in maps]).sum()
        self.entropy = entropy.detach()
        return self.weight * entropy

    def maps(self, images: Tensor) -> Tensor:
        """Similarity maps (B, H, h, w) of `images` in evaluation mode, without gradient: what `sarlib.tasks.masks` takes."""
        self._require_turn()
        self._require_hooks()
        with evaluating(self._host), torch.no_grad(), self._recorder.apart() as recorder:
            self._host(images)
            return recorder.maps()[0]

    def remove(self) -> None:
        """Takes the hooks off the model; its last block stays as it is."""
        self._require_turn()
        self._recorder.detach()

    def _require_turn(self) -> None:
        if self._turn != self._recorder.turn:
            raise ConfigError("a later SAR of the same model has taken the place of this one: use that one")

    def _require_hooks(self) -> None:
        if not self._recorder.hooks:
            raise ConfigError("remove() has taken the hooks off the model: make SAR(model) again")

    def _nothing_recorded(self) -> Tensor:
        blocks = self._host.blocks
        if not self._host.training:
            return torch.zeros((), device=next(self._host.parameters()).device)
        self._require_hooks()
        if not blocks[-1].attn.training:
            raise ConfigError(
                "the last block is in evaluation mode, the model in training mode: SAR needs both in the same one"
            )
        if _is_compiled(blocks[-1]) and any(map(_is_compiled, blocks[:-1])):
            raise ConfigError(
                "blocks that are compiled one by one run the code of the first, which has no hook: compile the whole model, "
                "or all blocks but the last"
            )
        raise ConfigError(
            "sar.loss() found no new forward pass: run the model with gradients on before each call, make SAR(model) "
            "after its layers are wrapped and before the compiled model first runs, and use non-reentrant "
            "gradient checkpointing"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the last loss behind."""
        return {**self.__dict__, "entropy": None}


class _Recorder:
    """What the hooks on a model see and keep: the similarity maps of its forward passes.

    One for a model: a later SAR takes over the one that it finds there, so that hooks do not pile up. It has no reference to
    the model, so that a copy of one layer is not a copy of all of them.
    """

    def __init__(self) -> None:
        self.turn = 0  # of the SAR that the hooks work for
        self.observing = False
        self.hooks: list[RemovableHandle] = []
        self._taps: list[RemovableHandle] = []
        self._watched: dict[str, nn.Module] = {}
        self._grid: tuple[int, int] | None = None
        self._made: dict[str, Tensor] | None = None
        self.forget()

    @classmethod
    def of(cls, host: nn.Module) -> _Recorder:
        """The one that `host` has, or a new one."""
        hooks = [hook for module in (_embedding(host), host.blocks[-1].attn) for hook in module._forward_pre_hooks.values()]
        owners = (getattr(hook, "__self__", None) for hook in hooks)
        return next((owner for owner in owners if isinstance(owner, cls)), None) or cls()

    def attach(self, host: nn.Module) -> int:
        """Puts hooks on the layers that `host` has now, in place of any earlier ones. Returns whose turn it is."""
        self.detach()
        self.forget()
        self.turn += 1
        attn = host.blocks[-1].attn
        self._key_grid = getattr(host, "key_grid", None)
        self._settings = {"skip": host.num_prefix_tokens, "class_token": has_class_token(host)}
        self.hooks = [
            _embedding(host).register_forward_pre_hook(self._note_grid),
            attn.register_forward_pre_hook(self._before, with_kwargs=True),
            attn.register_forward_hook(self._after, with_kwargs=True),
        ]
        self._watch(attn)
        return self.turn

    def detach(self) -> None:
        for hook in self.hooks + self._taps:
            hook.remove()
        self.hooks, self._taps, self._watched = [], [], {}

    def maps(self) -> list[Tensor]:
        found, rest = [], self._recorded
        while rest is not None:
            row, rest = rest
            found.append(row)
        return found[::-1]

    def forget(self) -> None:
        # A chain and not a list: torch.compile compiles anew for every length of a list, but does not look into this one.
        self._recorded: tuple[Tensor, Any] | None = None
        self._passes = 0

    @contextmanager
    def apart(self) -> Iterator[_Recorder]:
        """Records in evaluation mode too, and apart from what is recorded."""
        kept = self._recorded, self._passes
        self.forget()
        self.observing = True
        try:
            yield self
        finally:
            self.observing = False
            self._recorded, self._passes = kept

    @torch.compiler.disable(reason="make SAR(model) after its layers are wrapped, before it is compiled")
    def _watch(self, attn: nn.Module) -> None:
        for hook in self._taps:
            hook.remove()
        self._watched = makers(attn)
        self._taps = [layer.register_forward_hook(partial(self._take, part)) for part, layer in self._watched.items()]

    def _note_grid(self, embed: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._grid = self._key_grid or tuple(embed.dynamic_feat_size(args[0].shape[-2:]))

    def _before(self, attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._made = None
        if not (self.observing or (attn.training and torch.is_grad_enabled())):
            return
        if absorbable(attn):
            self._keep(scores(attn, args[0], rope=kwargs.get("rope"), **self._settings))
            return
        if any(self._watched.get(part) is not layer for part, layer in makers(attn).items()):
            self._watch(attn)  # it was wrapped after attach()
        self._made = {}

    def _take(self, part: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self._made is not None:
            self._made[part] = output

    def _after(self, attn: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if self._made is not None:
            made, self._made = self._made, None
            if len(made) < len(self._watched):
                raise ConfigError(
                    f"{type(attn).__name__} did not call its {', '.join(self._watched)}: sar.remove() before tracing"
                )
            self._keep(products(attn, made, rope=kwargs.get("rope"), **self._settings))

    def _keep(self, row: Tensor) -> None:
        if self._grid is None or _in_backward():
            # Gradient checkpointing runs the block again during the backward pass, and has to find the same operations.
            return
        self._recorded = (on_grid(row, self._grid), self._recorded)
        self._grid = None
        if torch.compiler.is_compiling():
            return  # each number of passes would be compiled for itself
        self._passes += 1
        if self._passes > FORGOTTEN:
            raise ConfigError(f"{FORGOTTEN} training forward passes without sar.loss(): call it after each, or use no_grad")

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles (of the model with its hooks, for a moving average say) leave the recorded graph behind."""
        # Of a hook whose module is gone, torch cannot copy the handle.
        handles = {
            name: [hook for hook in vars(self)[name] if hook.hooks_dict_ref() is not None] for name in ("hooks", "_taps")
        }
        return {**self.__dict__, **handles, "_recorded": None, "_passes": 0, "_grid": None, "_made": None}


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


def _in_backward() -> bool:
    # Compiled code is not asked: a checkpoint stops before that code could record once more.
    return not torch.compiler.is_compiling() and ModuleTracker().is_bw


def _is_compiled(block: nn.Module) -> bool:
    return block._compiled_call_impl is not None or hasattr(block, "_orig_mod")


def _embedding(host: nn.Module) -> nn.Module:
    """The layer that sees the images: a timm model's, or that of the first stage of a `sarlib.models.pyramid.Pyramid`."""
    return host.patch_embed if hasattr(host, "patch_embed") else host.stages[0].patch_embed


def _require_global_attention(host: nn.Module) -> None:
    name = type(host).__name__
    blocks = getattr(host, "blocks", None)
    attn = getattr(blocks[-1], "attn", None) if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks) else None
    # By their forward method: fully_shard and parametrisations make subclasses that keep it.
    known = getattr(type(attn), "forward", None) in [kind.forward for kind in GLOBAL_ATTENTION]
    if not (known or hasattr(attn, "attend")):
        found = "none" if attn is None else type(attn).__name__
        raise ConfigError(f"{name} has no last block with global attention of a known kind (found: {found}), which SAR needs")
    says_grid = hasattr(host, "key_grid") or hasattr(getattr(host, "patch_embed", None), "dynamic_feat_size")
    if not says_grid or not hasattr(host, "num_prefix_tokens"):
        raise ConfigError(f"{name} does not say how its tokens lie on a grid (patch_embed, num_prefix_tokens): SAR needs that")
    absorbable(attn)
