"""The four sizes in which every table is declared, a file each: all that depends on the size is said there.

A preset changes data, sizes and epochs; never the rows, the columns or the code. Another one is one more entry of `PRESETS`.
"""

from __future__ import annotations

from sarlib.experiments.presets.gpu import GPU
from sarlib.experiments.presets.laptop import LAPTOP
from sarlib.experiments.presets.paper import PAPER
from sarlib.experiments.presets.preset import STYLES, VIT, Preset, Training
from sarlib.experiments.presets.tiny import TINY

__all__ = ["GPU", "LAPTOP", "PAPER", "PRESETS", "STYLES", "TINY", "VIT", "Preset", "Training"]

PRESETS = {preset.name: preset for preset in (TINY, LAPTOP, GPU, PAPER)}
