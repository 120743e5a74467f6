"""The smallest run that is still a run, of which most tests of the trainer and the runner are made."""

from __future__ import annotations

from sarlib.config import Augmentation, Data, Model, Recipe, Regularizer
from sarlib.run import Run

SMALLEST = Run(
    data=Data(name="shapes-object", image_size=32, train_size=24, test_size=20),
    model=Model(patch_size=8, dim=16, depth=2, heads=2, variant="C", drop_path=0.2),
    recipe=Recipe(epochs=3, batch_size=8, lr=1e-3, warmup_epochs=1, clip=1.0, evaluations=3),
    augmentation=Augmentation(crop="pad", crop_padding=2, flip=0.5, mixup=0.2, cutmix=0.5, label_smoothing=0.1),
    regularizers=(Regularizer(name="spatial_entropy", weight=0.01, schedule="warmup-cosine", warmup_epochs=1),),
)
