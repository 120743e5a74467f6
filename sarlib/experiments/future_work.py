"""What the paper leaves to future work and claims nothing about: networks without class token, larger ones, and video."""

from __future__ import annotations

import dataclasses

from sarlib.config import Data
from sarlib.data.clips import DAVIS
from sarlib.experiments.claims import Contrast, difference
from sarlib.experiments.declaration import Cell, Setting, Table, trained
from sarlib.experiments.settings import Sets
from sarlib.tasks.metrics import MAIN_METRICS

POOL, SIZE, VIDEO, MOVING = "future-pool", "future-size", "future-video", "future-davis"
TOKEN, AVERAGE = "class token", "average pool"
SIZES = ("small", "medium", "large")
REAL = 2  # sets of photographs that join
BASELINE, BLOCK, BY_FRAME, OVER_TIME = "ViT", "SAR's block", "+ loss by frame", "+ loss over the clip"


def declare(sets: Sets) -> Table:
    """The smallest subsets of the first two real sets join the networks without class token. Where DAVIS lies below DATA, it is
    shown to the networks with one that were trained on these (at `paper` on IN-100), frame by frame."""
    sized, clips = sets.setting(sets.preset.sized), sets.setting(sets.preset.clips)
    photographs = [subsets[0] for subsets in sets.real()[:REAL]]
    pooled = [sized, *photographs]
    shown_davis = photographs or ([sized] if sets.preset.real is None else [])
    sizes = {name: _size(sized, *size) for name, size in zip(SIZES, sets.preset.sizes, strict=True)}
    return trained(
        "future",
        title="What the paper leaves to future work",
        cells=(
            *(cell for each in pooled for kind in _pools(each).items() for cell in _with_sar(POOL, *kind)),
            *(cell for name, each in sizes.items() for cell in _with_sar(SIZE, name, each)),
            *_video(clips, weight=sets.preset.clips_weight),
            *_davis(sets, shown_davis),
        ),
        contrasts=(
            *(_gains(POOL, AVERAGE, TOKEN, each.dataset) for each in pooled),
            _gains(SIZE, SIZES[-1], SIZES[0], sized.dataset),
            difference(OVER_TIME, BY_FRAME, table=VIDEO, dataset=clips.dataset),
            difference(BY_FRAME, BLOCK, table=VIDEO, dataset=clips.dataset),
            difference(OVER_TIME, BLOCK, table=VIDEO, dataset=clips.dataset),
        ),
        leads=(*MAIN_METRICS, "clip_entropy"),
        shown=("parameters",),
    )


def _with_sar(table: str, name: str, setting: Setting) -> list[Cell]:
    return setting.cells(table, {name: setting.row("A"), f"{name} + SAR": setting.row("F")})


def _gains(table: str, name: str, than: str, dataset: str) -> Contrast:
    """What SAR adds to one kind of network, minus what it adds to another."""
    signs = {f"{name} + SAR": 1, name: -1, f"{than} + SAR": -1, than: 1}
    return Contrast(f"gain of {name} - gain of {than}", tuple((sign, table, row, dataset) for row, sign in signs.items()))


def _pools(setting: Setting) -> dict[str, Setting]:
    average = dataclasses.replace(setting.baseline.model, pool="avg")
    return {TOKEN: setting, AVERAGE: setting.with_parts(model=average)}


def _size(setting: Setting, dim: int, depth: int, heads: int) -> Setting:
    """One recipe and one stochastic depth for all sizes: what differs is the size."""
    return setting.with_parts(model=dataclasses.replace(setting.baseline.model, dim=dim, depth=depth, heads=heads))


def _video(setting: Setting, *, weight: float) -> list[Cell]:
    """The loss of every frame's map, and the loss of the clip's volume, at the same weight."""
    by_frame = dataclasses.replace(setting.regularizer, weight=weight)
    over_time = dataclasses.replace(by_frame, name="space_time_entropy")
    losses = {BY_FRAME: setting.regularized(by_frame), OVER_TIME: setting.regularized(over_time)}
    return setting.cells(VIDEO, {BASELINE: setting.row("A"), BLOCK: setting.row("C")} | losses)


def _davis(sets: Sets, settings: list[Setting]) -> list[Cell]:
    """Measured at the size that a network was trained with."""
    if not (sets.root / DAVIS).is_dir() if sets.root else DAVIS not in sets.known:
        return []
    cells = []
    for each in settings:
        data = Data(name=DAVIS, image_size=each.baseline.data.image_size, frames=sets.preset.clips.data.frames)
        shown = dataclasses.replace(each, dataset=f"{DAVIS}, trained on {each.dataset}")
        cells += [cell.measured("clips", data=sets.identified(data)) for cell in _with_sar(MOVING, BASELINE, shown)]
    return cells
