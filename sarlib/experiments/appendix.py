"""The appendix: SAR's loss beside other regularisers of the same block, and what becomes of the entropy of the softmaxed map."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib.config import Regularizer
from sarlib.experiments.claims import Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.in100 import in100
from sarlib.experiments.presets import Preset
from sarlib.run import Run

TITLE = "Other regularisers, and the collapse of the softmaxed map"
LOSSES, COLLAPSE = "appendix-losses", "appendix-collapse"
NO_LOSS = "no loss"
#: Row label: regulariser. All act on SAR's block (row C of Table 1c) and have SAR's schedule.
REGULARIZERS = {
    "spatial entropy": "spatial_entropy",
    "pixel entropy": "pixel_entropy",
    "softmax entropy": "softmax_entropy",
    "total variation": "total_variation",
    "disagreement": "disagreement",
}
#: The text gives no weight for the alternatives: each is tried at SAR's and at ten times it, SAR's loss too. Total variation is a sum over
#: all neighbours of a map, more than a hundred, where the others do not grow with it: a smaller weight is fair to it.
SAR_WEIGHT = 0.01
WEIGHTS = dict.fromkeys(REGULARIZERS, (SAR_WEIGHT, 0.1)) | {"total variation": (0.001, SAR_WEIGHT)}
#: Section 4.3 describes what happens where the entropy is minimised in earnest: here it weighs as much as the cross entropy, throughout.
COLLAPSE_LOSSES = ("softmax entropy", "spatial entropy")
COLLAPSE_WEIGHT = 1.0


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """The appendix's comparison at `preset`, on the setting of Table 1. It states no claim of the paper's that its runs could test."""
    setting = in100(preset, root)
    return Experiment(
        name="appendix",
        title=TITLE,
        preset=preset.name,
        cells=(*_losses(setting), *_collapse(setting)),
        seeds=seeds,
        tests=(),
        contrasts=_sar_against(setting),
        data_root=root,
    )


def _losses(setting: Setting) -> list[Cell]:
    cells = [Cell(table=LOSSES, row=NO_LOSS, dataset=setting.dataset, run=setting.row("C"))]
    for name in REGULARIZERS:
        for weight in WEIGHTS[name]:
            regularizer = dataclasses.replace(setting.regularizer, name=REGULARIZERS[name], weight=weight)
            run = _with(setting, regularizer)
            cells.append(Cell(table=LOSSES, row=_label(name, weight), dataset=setting.dataset, run=run, baseline=NO_LOSS))
    return cells


def _collapse(setting: Setting) -> list[Cell]:
    cells = [Cell(table=COLLAPSE, row=NO_LOSS, dataset=setting.dataset, run=setting.row("C"))]
    for name in COLLAPSE_LOSSES:
        run = _with(setting, Regularizer(name=REGULARIZERS[name], weight=COLLAPSE_WEIGHT))
        cells.append(
            Cell(table=COLLAPSE, row=_label(name, COLLAPSE_WEIGHT), dataset=setting.dataset, run=run, baseline=NO_LOSS)
        )
    return cells


def _with(setting: Setting, regularizer: Regularizer) -> Run:
    return dataclasses.replace(setting.row("C"), regularizers=(regularizer,))


def _label(name: str, weight: float) -> str:
    return f"{name}, λ = {weight:g}"


def _sar_against(setting: Setting) -> tuple[Contrast, ...]:
    """SAR's loss at its weight minus each other one at each of its weights."""
    sar, *others = REGULARIZERS
    return tuple(
        Contrast(
            f"{sar} - {_label(other, weight)}",
            ((1, LOSSES, _label(sar, SAR_WEIGHT), setting.dataset), (-1, LOSSES, _label(other, weight), setting.dataset)),
        )
        for other in others
        for weight in WEIGHTS[other]
    )
