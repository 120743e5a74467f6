"""What a step of a training is made of, and what has to be there before the first: public, for benchmarks too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sarlib import tasks
from sarlib.config import Recipe
from sarlib.last_block import query_key_gradient
from sarlib.run import Run
from sarlib.tasks.task import Task
from sarlib.trainer.distributed import ALONE, Ranks

#: What the history calls the norms of the gradients of the task's loss and of the regularizers', unweighted.
GRADIENTS = ("gradient_task", "gradient_regularizer", "gradient_second")


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the random numbers called `names` of the run with `seed`; different names give unrelated streams."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def untrained(run: Run, *, classes: int, device: torch.device) -> Task:
    """The task of a run from its seed. Rows that share a seed share the initial weights of all parameters that they share."""
    torch.manual_seed(stream(run.seed, "initialisation"))
    return tasks.create(run, classes).to(device)


def build_optimizer(task: Task, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, with the parameter groups that the task names."""
    return torch.optim.AdamW(task.param_groups(recipe.weight_decay), lr=recipe.lr, betas=recipe.betas, fused=True)


def parallel(task: Task, *, device: torch.device, ranks: Ranks, compiled: bool) -> nn.Module:
    """`task` as a step calls it: its gradients averaged over processes where there are several, compiled where `compiled`."""
    if ranks.size > 1:
        own = [device] if device.type == "cuda" else None
        task = DistributedDataParallel(task, device_ids=own, gradient_as_bucket_view=True)
    if compiled:
        # The first step of an epoch looks at gradients before its backward pass, which therefore may not reuse their buffers.
        torch._functorch.config.donated_buffer = False
        task = torch.compile(task)
    return task


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def backward(
    task: nn.Module,
    batch: Sequence[Tensor],
    *,
    weights: Sequence[float],
    micro_batches: int = 1,
    ranks: Ranks = ALONE,
    note: Callable[[dict[str, float]], None] | None = None,
) -> Tensor:
    """Leaves the gradient of the weighted losses of a batch in the parameters; returns the losses, as `Task.forward` does.

    task: a `Task`, or what `parallel` made of it. weights: of its regularizers. The micro-batches follow one another, each
    weighted so that their sum is the mean over the batch; processes exchange gradients with the last one. `note` gets the norms
    of the gradients of the first micro-batch.
    """
    total = torch.zeros(1 + len(weights), device=batch[0].device)
    for i, micro_batch in enumerate(zip(*(part.chunk(micro_batches) for part in batch), strict=True)):
        with task.no_sync() if ranks.size > 1 and i < micro_batches - 1 else nullcontext():
            losses = task(*micro_batch)
            if note is not None and i == 0:
                note(gradient_norms(task, losses))
            weighted = losses[0]
            for loss, weight in zip(losses[1:], weights, strict=True):
                weighted = weighted + weight * loss
            (weighted / micro_batches).backward()
        total += losses.detach() / micro_batches
    return total


def gradient_norms(task: nn.Module, losses: Tensor) -> dict[str, float]:
    """Norms of the losses' gradients on the last block's query and key rows, where they meet; of unweighted losses."""
    task = getattr(task, "_orig_mod", task)
    model = getattr(task, "module", task).model
    return {name: query_key_gradient(model, loss).norm().item() for name, loss in zip(GRADIENTS, losses)}


def clip(task: Task, limit: float | None) -> Tensor:
    """Scales the gradient, or each parameter's where the task says so, down to a norm of at most `limit`; returns the norm of
    all before that, (1,)."""
    clipped = [parameter for parameter in task.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in clipped])
    if limit is not None and task.clips_each:
        for parameter in clipped:
            nn.utils.clip_grads_with_norm_(parameter, limit, parameter.grad.norm())
    elif limit is not None:
        nn.utils.clip_grads_with_norm_(clipped, limit, norm)
    return norm[None].float()


def update_ema(ema: nn.Module, task: nn.Module, *, decay: float) -> None:
    """Moves the averaged parameters by 1 - decay towards the task's; buffers (running statistics) are taken as they are."""
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(task.parameters()), 1.0 - decay)
        for mine, current in zip(ema.buffers(), task.buffers(), strict=True):
            mine.copy_(current)
