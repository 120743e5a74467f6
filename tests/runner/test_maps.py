"""Maps of runs in the store: the trained network's own, the right way up, and clear words where there are none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.functional import normalize
from untrained import keep

from sarlib import last_block
from sarlib.config import ConfigError, Data
from sarlib.entropy import map_entropy
from sarlib.run import Run
from sarlib.runner import maps
from sarlib.runner.execute import execute
from sarlib.runner.store import Store
from sarlib.trainer import loop as training


def test_s_is_the_trained_networks(store: Store, smallest_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is caught as it leaves training, with stochastic depth to be turned off, and shown the images by torchvision's means."""
    run = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, depth=3, drop_path=0.8))
    caught = []
    train = training.train
    monkeypatch.setattr(training, "train", lambda *args, **rest: caught.append(train(*args, **rest)) or caught[-1])
    record = execute(run, store=store, root=None, device="cpu")
    images = maps.first_images(run, 20)
    found = maps.similarity(run, store=store, images=images)
    shown = normalize(images.pixels / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    torch.testing.assert_close(
        found, last_block.forward(caught[0].task.model.eval(), shown).similarity.detach(), rtol=1e-4, atol=1e-5
    )
    assert found.shape == (20, 2, 4, 4) and not found.requires_grad
    assert map_entropy(found).mean().item() == pytest.approx(record.metrics["entropy"], abs=1e-5)


def test_a_map_lies_as_its_image_does(store: Store, smallest_run: Run) -> None:
    """With a single block, a token's score depends on its own patch only: a change at the bottom left is seen there and nowhere else."""
    run = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, depth=1))
    keep(run, store=store)
    images = maps.first_images(run, 1)
    pixels = images.pixels.clone()
    pixels[:, :, 24:, :8] = 255 - pixels[:, :, 24:, :8]
    changed = dataclasses.replace(images, pixels=pixels)
    difference = maps.similarity(run, store=store, images=changed) - maps.similarity(run, store=store, images=images)
    assert (difference.abs() > 1e-4).nonzero()[:, 2:].unique(dim=0).tolist() == [[3, 0]]


def test_attention_is_the_patches_share_of_the_softmax(store: Store, smallest_run: Run) -> None:
    """The layer's own softmax has the class token's column too; without it and rescaled, its row is the map."""
    model = keep(smallest_run, store=store)
    images = maps.first_images(smallest_run, 3)
    seen: list[torch.Tensor] = []
    model.blocks[-1].attn.fused_attn = False  # timm then forms the attention matrix, before its dropout
    model.blocks[-1].attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(normalize(images.pixels / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    patches = seen[0][:, :, 0, 1:]
    expected = (patches / patches.sum(-1, keepdim=True)).unflatten(-1, (4, 4))
    found = maps.attention(maps.similarity(smallest_run, store=store, images=images))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


def test_all_images_where_there_are_fewer(smallest_run: Run) -> None:
    assert [len(maps.first_images(smallest_run, count)) for count in (1, 3, 20, 21)] == [1, 3, 20, 20]
    with pytest.raises(ConfigError, match="one image or more, got 0"):
        maps.first_images(smallest_run, 0)


def test_files_are_shown_as_decoded_sets_are(smallest_run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_CACHE", str(image_folder.parent / "cache"))
    run = dataclasses.replace(smallest_run, data=Data(name="pets", image_size=16))
    shown = {}
    for source in ("memory", "files"):
        monkeypatch.setenv("SAR_INPUT", source)
        shown[source] = maps.first_images(run, 5, root=image_folder)
    assert shown["files"].pixels.shape == (5, 3, 16, 16)
    assert torch.equal(shown["files"].pixels, shown["memory"].pixels) and torch.equal(
        shown["files"].labels, shown["memory"].labels
    )


def test_a_run_that_is_not_there_is_named(store: Store, smallest_run: Run) -> None:
    images = maps.first_images(smallest_run, 1)
    with pytest.raises(ConfigError, match=f"{smallest_run.key} is not finished.*train it first"):
        maps.similarity(smallest_run, store=store, images=images)


@pytest.mark.parametrize(
    ("spoil", "told"), [(Path.unlink, "has no weights"), (lambda file: file.write_bytes(b"{}"), "cannot be read")]
)
def test_weights_that_are_not_there_are_told(store: Store, smallest_run: Run, spoil, told: str) -> None:
    keep(smallest_run, store=store)
    spoil(store.folder(smallest_run) / "weights.safetensors")
    with pytest.raises(ConfigError, match=f"{smallest_run.key} .*{told}.*train the run again"):
        maps.similarity(smallest_run, store=store, images=maps.first_images(smallest_run, 1))
