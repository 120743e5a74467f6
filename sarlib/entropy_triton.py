"""Equation 7 and its gradient in one launch on a GPU: connected components by shifts and masks on 64-bit words.

Two kernels share the arithmetic of `sarlib.entropy`: mean, comparison and excess in float64 as there, so that both see the same
components; masses, logarithms and gradient in the precision of the result. Neither uses atomics or scratch memory, nor does the
host wait for anything; two runs give the same bits.

Grids up to 16 x 16, `_small_maps`: under 8-connectivity the foreground pixels of a 2 x 2 block are always connected, so blocks
can stand for pixels and a map of 8 x 8 blocks is one 64-bit word. A component grows from its first block by shifting that word;
whether two neighbouring blocks touch is decided beforehand, by four more words. One warp holds as many maps as it has lanes for
their columns.

Grids up to 64 x 64, `_large_maps`: one word a row, one map a program. The price: for every component a pass over the whole map,
and a step with two exchanges between lanes for every row that the component's longest path goes up or down.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from sarlib.config import ConfigError

#: Lanes of the warp that a program of the small kernel is.
LANES = 32

#: Longest side, in tokens, of a grid whose 2 x 2 blocks fit a 64-bit word of 8 x 8 bits, and of one whose rows fit a word.
LARGEST_SMALL_GRID, LARGEST_GRID = 16, 64


def entropy_and_gradient(maps: Tensor, *, faintest: int) -> tuple[Tensor, Tensor]:
    """Maps (N, h, w) on a GPU, any strides, h and w up to 64: H (N,) and dH/dS (N, h, w), float32 (float64 for float64).

    A total excess up to `faintest` times the smallest normal number counts as none.
    """
    n, h, w = maps.shape
    if max(h, w) > LARGEST_GRID:
        raise ConfigError(f"the kernel takes grids up to {LARGEST_GRID} tokens a side, got {h} x {w}: unset SAR_ENTROPY")
    if maps.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ConfigError("SAR_ENTROPY=triton needs tensors on a CUDA device: unset it, or set TRITON_INTERPRET=1 as well")
    dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
    entropy = torch.empty(n, dtype=dtype, device=maps.device)
    gradient = torch.empty(n, h, w, dtype=dtype, device=maps.device)
    if n:
        kernel, constants, maps_per_program, warps = plan(h, w, dtype, faintest=faintest)
        programs = (triton.cdiv(n, maps_per_program),)
        with torch.cuda.device_of(maps):
            kernel[programs](maps, gradient, entropy, n, *maps.stride(), **constants, num_warps=warps)
    return entropy, gradient


def plan(h: int, w: int, dtype: torch.dtype, *, faintest: int) -> tuple[JITFunction, dict[str, object], int, int]:
    """For grids of h x w with results in `dtype`: the kernel, what is fixed at its compilation, maps a program, and warps."""
    finfo = torch.finfo(dtype)
    double = dtype == torch.float64
    limits = {"FAINTEST": faintest * finfo.tiny, "SMALLEST": finfo.tiny, "LARGEST": finfo.max, "DOUBLE": double}
    if max(h, w) <= LARGEST_SMALL_GRID:
        rows, columns = triton.next_power_of_2((h + 1) // 2), triton.next_power_of_2((w + 1) // 2)
        maps = LANES // columns
        return _small_maps, {"h": h, "w": w, "MAPS": maps, "ROWS": rows, "COLUMNS": columns, **limits}, maps, 1
    rows, columns = triton.next_power_of_2(h), triton.next_power_of_2(w)
    pixels = rows * columns
    warps = 1 if pixels <= 1024 else pixels // 512  # what fits the registers; one warp needs no barriers
    return _large_maps, {"h": h, "w": w, "ROWS": rows, "COLUMNS": columns, **limits}, 1, warps


@triton.jit
def _excess(x, mean, inside):
    """Equation 5 in float64, and where it is positive."""
    foreground = inside & (x.to(tl.float64) > mean)
    return tl.where(foreground, x.to(tl.float64) - mean, 0.0), foreground


@triton.jit
def _ratio(a, b, DOUBLE: tl.constexpr):
    """a / b rounded to nearest, so that a mass divided by itself is 1 and its logarithm 0."""
    if DOUBLE:
        return a / b
    else:
        return tl.math.div_rn(a.to(tl.float32), b.to(tl.float32))


@triton.jit
def _log_ratio(mass, first, SMALLEST: tl.constexpr, DOUBLE: tl.constexpr):
    """log(mass / first), to the last digits also where the two are nearly equal.

    There log(1 + x) = log(u) x / (u - 1) with u = 1 + x rounded: the rounding of u cancels. Where masses are nearly equal,
    the gradient is nothing but this difference.
    """
    x = _ratio(mass - first, first, DOUBLE)
    near = tl.abs(x) < 0.5
    u = 1 + x
    log = tl.log(tl.where(near, u, tl.maximum(_ratio(mass, first, DOUBLE), SMALLEST)))
    return tl.where(near, tl.where(u == 1, x, log * _ratio(x, u - 1, DOUBLE)), log)


@triton.jit
def _settled(entropy, total, mean, FAINTEST: tl.constexpr, LARGEST: tl.constexpr, DOUBLE: tl.constexpr):
    """Entropy and 1 / total, both 0 for a map too faint to have an entropy, both NaN for a broken one."""
    faint = total <= FAINTEST
    broken = ~((mean - mean) + total <= LARGEST)
    inverse = _ratio(tl.full(total.shape, 1.0, tl.float64), total, DOUBLE)
    nan = float("nan")
    return tl.where(broken, nan, tl.where(faint, 0.0, entropy)), tl.where(broken, nan, tl.where(faint, 0.0, inverse))


@triton.jit
def _word(flags, bit):
    """Flags of blocks, [ROWS, MAPS, COLUMNS], as one word a map, [MAPS]: of disjoint bits the sum is the union."""
    return tl.sum(tl.sum(tl.where(flags, bit, 0), 0), 1)


@triton.jit
def _grown(R, left, above, above_left, above_right):
    """The blocks R and those that touch them; bit b of the other words says that block b touches its neighbour on that side."""
    R |= ((R << 1) & left) | ((R & left) >> 1)
    R |= ((R << 8) & above) | ((R & above) >> 8)
    R |= ((R << 9) & above_left) | ((R & above_left) >> 9)
    R |= ((R << 7) & above_right) | ((R & above_right) >> 7)
    return R


@triton.jit
def _small_maps(
    S, G, H, n, stride_map, stride_row, stride_column,
    h: tl.constexpr, w: tl.constexpr, MAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FAINTEST: tl.constexpr, SMALLEST: tl.constexpr, LARGEST: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """MAPS maps a program, in tensors [ROWS, MAPS, COLUMNS] of 2 x 2 blocks: columns and maps over lanes, rows in registers."""
    which = tl.program_id(0).to(tl.int64) * MAPS + tl.arange(0, MAPS)
    row = 2 * tl.arange(0, ROWS)[:, None, None]
    column = 2 * tl.arange(0, COLUMNS)[None, None, :]
    exists = (which < n)[None, :, None]
    in0 = exists & (row < h) & (column < w)
    in1 = in0 & (column + 1 < w)
    in2 = in0 & (row + 1 < h)
    in3 = in1 & in2

    at = S + which[None, :, None] * stride_map + row * stride_row + column * stride_column
    x0 = tl.load(at, mask=in0, other=0.0)
    x1 = tl.load(at + stride_column, mask=in1, other=0.0)
    x2 = tl.load(at + stride_row, mask=in2, other=0.0)
    x3 = tl.load(at + stride_row + stride_column, mask=in3, other=0.0)
    quads = (x0.to(tl.float64) + x1.to(tl.float64)) + (x2.to(tl.float64) + x3.to(tl.float64))
    mean = tl.sum(tl.sum(quads, 0), 1) / (h * w)

    centre = mean[None, :, None]
    b0, f0 = _excess(x0, centre, in0)
    b1, f1 = _excess(x1, centre, in1)
    b2, f2 = _excess(x2, centre, in2)
    b3, f3 = _excess(x3, centre, in3)
    surplus = (b0 + b1) + (b2 + b3)
    total = tl.sum(tl.sum(surplus, 0), 1)

    place = (4 * row + column // 2).to(tl.uint64)  # block (r, c) is bit 8 r + c
    bit = tl.full([1, 1, 1], 1, tl.uint64) << place
    w0, w1, w2, w3 = _word(f0, bit), _word(f1, bit), _word(f2, bit), _word(f3, bit)
    first_column = tl.full([1], 0x0101010101010101, tl.uint64)
    left = (w0 | w2) & ((w1 | w3) << 1) & ~first_column
    above = (w0 | w1) & ((w2 | w3) << 8)
    above_left = w0 & (w3 << 9) & ~first_column
    above_right = w1 & (w2 << 7) & ~(first_column << 7)

    rest = (w0 | w1) | (w2 | w3)
    calculated: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    first = tl.zeros_like(total)  # mass of the first component: what the other logarithms are relative to
    entropy = tl.zeros_like(total)
    average_log = tl.zeros(total.shape, calculated)
    log = tl.zeros(surplus.shape, calculated)
    while tl.max((rest != 0).to(tl.int32), 0) > 0:  # one component of every map a turn
        R = rest & (~rest + 1)
        growing = 1
        while growing > 0:
            grown = _grown(R, left, above, above_left, above_right)
            growing = tl.max((grown != R).to(tl.int32), 0)
            R = grown
        rest &= ~R
        member = ((R[None, :, None] >> place) & 1) != 0
        mass = tl.sum(tl.sum(tl.where(member, surplus, 0.0), 0), 1)
        first = tl.where(first > 0, first, mass)
        share = _ratio(mass, total, DOUBLE)
        relative = _log_ratio(mass, first, SMALLEST, DOUBLE)
        entropy -= tl.where(R != 0, share * tl.log(tl.maximum(share, SMALLEST)), 0.0)
        average_log += tl.where(R != 0, share * relative, 0.0)
        log = tl.where(member, relative[None, :, None], log)

    entropy, inverse = _settled(entropy, total, mean, FAINTEST, LARGEST, DOUBLE)
    slope = (average_log[None, :, None] - log) * inverse[None, :, None]
    g0, g1 = tl.where(f0, slope, 0.0), tl.where(f1, slope, 0.0)
    g2, g3 = tl.where(f2, slope, 0.0), tl.where(f3, slope, 0.0)
    average = tl.sum(tl.sum((g0 + g1) + (g2 + g3), 0), 1) / (h * w)
    average = tl.where(entropy == entropy, average, entropy)[None, :, None]  # NaN throughout a broken map
    to = G + which[None, :, None] * (h * w) + row * w + column
    tl.store(to, g0 - average, mask=in0)
    tl.store(to + 1, g1 - average, mask=in1)
    tl.store(to + w, g2 - average, mask=in2)
    tl.store(to + w + 1, g3 - average, mask=in3)
    tl.store(H + which, entropy, mask=which < n)


@triton.jit
def _spread(R, words, COLUMNS: tl.constexpr):
    """The pixels R of each row and all that a row's foreground joins to them, by doubling distances."""
    upwards = words
    downwards = words
    for doubling in tl.static_range(6):
        if (1 << doubling) < COLUMNS:
            R |= ((R << (1 << doubling)) & upwards) | ((R >> (1 << doubling)) & downwards)
            upwards &= upwards << (1 << doubling)
            downwards &= downwards >> (1 << doubling)
    return R


@triton.jit
def _large_maps(
    S, G, H, n, stride_map, stride_row, stride_column,
    h: tl.constexpr, w: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FAINTEST: tl.constexpr, SMALLEST: tl.constexpr, LARGEST: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """One map a program. Tensors are [COLUMNS, ROWS]: rows over the lanes, so that each lane holds the words of its rows."""
    which = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)[:, None]
    rows = tl.arange(0, ROWS)
    row = rows[None, :]
    inside = (row < h) & (column < w)
    x = tl.load(S + which * stride_map + row * stride_row + column * stride_column, mask=inside, other=0.0)
    mean = tl.sum(tl.sum(x.to(tl.float64), 0), 0) / (h * w)
    surplus, foreground = _excess(x, mean, inside)
    total = tl.sum(tl.sum(surplus, 0), 0)

    bit = tl.full([1, 1], 1, tl.uint64) << column.to(tl.uint64)
    words = tl.sum(tl.where(foreground, bit, 0), 0)
    rest = words
    calculated: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    first = tl.zeros_like(total)  # mass of the first component: what the other logarithms are relative to
    entropy = tl.zeros_like(total)
    average_log = tl.zeros(total.shape, calculated)
    log = tl.zeros(surplus.shape, calculated)
    while tl.max((rest != 0).to(tl.int32), 0) > 0:  # one component a turn
        top = tl.min(tl.where(rest != 0, rows, ROWS), 0)
        R = tl.where(rows == top, rest & (~rest + 1), 0)
        growing = 1
        while growing > 0:
            grown = R | tl.where(rows > 0, tl.gather(R, tl.maximum(rows - 1, 0), 0), 0)
            grown |= tl.where(rows + 1 < ROWS, tl.gather(R, tl.minimum(rows + 1, ROWS - 1), 0), 0)
            grown = _spread((grown | (grown << 1) | (grown >> 1)) & words, words, COLUMNS)
            growing = tl.max((grown != R).to(tl.int32), 0)
            R = grown
        rest &= ~R
        member = ((R[None, :] >> column.to(tl.uint64)) & 1) != 0
        mass = tl.sum(tl.sum(tl.where(member, surplus, 0.0), 0), 0)
        first = tl.where(first > 0, first, mass)
        share = _ratio(mass, total, DOUBLE)
        relative = _log_ratio(mass, first, SMALLEST, DOUBLE)
        entropy -= share * tl.log(tl.maximum(share, SMALLEST))
        average_log += share * relative
        log = tl.where(member, relative, log)

    entropy, inverse = _settled(entropy, total, mean, FAINTEST, LARGEST, DOUBLE)
    slope = tl.where(foreground, (average_log - log) * inverse, 0.0)
    average = tl.sum(tl.sum(slope, 0), 0) / (h * w)
    average = tl.where(entropy == entropy, average, entropy)
    tl.store(G + which * (h * w) + row * w + column, slope - average, mask=inside)
    tl.store(H + which, entropy)
