"""Every number of every training protocol against what its source declares, in the source's own units."""

from __future__ import annotations

import dataclasses

import pytest

from sarlib.trainer.recipes import DRLOC, PROTOCOLS

# Option or key of the released code -> value. `gpus` x `images` is the batch of the example that the source gives.
DEIT = {
    "gpus": 8,
    "images": 128,
    "lr": 5e-4,
    "lr_per": 512,
    "epochs": 300,
    "warmup": 5,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "decay": 0.05,
}
SOURCES = {
    "deit": DEIT | {"clip": None, "ema": 0.99996, "drop_path": 0.1},
    "liu": DEIT | {"epochs": 100, "warmup": 20, "warmup_lr": 5e-7, "min_lr": 5e-6, "clip": 5.0, "ema": None, "drop_path": 0.1},
    "t2t": {
        "gpus": 4,
        "images": 128,
        "lr": 1e-3,
        "lr_per": None,
        "epochs": 300 + 10,
        "warmup": 10,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
    }
    | {"decay": 0.05, "clip": None, "ema": 0.99996, "drop_path": 0.1},
    "pvt": DEIT | {"clip": None, "ema": None, "drop_path": 0.1},
    "cvt": {
        "gpus": 8,
        "images": 256,
        "lr": 2.5e-4,
        "lr_per": 256,
        "epochs": 300,
        "warmup": 5,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
    }
    | {"decay": 0.05, "clip": None, "ema": None, "drop_path": 0.1},
    "fine-tuning": DEIT | {"images": 64, "epochs": 100, "warmup": 3, "clip": None, "ema": None, "drop_path": 0.1},
}
AUGMENTATION = {
    "crop": "resized",
    "crop_scale": (0.08, 1.0),
    "flip": 0.5,
    "color_jitter": 0.4,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mix_switch": 0.5,
    "label_smoothing": 0.1,
}


def test_every_protocol_has_a_source_table() -> None:
    assert set(PROTOCOLS) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_recipe_is_its_sources(name: str) -> None:
    source = SOURCES[name]
    batch = source["gpus"] * source["images"]
    declared = dataclasses.asdict(PROTOCOLS[name].recipe)
    assert declared.pop("evaluations") == 1
    assert declared == {
        "epochs": source["epochs"],
        "batch_size": batch,
        "lr": pytest.approx(source["lr"] * (batch / source["lr_per"] if source["lr_per"] else 1)),
        "warmup_epochs": source["warmup"],
        "warmup_lr": source["warmup_lr"],
        "min_lr": source["min_lr"],
        "weight_decay": source["decay"],
        "betas": (0.9, 0.999),
        "clip": source["clip"],
        "ema": source["ema"],
    }
    assert PROTOCOLS[name].drop_path == source["drop_path"]


@pytest.mark.parametrize("name", SOURCES)
def test_augmentation_is_that_of_deits_trainer(name: str) -> None:
    augmentation = dataclasses.asdict(PROTOCOLS[name].augmentation)
    del augmentation["crop_padding"]  # of another kind of crop
    assert augmentation == AUGMENTATION


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_a_public_repository_with_the_files(name: str) -> None:
    repository, _, files = PROTOCOLS[name].source.partition(": ")
    assert repository.startswith("github.com/") and repository.count("/") == 2 and files


def test_learning_rates_by_hand() -> None:
    assert {name: protocol.recipe.lr for name, protocol in PROTOCOLS.items()} == pytest.approx(
        {"deit": 1e-3, "liu": 1e-3, "t2t": 1e-3, "pvt": 1e-3, "cvt": 2e-3, "fine-tuning": 5e-4}
    )


def test_drloc_is_declared_as_its_authors_trained_it() -> None:
    assert {architecture: drloc.weight for architecture, drloc in DRLOC.items()} == {
        "vit": 0.5,
        "t2t": 0.1,
        "pvt": 0.5,
        "cvt": 0.1,
    }
    for drloc in DRLOC.values():
        assert (drloc.name, drloc.schedule, drloc.warmup_epochs, drloc.pairs, drloc.mode) == (
            "drloc",
            "warmup-linear",
            20,
            64,
            "l1",
        )
