"""What a run is made of: frozen declarations that are checked at construction, before a minute is spent."""

from __future__ import annotations

from sarlib.config.checks import ConfigError, TrainingError, require, require_known
from sarlib.config.images import Augmentation, Data
from sarlib.config.learning import ON_VITDET, REGULARIZERS, TARGETS_LOSE, Recipe, Regularizer, SelfSupervision, Task
from sarlib.config.network import ARCHITECTURES, T2T_TOKENS, VARIANTS, Model, Published, Stage

__all__ = ["Augmentation", "Data", "Model", "Published", "Recipe", "Regularizer", "SelfSupervision", "Stage", "Task"]
__all__ += ["ARCHITECTURES", "ON_VITDET", "REGULARIZERS", "T2T_TOKENS", "TARGETS_LOSE", "VARIANTS"]
__all__ += ["ConfigError", "TrainingError", "require", "require_known"]
