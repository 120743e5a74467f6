"""Every regularizer of a run, one module each: SAR's loss and the baselines beside it (Table 3, section 4.3, appendix).

A regularizer takes the `sarlib.last_block.Output` of a batch and returns one scalar to be minimised, a mean over the batch, so
that the average over equal shards is the value of the whole (DRLoc: for the same pairs). Everything is calculated in float32
whatever the input and the autocast (float64 for float64). What has no contrast (equal values in a map, a head whose output is
0) has gradient 0. On a GPU nothing waits for the host.

Two regularizers beside each other, as SAR and DRLoc, are two modules, each with a weight of its own (`schedules.loss_weight`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarlib import config
from sarlib.config import ConfigError
from sarlib.config.learning import source_of
from sarlib.entropy import FAINTEST, at_least_float32, excess, spatial_entropy
from sarlib.last_block import Output

#: Cycle-back regression: the weight of log variance, and what keeps a variance above 0. Both as Liu et al. released them.
VARIANCE_WEIGHT = 0.001
SMALLEST_VARIANCE = 1e-8


def create(regularizer: config.Regularizer, *, dim: int, heads: int, grid: tuple[int, int]) -> nn.Module:
    """The module of a declared regularizer, unweighted. Parameters are drawn from torch's global random state.

    The model's last block has `dim` channels, `heads` heads and patch tokens on a `grid` (h, w). The module's `needs_tokens`
    says whether it reads `Output.tokens`, for which the last block has to be computed for all tokens.
    A name with a colon is a function of S of your own, "module:function".
    Raises `ConfigError` for a grid without distances (DRLoc), a single head (disagreement), or a function that is not there or
    was edited since it was declared.
    """
    if regularizer.name == "drloc":
        return DRLoc(dim=dim, grid=grid, pairs=regularizer.pairs, mode=regularizer.mode, hidden=regularizer.hidden)
    if regularizer.name == "disagreement" and heads < 2:
        raise ConfigError(f"disagreement is between heads, and the last block has {heads}: give it two or more")
    if ":" in regularizer.name:
        return OfField("similarity", _imported(regularizer))
    return OfField(*FUNCTIONS[regularizer.name])


#: The file's digest of each module with somebody's own function, as this process has it.
_LOADED: dict[str, str] = {}


def _imported(regularizer: config.Regularizer) -> Callable[[Tensor], Tensor]:
    """Somebody's own function of S (B, H, h, w), "module:function", importable where the run is trained: as its file is now,
    for a notebook may have edited it since it was first imported, and as it was declared."""
    (module, _, function), source = regularizer.name.partition(":"), source_of(regularizer.name)
    try:
        loaded = sys.modules.get(module)
        if loaded is None:
            loaded = importlib.import_module(module)
        elif _LOADED.get(module) != source:
            loaded = importlib.reload(loaded)
        _LOADED[module], found = source, getattr(loaded, function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the regularizer {regularizer.name!r} cannot be imported ({error}): put {module}.py where Python is started"
        ) from error
    edited = f"{module}.py was edited since the regularizer {regularizer.name!r} was declared: declare the run again"
    config.require(regularizer.source == source, edited)
    return found


class OfField(nn.Module):
    """A regularizer without parameters: a function of one field of the model's output."""

    needs_tokens = False

    def __init__(self, field: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.field, self.function = field, function

    def forward(self, output: Output) -> Tensor:
        return self.function(getattr(output, self.field))


def total_variation(similarity: Tensor) -> Tensor:
    """Total variation of S (B, H, h, w), tried beside L_se: half the squared differences between neighbours, summed over a map.

    The mean over batch and heads. Neighbours share an edge. Unlike the entropy it depends on the scale of S.
    """
    maps = at_least_float32(similarity)
    return 0.5 * (maps.diff(dim=-2).square().sum((-2, -1)) + maps.diff(dim=-1).square().sum((-2, -1))).mean()


def disagreement(heads: Tensor) -> Tensor:
    """Disagreement of outputs (Li et al. 2018): mean cosine similarity of two different heads, from -1 / (H - 1) to 1.

    heads: (B, H, d), what each head gives the class token, before the output projection. Minimising makes the heads differ.

    The authors' released variant joins the outputs of all tokens into one vector per head. Here it is the class token's alone,
    the row that S belongs to and that the classifier reads: what heads give the patch tokens stays free, heads may no longer
    differ there only, and the last block need not be computed for all tokens.
    """
    heads = at_least_float32(heads)
    norm = torch.linalg.vector_norm(heads, dim=-1, keepdim=True)
    units = heads / torch.where(norm > torch.finfo(norm.dtype).tiny, norm, torch.inf)
    count = heads.shape[-2]
    # |sum of units|^2 holds the cosine of every ordered pair, and every head's with itself.
    ordered_pairs = units.sum(-2).square().sum(-1) - units.square().sum((-2, -1))
    return (ordered_pairs / (count * (count - 1))).mean()


def attention(similarity: Tensor) -> Tensor:
    """softmax(S) over the patch tokens: (..., h, w) -> (..., h, w), every map sums to 1.

    The class token's own score is left out: in the layer's softmax it takes its share of the attention and leaves the same map,
    scaled down.
    """
    return similarity.flatten(-2).softmax(-1).unflatten(-1, similarity.shape[-2:])


def softmax_entropy(similarity: Tensor) -> Tensor:
    """Equation 9 after the softmax of Equation 3: the choice section 4.3 argues against, because it is minimised by cheating.

    Scaling S (B, H, h, w) up concentrates the softmax on its largest value, whatever the rest looks like: one component of one
    token, entropy 0.
    """
    return spatial_entropy(attention(at_least_float32(similarity)))


def space_time_entropy(similarity: Tensor) -> Tensor:
    """Equation 9 of clips S (B, H, T, h, w): components reach over frames, which `spatial_entropy` takes one by one."""
    return spatial_entropy(similarity, axes=3)


def pixel_entropy(similarity: Tensor) -> Tensor:
    """L_se without its space: -sum p log p over the tokens, p = B / sum(B) with B the excess of Equation 5; in nats.

    S (B, H, h, w); the mean over batch and heads. It differs from Equations 7-9 in one thing, that every token is a component
    of its own: moving tokens about changes nothing. By the chain rule it is the spatial entropy plus the entropy within each
    component times P(C_j), so it prefers few, uneven tokens where the spatial entropy prefers few components of any size.
    What SAR gains over it is due to connectedness.
    """
    surplus = excess(similarity).flatten(-2)
    total = surplus.sum(-1, keepdim=True)
    # As in sarlib.entropy, a contrast too faint for its gradient to be followed is none.
    share = surplus / torch.where(total <= FAINTEST * torch.finfo(total.dtype).tiny, torch.inf, total)
    return -(share * torch.where(share == 0, 1, share).log()).sum(-1).mean()


#: The regularizers without parameters: which field of the output each reads, and the function of it.
FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "spatial_entropy": ("similarity", spatial_entropy),
    "total_variation": ("similarity", total_variation),
    "disagreement": ("heads", disagreement),
    "softmax_entropy": ("similarity", softmax_entropy),
    "pixel_entropy": ("similarity", pixel_entropy),
    "space_time_entropy": ("similarity", space_time_entropy),
}


def cycle_back(logits: Tensor, target: Tensor) -> Tensor:
    """Regression by way of bins (Dwibedi et al. 2019): (mean - target)^2 / variance + 0.001 log variance of the bins' softmax.

    logits: (N, bins); target: (N,), the number of a bin. Returns the mean over N.
    """
    bins = torch.arange(logits.shape[-1], device=logits.device)
    probability = logits.softmax(-1)
    mean = (probability * bins).sum(-1)
    variance = (probability * (bins - mean[:, None]).square()).sum(-1) + SMALLEST_VARIANCE
    return ((mean - target).square() / variance + VARIANCE_WEIGHT * variance.log()).mean()


#: DRLoc's modes that have an output for every distance, and what compares those with the true one.
CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": F.cross_entropy, "cycle_back": cycle_back}


class DRLoc(nn.Module):
    """Dense relative localisation (Liu et al. 2021): how far apart are two tokens, judged by their final embeddings?

    In every image `pairs` pairs of grid positions are drawn uniformly, with replacement, from torch's global generator. The two
    embeddings, one after the other, go through a perceptron 2 dim - `hidden` - `hidden` (512, published) with ReLU, whose
    output depends on `mode`:

    l1: two numbers, against |dy| / (h - 1) and |dx| / (w - 1); the mean absolute error over images, pairs and both axes.
    cross_entropy: per axis a class for each distance in tokens; the mean over images and pairs, the axes summed.
    cycle_back: the same outputs, compared by `cycle_back`.

    The sources differ. Liu et al.'s paper divides by k (its Equation 1) and sums the axes; their released code averages the
    axes, and its models leave its option to divide by k - 1 off, so that they regress distances in tokens: multiply the weight
    by k - 1 for that strength. Distances are absolute, as its training script asks; the paper's classes are signed. Their
    classifiers have one more linear layer without activation, and they average the 14 x 14 tokens of T2T and CvT to 7 x 7
    first: here tokens are taken as they are, after the model's final norm.
    """

    needs_tokens = True

    def __init__(self, *, dim: int, grid: tuple[int, int], pairs: int = 32, mode: str = "l1", hidden: int = 512) -> None:
        """dim: channels of a token; grid: (h, w) in tokens. `ConfigError` for a side of one token: nothing is apart
        along it."""
        super().__init__()
        if min(grid) < 2:
            raise ConfigError(
                f"DRLoc needs two tokens a side or more to tell distances, got {grid[0]} x {grid[1]}: use smaller patches"
            )
        self.grid, self.pairs, self.mode = grid, pairs, mode
        outputs = 2 if mode == "l1" else sum(grid)
        self.mlp = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )
        self.register_buffer("longest", torch.tensor([float(side - 1) for side in grid]), persistent=False)

    def forward(self, output: Output) -> Tensor:
        images, tokens, _ = output.tokens.shape
        pairs = torch.randint(tokens, (images, self.pairs, 2), device=output.tokens.device)
        return self.localization(output.tokens, pairs)

    def localization(self, tokens: Tensor, pairs: Tensor) -> Tensor:
        """The loss of given pairs: tokens (B, h * w, dim) in raster order, pairs (B, m, 2) of their numbers -> scalar."""
        image = torch.arange(len(tokens), device=tokens.device)[:, None, None]
        joined = at_least_float32(tokens[image, pairs].flatten(-2))
        with torch.autocast(tokens.device.type, enabled=False):
            predicted = self.mlp(joined)
        distances = self.distances(pairs)
        if self.mode == "l1":
            return F.l1_loss(predicted, distances / self.longest)
        axes = zip(predicted.split(self.grid, dim=-1), distances.unbind(-1), strict=True)
        return sum(CRITERIA[self.mode](logits.flatten(0, 1), distance.flatten()) for logits, distance in axes)

    def distances(self, pairs: Tensor) -> Tensor:
        """|dy| and |dx| in tokens: pairs (B, m, 2) -> (B, m, 2), int64."""
        width = self.grid[1]
        return torch.stack([pairs // width, pairs % width], dim=-1).diff(dim=-2).squeeze(-2).abs()
