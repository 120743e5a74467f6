"""A declaration is validated when it is made, survives JSON, and its key changes with every field."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sarlib.config import Augmentation, ConfigError, Data, Model, Published, Recipe, Regularizer, Stage
from sarlib.run import Run

PYRAMID = (Stage(dim=16, depth=1, heads=1, stride=4, key_stride=2), Stage(dim=32, depth=2, heads=2, stride=2, key_stride=2))

#: For every field another valid value.
OTHER = {
    "data": {"crop_from": "photograph"}
    | {"name": "digits", "image_size": 64, "train_size": 25, "test_size": 21, "fingerprint": "ab", "test_crop": 0.5},
    "model": {
        "name": "t2t",
        "patch_size": 4,
        "dim": 32,
        "depth": 3,
        "heads": 4,
        "mlp_ratio": 3.0,
        "drop_path": 0.1,
        "variant": "B",
        "pool": "avg",
    },
    "recipe": {
        "epochs": 4,
        "batch_size": 9,
        "lr": 0.1,
        "warmup_epochs": 2,
        "warmup_lr": 0.0,
        "min_lr": 0.0,
        "weight_decay": 0.0,
    }
    | {"betas": (0.8, 0.9), "clip": None, "ema": 0.9, "evaluations": 1},
    "augmentation": {"crop": "resized", "crop_padding": 3, "crop_scale": (0.1, 1.0), "flip": 0.0, "color_jitter": 0.4}
    | {"rand_augment": "rand-m9", "erasing": 0.25, "mixup": 0.8, "cutmix": 1.0, "mix_switch": 0.1, "label_smoothing": 0.0},
    "regularizers": {
        "weight": 0.1,
        "schedule": "constant",
        "warmup_epochs": 2,
        "pairs": 64,
        "hidden": 64,
        "mode": "cross_entropy",
        "source": "0123456789ab",
    },
}


def pyramid(run: Run) -> Run:
    """`run` with a pyramid of two stages in the place of its model."""
    return dataclasses.replace(run, model=Model(name="pvt", patch_size=8, dim=32, depth=2, heads=2, stages=PYRAMID))


def changed(part: str, new: object) -> object:
    return (new,) if part == "regularizers" else new


def variations(run: Run) -> list[Run]:
    """Runs that differ from `run` in one field each, over all fields of all parts."""
    made = [dataclasses.replace(run, seed=run.seed + 1), dataclasses.replace(run, regularizers=())]
    made += [pyramid(run), dataclasses.replace(run, regularizers=(*run.regularizers, Regularizer(name="drloc", weight=0.5)))]
    made += [
        dataclasses.replace(run, pretrained=run),
        dataclasses.replace(run, pretrained=Published(name="x", sha256="0" * 64)),
    ]
    made.append(
        dataclasses.replace(run, **{part: dataclasses.replace(getattr(run, part), frames=2) for part in ("data", "model")})
    )
    for part, values in OTHER.items():
        old = run.regularizers[0] if part == "regularizers" else getattr(run, part)
        assert {*values, *{"regularizers": ["name"], "model": ["stages", "frames"], "data": ["frames"]}.get(part, [])} == {
            field.name for field in dataclasses.fields(old)
        }
        made += [
            dataclasses.replace(run, **{part: changed(part, dataclasses.replace(old, **{name: value}))})
            for name, value in values.items()
        ]
    return made


def test_every_field_is_in_the_key(smallest_run: Run) -> None:
    runs = [smallest_run, *variations(smallest_run)]
    assert len({run.key for run in runs}) == len(runs)


def test_every_field_of_a_stage_is_in_the_key(smallest_run: Run) -> None:
    run = pyramid(smallest_run)
    other = {"dim": 24, "depth": 3, "heads": 4, "mlp_ratio": 2.0, "key_stride": 1}
    stages = [(dataclasses.replace(PYRAMID[0], **{name: value}), PYRAMID[1]) for name, value in other.items()]
    turned = tuple(dataclasses.replace(stage, stride=stride) for stage, stride in zip(PYRAMID, (2, 4), strict=True))
    runs = [run, *(dataclasses.replace(run, model=dataclasses.replace(run.model, stages=each)) for each in (*stages, turned))]
    assert len({run.key for run in runs}) == len(runs)
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_the_grid_is_that_of_the_keys(smallest_run: Run) -> None:
    assert pyramid(smallest_run).grid == smallest_run.data.image_size // 8 // 2


def test_the_key_survives_json_and_field_order(smallest_run: Run) -> None:
    fields = json.loads(json.dumps(smallest_run.to_dict()))
    restored = Run.from_dict(dict(reversed(fields.items())))
    assert restored == smallest_run and restored.key == smallest_run.key


def test_the_key_is_pinned(smallest_run: Run) -> None:
    """Committed results are found by key: whoever changes the declaration's fields or their defaults has to see it here."""
    assert smallest_run.key == "4f9fd1932ca3bd01" and smallest_run.key_of_version(1) == "2e73748f2fb15f61"


def test_unknown_and_missing_fields_raise(smallest_run: Run) -> None:
    fields = smallest_run.to_dict()
    with pytest.raises(ConfigError, match="colour"):
        Run.from_dict({**fields, "data": {**fields["data"], "colour": "red"}})
    with pytest.raises(ConfigError, match="seed"):
        Run.from_dict({name: value for name, value in fields.items() if name != "seed"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: dataclasses.replace(run, seed=-1), "seeds must not be negative, got -1"),
        (
            lambda run: dataclasses.replace(run, data=Data(name="digits", image_size=33)),
            "33 x 33 px cannot be cut into patches of 8 px",
        ),
        (lambda run: Data(name="digits", image_size=0), "image size must be positive"),
        (lambda run: Data(name="digits", image_size=8, train_size=0), "train_size must be positive"),
        (lambda run: Model(dim=10, heads=3), "dim 10 is not divisible by 3 heads"),
        (lambda run: Model(variant="G"), "unknown last-block variant 'G'"),
        (lambda run: Model(name="resnet"), "unknown model 'resnet'"),
        (lambda run: Model(name="cvt"), "stages are for pvt and cvt, which need them; cvt has 0"),
        (lambda run: Model(stages=PYRAMID), "vit has 2"),
        (lambda run: Model(name="pvt", patch_size=8, stages=PYRAMID), "are those of its last stage"),
        (
            lambda run: Model(name="pvt", patch_size=16, dim=32, depth=2, heads=2, stages=PYRAMID),
            "multiply to 8 pixels a token",
        ),
        (lambda run: Stage(dim=10, depth=1, heads=3, stride=2), "dim 10 of a stage is not divisible by 3 heads"),
        (lambda run: Stage(dim=9, depth=0, heads=3, stride=2), "depth of a stage must be positive, got 0"),
        (
            lambda run: dataclasses.replace(pyramid(run), data=Data(name="digits", image_size=24)),
            "stage 2 of pvt, at an image of 24 px, has 3 x 3 tokens, which keys of 2 x 2 do not tile",
        ),
        (
            lambda run: dataclasses.replace(run, data=Data(name="digits", image_size=8)),
            "an image of 8 px leaves vit a similarity map of 1 x 1 keys",
        ),
        (
            lambda run: dataclasses.replace(
                run, model=Model(name="t2t", patch_size=32), data=Data(name="digits", image_size=64)
            ),
            "tokens of 16, 8, 4 px, not of 32",
        ),
        (
            lambda run: dataclasses.replace(
                run, model=Model(patch_size=8, heads=1), regularizers=(Regularizer(name="disagreement", weight=1.0),)
            ),
            "disagreement is between heads, and the last block has 1",
        ),
        (lambda run: Recipe(epochs=0, batch_size=8, lr=1.0), "epochs and batch size must be positive"),
        (lambda run: Recipe(epochs=2, batch_size=8, lr=1.0, evaluations=3), "evaluations must be between 1 and 2"),
        (lambda run: Augmentation(crop="centre"), "unknown crop 'centre'"),
        (lambda run: Augmentation(crop=None), "unknown crop None"),
        (lambda run: Augmentation(flip=1.5), "flip must be between 0 and 1"),
        (lambda run: Regularizer(name="magic", weight=1.0), "unknown regularizer 'magic'"),
        (lambda run: Regularizer(name="spatial_entropy"), "say name 'none' and weight 0"),
        (lambda run: Regularizer(name="drloc", weight=0.5, mode="l2"), "unknown mode 'l2' of DRLoc"),
        (lambda run: Regularizer(name="drloc", weight=0.5, pairs=0), "at least one pair of tokens an image, got 0"),
        (
            lambda run: dataclasses.replace(run, regularizers=(Regularizer(),)),
            "an empty tuple of them",
        ),
        (lambda run: Regularizer(name="spatial_entropy", weight=-1.0), "must not be negative"),
    ],
)
def test_bad_declarations_say_what_is_wrong(smallest_run: Run, make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(smallest_run)
