"""Table 3: shares of IN-100, without SAR, with its rival DRLoc, with SAR, and with both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sarlib import data as datasets
from sarlib.experiments.claims import ClaimTest, Contrast
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.experiments.in100 import in100
from sarlib.experiments.presets import Preset
from sarlib.experiments.real import low_data_settings
from sarlib.run import Run

TITLE = "Training on shares of a data set"
BASELINE, DRLOC, SAR, BOTH = "ViT", "ViT + DRLoc", "ViT + SAR", "ViT + SAR + DRLoc"
#: What is compared beside each row with the baseline.
PAIRS = ((SAR, DRLOC), (BOTH, SAR), (BOTH, DRLOC))
#: Per cent of the training images.
SHARES = (25, 50, 75, 100)


def declare(preset: Preset, *, seeds: tuple[int, ...], root: Path | None) -> Experiment:
    """Table 3 at `preset`. At presets with embedded data, shares of the smallest subset of each real set below `root` join.

    Every share is trained for as many epochs as the whole, as in the paper: a smaller share sees fewer steps.
    """
    main, *others = ({share: _share(setting, share, root) for share in SHARES} for setting in _wholes(preset, root))
    chosen = [setting for shares in (main, *others) for setting in shares.values()]
    return Experiment(
        name="table3",
        title=TITLE,
        preset=preset.name,
        cells=tuple(
            Cell(table="table3", row=row, dataset=setting.dataset, run=run, baseline=None if row == BASELINE else BASELINE)
            for setting in chosen
            for row, run in _rows(setting).items()
        ),
        seeds=seeds,
        tests=_claims(main),
        contrasts=tuple(_better(row, than, setting) for setting in chosen for row, than in PAIRS),
        data_root=root,
    )


def _wholes(preset: Preset, root: Path | None) -> list[Setting]:
    """What the shares are of: IN-100 or what stands in for it, then the smallest of each real set's subsets."""
    smallest = {setting.baseline.data.name: setting for setting in reversed(low_data_settings(preset, root))}
    return [in100(preset, root), *smallest.values()]


def _share(setting: Setting, share: int, root: Path | None) -> Setting:
    """The setting on `share` per cent of its images; the whole is the same run as in other tables."""
    data = setting.baseline.data
    whole = data.train_size or datasets.inspect(data.name, root=root)[0]
    size = round(whole * share / 100)
    smaller = data if share == 100 else dataclasses.replace(data, train_size=size)
    return dataclasses.replace(
        setting,
        dataset=f"{setting.baseline.data.name}, {size} images ({share} %)",
        baseline=dataclasses.replace(setting.baseline, data=smaller),
    )


def _rows(setting: Setting) -> dict[str, Run]:
    return {BASELINE: setting.row("A"), DRLOC: setting.drloc(), SAR: setting.row("F"), BOTH: setting.drloc(with_sar=True)}


def _better(row: str, than: str, setting: Setting) -> Contrast:
    dataset = setting.dataset
    return Contrast(
        f"{row} - ({than})" if "+" in than else f"{row} - {than}", ((1, "table3", row, dataset), (-1, "table3", than, dataset))
    )


def _claims(shares: dict[int, Setting]) -> tuple[ClaimTest, ...]:
    order = tuple(
        dataclasses.replace(contrast, label=f"{contrast.label} at {share} %")
        for share, setting in shares.items()
        for contrast in (_better(SAR, DRLOC, setting), _better(DRLOC, BASELINE, setting))
    )
    return (
        ClaimTest("t3-75", (_better(SAR, BASELINE, shares[75]),)),
        ClaimTest("t3-75-drloc", (_better(SAR, DRLOC, shares[75]),)),
        ClaimTest("t3-order", order, note="SAR - DRLoc and DRLoc - ViT at each of the four shares"),
    )
