"""The four architectures of Tables 9 and 10 at every preset: published at `paper`, small ones of the same code elsewhere."""

from __future__ import annotations

import dataclasses

from sarlib.config import Model, Stage
from sarlib.experiments.presets import Preset
from sarlib.models.sizes import CVT_13, PVT_SMALL, T2T_VIT_14

VIT, T2T, PVT, CVT = "ViT", "T2T", "PVT", "CvT"


def architectures(preset: Preset, patch_size: int | None = None) -> dict[str, Model]:
    """Models with a stock last block, by the names that the tables print; their last blocks' tokens are all `patch_size` pixels a side.

    Small ones are as wide and as deep as the preset's ViT. Their pyramids have three stages, of a third, two thirds and all of its
    width, and CvT's keys are fewer than its tokens as in the published one: S is k/2 x k/2. At `paper`, sizes are the published ones
    whatever the `patch_size`.
    """
    vit = dataclasses.replace(preset.model, patch_size=patch_size or preset.model.patch_size)
    if preset.name == "paper":
        published = {T2T: T2T_VIT_14, PVT: PVT_SMALL, CVT: CVT_13}
        return {VIT: vit} | {name: dataclasses.replace(model, drop_path=vit.drop_path) for name, model in published.items()}
    return {
        VIT: vit,
        T2T: dataclasses.replace(vit, name="t2t", mlp_ratio=T2T_VIT_14.mlp_ratio),
        PVT: _pyramid(vit, "pvt", mlp_ratios=(8.0, 8.0, 4.0), key_strides=(4, 2, 1)),
        CVT: _pyramid(vit, "cvt", mlp_ratios=(4.0, 4.0, 4.0), key_strides=(2, 2, 2)),
    }


def _pyramid(vit: Model, name: str, *, mlp_ratios: tuple[float, ...], key_strides: tuple[int, ...]) -> Model:
    """Stages whose widths, heads and blocks add up to those of `vit`, and whose strides multiply to its patch size."""
    strides = (vit.patch_size // 2, 2, 1)
    depths = (1, max(1, vit.depth // 4), max(1, vit.depth - 1 - max(1, vit.depth // 4)))
    heads = tuple(max(1, vit.heads * part // 3) for part in (1, 2, 3))
    stages = tuple(
        Stage(
            dim=vit.dim // vit.heads * head, depth=depth, heads=head, stride=stride, mlp_ratio=mlp_ratio, key_stride=key_stride
        )
        for depth, head, stride, mlp_ratio, key_stride in zip(depths, heads, strides, mlp_ratios, key_strides, strict=True)
    )
    last = stages[-1]
    return dataclasses.replace(vit, name=name, depth=last.depth, mlp_ratio=last.mlp_ratio, stages=stages)
