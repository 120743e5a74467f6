"""Every number of every training protocol against what its source declares, in the source's own units."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import recipes
import torch
import yaml
from timm.scheduler import CosineLRScheduler

from sarlib.config import Augmentation
from sarlib.trainer.recipes import DRLOC, HOSTS, PROTOCOLS, host
from sarlib.trainer.schedules import learning_rate

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


#: For how many epochs the released trainer lays its cosine out. T2T's stays at the final rate for ten more, Liu et al.'s loop
#: stops after 100.
COSINE = {"deit": 300, "liu": 300, "t2t": 300, "pvt": 300, "cvt": 300, "fine-tuning": 100}


@pytest.mark.parametrize("name", SOURCES)
def test_how_far_the_learning_rate_is_from_the_released_one(name: str) -> None:
    """timm's scheduler, as it was when the trainers were written: without `warmup_prefix`. Named in the recipe and on the
    page of departures."""
    recipe = PROTOCOLS[name].recipe
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    warmup = {"warmup_t": int(recipe.warmup_epochs), "warmup_lr_init": recipe.warmup_lr, "warmup_prefix": False}
    released, away = CosineLRScheduler(optimizer, t_initial=COSINE[name], lr_min=recipe.min_lr, **warmup), []
    for epoch in range(recipe.epochs):
        released.step(epoch)
        away.append(abs(learning_rate(recipe, step=epoch, steps_per_epoch=1) - optimizer.param_groups[0]["lr"]) / recipe.lr)
    [departure] = [each for each in recipes.departures(name) if "of the peak away" in each]
    assert departure.endswith(f"at the beginning of an epoch up to {100 * max(away):.2g} % of the peak away")
    page = yaml.safe_load((Path(__file__).parents[2] / "book" / "departures.yml").read_text(encoding="utf-8"))
    [entry] = [entry for entry in page if entry["subject"] == "the learning rate"]
    assert f"{100 * max(away):.2g} %" in entry["here"]["does"]


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


#: Options of main_dino.py (its example for 100 epochs, 8 GPUs of 64 images) and of main_moco.py (4,096 images).
HOST_SOURCES = {
    "DINO": {"images": 8 * 64, "lr": 5e-4, "epochs": 100, "warmup": 10, "min_lr": 1e-6, "decay": (0.04, 0.4), "clip": 3.0}
    | {"drop_path": 0.1, "out": 65536, "hidden": 2048, "temperature": 0.1, "momentum": 0.996, "scale": (0.4, 1.0)}
    | {"locals": 8, "teacher": (0.04, 0.04), "frozen": 1},
    "MoCo-v3": {"images": 4096, "lr": 1.5e-4, "epochs": 300, "warmup": 40, "min_lr": 0.0, "decay": (0.1, None), "clip": None}
    | {"drop_path": 0.0, "out": 256, "hidden": 4096, "temperature": 0.2, "momentum": 0.99, "scale": (0.08, 1.0)}
    | {"locals": 0, "teacher": (0.04, 0.04), "frozen": 0},
}


@pytest.mark.parametrize("name", HOST_SOURCES)
def test_hosts_are_those_of_their_source(name: str) -> None:
    protocol, stated = HOSTS[name], HOST_SOURCES[name]
    recipe, views = protocol.recipe, protocol.task.self_supervision
    assert recipe.lr == pytest.approx(stated["lr"] * stated["images"] / 256) and recipe.batch_size == stated["images"]
    assert (recipe.epochs, recipe.warmup_epochs, recipe.warmup_lr) == (stated["epochs"], stated["warmup"], 0.0)
    assert (recipe.min_lr, recipe.clip, recipe.ema, recipe.betas) == (stated["min_lr"], stated["clip"], None, (0.9, 0.999))
    assert (recipe.weight_decay, views.final_weight_decay) == stated["decay"] and protocol.drop_path == stated["drop_path"]
    assert (views.out_dim, views.hidden, views.bottleneck) == (stated["out"], stated["hidden"], 256)
    assert (views.temperature, views.momentum, views.global_scale) == (
        stated["temperature"],
        stated["momentum"],
        stated["scale"],
    )
    assert (views.local_crops, views.local_tokens, views.local_scale) == (stated["locals"], 96 // 16, (0.05, 0.4))
    assert (views.teacher_temperatures, views.frozen_epochs) == (stated["teacher"], stated["frozen"])
    assert protocol.augmentation == Augmentation() and protocol.source.startswith("github.com/facebookresearch/")
    assert any("12 heads" in departure for departure in recipes.departures(name)) == (name == "MoCo-v3")


def test_a_smaller_host_differs_in_what_is_said() -> None:
    smaller, published = host("DINO", {"out_dim": 64}, epochs=20), HOSTS["DINO"]
    assert smaller.task.self_supervision == dataclasses.replace(published.task.self_supervision, out_dim=64)
    assert smaller.recipe == dataclasses.replace(published.recipe, epochs=20) and smaller.drop_path == 0
