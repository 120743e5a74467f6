"""The four sizes in which every table is declared. A preset changes data, sizes and epochs; never the rows, the columns or the code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sarlib import data as datasets
from sarlib.config import Augmentation, ConfigError, Data, Model, Recipe, Regularizer
from sarlib.experiments.declaration import Setting
from sarlib.run import Run
from sarlib.trainer.recipes import DEIT_AUGMENTATION, DRLOC, LIU_RECIPE


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Model, recipe, augmentation and SAR's loss at one size, what is shown of a test image, and the default number of seeds."""

    name: str
    about: str
    seeds: int
    model: Model
    recipe: Recipe
    augmentation: Augmentation
    regularizer: Regularizer
    test_crop: float = 1.0

    def setting(
        self,
        dataset: str,
        data: Data,
        *,
        patch_size: int | None = None,
        root: Path | None = None,
        recipe: Recipe | None = None,
        epochs: int | None = None,
        warmup_epochs: float | None = None,
    ) -> Setting:
        """The baseline's run on `data`, named `dataset` in the table. `warmup_epochs` is for the learning rate, lambda and DRLoc's weight alike.

        Real data below `root` is fingerprinted, so that other images under an old name are another run. `ConfigError` if it is absent.
        """
        recipe = recipe or self.recipe
        regularizer = self.regularizer
        # Published is a perceptron 512 wide on tokens of 384; on tokens of 48 that would be most of the training.
        rival = dataclasses.replace(DRLOC["vit"], hidden=min(DRLOC["vit"].hidden, 4 * self.model.dim))
        if self.name != "paper":  # whose 20 epochs of warm-up are of some hundred
            rival = dataclasses.replace(rival, warmup_epochs=regularizer.warmup_epochs)
        if epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=epochs, evaluations=min(epochs, recipe.evaluations))
        if warmup_epochs is not None:
            recipe = dataclasses.replace(recipe, warmup_epochs=warmup_epochs)
            regularizer = dataclasses.replace(regularizer, warmup_epochs=warmup_epochs)
            rival = dataclasses.replace(rival, warmup_epochs=warmup_epochs)
        fingerprint = data.fingerprint or datasets.fingerprint(data.name, root=root)
        run = Run(
            data=dataclasses.replace(data, fingerprint=fingerprint, test_crop=self.test_crop),
            model=dataclasses.replace(self.model, patch_size=patch_size or self.model.patch_size),
            recipe=recipe,
            augmentation=self.augmentation,
        )
        return Setting(dataset=dataset, baseline=run, regularizer=regularizer, rival=rival)


TINY = Preset(
    name="tiny",
    about="a few dozen embedded images, two epochs: shows that everything works, not what it gives",
    seeds=3,
    model=Model(patch_size=8, dim=24, depth=2, heads=2),
    recipe=Recipe(epochs=2, batch_size=16, lr=1e-3, warmup_epochs=1, clip=1.0),
    augmentation=Augmentation(flip=0.5, label_smoothing=0.1),
    regularizer=Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=1),
)

# Long training on few images is the paper's small-data regime at a size that two CPU cores can repeat with several seeds.
LAPTOP = Preset(
    name="laptop",
    about="embedded images, two CPU cores, under ten minutes a table",
    seeds=3,
    model=Model(patch_size=8, dim=48, depth=4, heads=3),
    recipe=Recipe(epochs=36, batch_size=50, lr=2e-3, warmup_epochs=4, clip=1.0),
    augmentation=Augmentation(crop="pad", crop_padding=4, flip=0.5, label_smoothing=0.1),
    regularizer=Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=4),
)

GPU = Preset(
    name="gpu",
    about="CIFAR-10 and embedded images at 14 x 14 tokens, one GPU of 24 GB or more",
    seeds=5,
    model=Model(patch_size=8, dim=192, depth=9, heads=3, drop_path=0.05),
    recipe=Recipe(epochs=60, batch_size=256, lr=1e-3, warmup_epochs=6, clip=1.0, evaluations=4),
    augmentation=Augmentation(crop="resized", crop_scale=(0.3, 1.0), flip=0.5, label_smoothing=0.1, mixup=0.8, cutmix=1.0),
    regularizer=Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=6),
)

PAPER = Preset(
    name="paper",
    about="the paper's data sets and protocol; days on several GPUs",
    seeds=1,
    model=Model(patch_size=16, dim=384, depth=12, heads=6, drop_path=0.1),
    recipe=LIU_RECIPE,
    augmentation=DEIT_AUGMENTATION,
    regularizer=Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=10),
    test_crop=224 / 256,
)

PRESETS = {preset.name: preset for preset in (TINY, LAPTOP, GPU, PAPER)}


def preset(name: str) -> Preset:
    """The preset called `name`. `ConfigError` naming the known ones if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
