"""The setting of IN-100, which Tables 1, 3 and 9 and the appendix have in common: the paper's set, or what stands in for it."""

from __future__ import annotations

from pathlib import Path

from sarlib.config import Data
from sarlib.experiments.declaration import Setting
from sarlib.experiments.presets import Preset


def in100(preset: Preset, root: Path | None) -> Setting:
    """Few images of the embedded objects, or IN-100 below `root` at PRESET=paper."""
    match preset.name:
        case "tiny":
            data = Data(name="shapes-object", image_size=32, train_size=48, test_size=40)
        case "laptop":
            data = Data(name="shapes-object", image_size=64, train_size=500, test_size=2000)
        case "gpu":
            data = Data(name="shapes-object", image_size=112, train_size=5000, test_size=5000)
        case _:
            return preset.setting("IN-100", Data(name="imagenet100", image_size=224), root=root)
    return preset.setting(f"shapes-object, {data.train_size} images", data)
