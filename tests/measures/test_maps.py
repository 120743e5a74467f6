"""What is measured of a network: its own maps, the right way up; the collapse of maps made by hand; clear words where
there are none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pixelwise import upsample
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.functional import normalize, to_tensor
from untrained import keep
from voc_layout import CLASS_MASK, write_year

from sarlib import last_block, measures
from sarlib.config import ConfigError, Data
from sarlib.data.images import Images
from sarlib.entropy import component_counts, map_entropy
from sarlib.measures.finished import Finished, first_images
from sarlib.measures.finished import similarity as similarity_of
from sarlib.measures.maps import attention, collapsed
from sarlib.run import Measurement, Run
from sarlib.runner.execute import Job, Work, execute
from sarlib.runner.machine import Machine
from sarlib.runner.store import Store
from sarlib.tasks.masks import mass_mask
from sarlib.trainer import loop as training

SHARPEST = 60.0  # e^-60 is nothing beside 1 in float32


def similarity(run: Run, *, store: Store, images: Images) -> torch.Tensor:
    return similarity_of(Finished(run, store.weights(run)).network(), images, batch_size=7)


def test_s_is_the_trained_networks(store: Store, smallest_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is caught as it leaves training, with stochastic depth to be turned off, and shown the images by
    torchvision's means."""
    run = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, depth=3, drop_path=0.8))
    caught = []
    train = training.train
    monkeypatch.setattr(training, "train", lambda *args, **rest: caught.append(train(*args, **rest)) or caught[-1])
    record = execute(Work(run), Job(store, None, Machine("cpu", workers=1, threads=1)))
    images = first_images(run.data, 20)
    found = similarity(run, store=store, images=images)
    shown = normalize(images.pixels / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    torch.testing.assert_close(
        found, last_block.forward(caught[0].task.model.eval(), shown).similarity.detach(), rtol=1e-4, atol=1e-5
    )
    assert found.shape == (20, 2, 4, 4) and not found.requires_grad
    assert map_entropy(found).mean().item() == pytest.approx(record.metrics["entropy"], abs=1e-5)


def test_a_map_lies_as_its_image_does(store: Store, smallest_run: Run) -> None:
    """With a single block, a token's score depends on its own patch only: a change at the bottom left is seen there
    and nowhere else."""
    run = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, depth=1))
    keep(run, store=store)
    images = first_images(run.data, 1)
    pixels = images.pixels.clone()
    pixels[:, :, 24:, :8] = 255 - pixels[:, :, 24:, :8]
    changed = dataclasses.replace(images, pixels=pixels)
    difference = similarity(run, store=store, images=changed) - similarity(run, store=store, images=images)
    assert (difference.abs() > 1e-4).nonzero()[:, 2:].unique(dim=0).tolist() == [[3, 0]]


def test_attention_is_the_patches_share_of_the_softmax(store: Store, smallest_run: Run) -> None:
    """The layer's own softmax has the class token's column too; without it and rescaled, its row is the map."""
    model = keep(smallest_run, store=store)
    images = first_images(smallest_run.data, 3)
    seen: list[torch.Tensor] = []
    model.blocks[-1].attn.fused_attn = False  # timm then forms the attention matrix, before its dropout
    model.blocks[-1].attn.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(normalize(images.pixels / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    patches = seen[0][:, :, 0, 1:]
    expected = (patches / patches.sum(-1, keepdim=True)).unflatten(-1, (4, 4))
    found = attention(similarity(smallest_run, store=store, images=images))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


def test_all_images_where_there_are_fewer(smallest_run: Run) -> None:
    assert [len(first_images(smallest_run.data, count)) for count in (1, 3, 20, 21)] == [1, 3, 20, 20]
    with pytest.raises(ConfigError, match="one image or more, got 0"):
        first_images(smallest_run.data, 0)


def test_files_are_shown_as_decoded_sets_are(smallest_run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_CACHE", str(image_folder.parent / "cache"))
    run = dataclasses.replace(smallest_run, data=Data(name="pets", image_size=16))
    shown = {}
    for source in ("memory", "files"):
        monkeypatch.setenv("SAR_INPUT", source)
        first_images.cache_clear()
        shown[source] = first_images(run.data, 5, root=image_folder)
    assert shown["files"].pixels.shape == (5, 3, 16, 16)
    assert torch.equal(shown["files"].pixels, shown["memory"].pixels) and torch.equal(
        shown["files"].labels, shown["memory"].labels
    )


def lit(*tokens: tuple[int, int], height: float = SHARPEST) -> torch.Tensor:
    """One map of one head, 8 x 8, that is 0 but for some tokens."""
    similarity = torch.zeros(1, 1, 8, 8)
    for row, column in tokens:
        similarity[..., row, column] = height
    return similarity


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        pytest.param(lit((2, 3)), {"peak": 1, "single": 100, "tokens": 1, "softmax_entropy": 0, "entropy": 0}, id="one peak"),
        pytest.param(
            lit((0, 0), (5, 6)),
            {"peak": 1 / 2, "single": 0, "tokens": 2, "softmax_entropy": math.log(2), "entropy": math.log(2)},
            id="two peaks apart",
        ),
        pytest.param(lit((2, 3), (3, 4)), {"peak": 1 / 2, "single": 0, "tokens": 2, "softmax_entropy": 0}, id="two that touch"),
        pytest.param(
            torch.full((1, 1, 8, 8), 3.0),
            {"peak": 1 / 64, "single": 0, "tokens": 0, "softmax_entropy": 0, "entropy": 0, "spread": 0},
            id="flat",
        ),
        pytest.param(
            torch.cat([lit((2, 3)), lit((0, 0), (5, 6))]).view(1, 2, 8, 8),
            {"peak": 3 / 4, "single": 50, "tokens": 3 / 2, "softmax_entropy": math.log(2) / 2},
            id="means over heads",
        ),
    ],
)
def test_measures_of_maps_made_by_hand(similarity: torch.Tensor, expected: dict[str, float]) -> None:
    found = collapsed(similarity)
    assert set(found) == {"peak", "single", "tokens", "softmax_entropy", "entropy", "spread"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_spread_is_the_standard_deviation_within_maps() -> None:
    similarity = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.arange(3)[:, None, None]
    assert collapsed(similarity)["spread"] == pytest.approx(similarity.numpy().std(axis=(2, 3)).mean(), rel=1e-5)


def test_larger_scores_collapse_the_softmax_and_leave_the_entropy() -> None:
    """What section 4.3 calls cheating: nothing but the scale of S has changed."""
    similarity = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before, after = collapsed(similarity), collapsed(10 * similarity)
    assert after["entropy"] == pytest.approx(before["entropy"], rel=1e-5)
    assert after["spread"] == pytest.approx(10 * before["spread"], rel=1e-5)
    assert after["peak"] > 3 * before["peak"] and after["single"] > before["single"] and after["tokens"] < before["tokens"] / 3
    assert after["softmax_entropy"] < before["softmax_entropy"] / 2


@pytest.fixture
def measured(smallest_run: Run) -> Measurement:
    return Measurement(name="collapse", data=smallest_run.data, images=12)


def take(run: Run, measurement: Measurement, store: Store) -> dict:
    return measures.take(Finished(run, store.weights(run)), measurement)


def test_the_collapse_is_that_of_the_first_images(store: Store, smallest_run: Run, measured: Measurement) -> None:
    keep(smallest_run, store=store)
    expected = collapsed(similarity(smallest_run, store=store, images=first_images(smallest_run.data, 12)))
    assert take(smallest_run, measured, store) == {"metrics": pytest.approx(expected, rel=1e-6), "arrays": {}}
    whole = take(smallest_run, dataclasses.replace(measured, images=None), store)["metrics"]
    assert whole == pytest.approx(
        collapsed(similarity(smallest_run, store=store, images=first_images(smallest_run.data, 20))), rel=1e-6
    )
    assert whole["peak"] != expected["peak"]


def test_maps_are_softmaxed_and_rounded(store: Store, smallest_run: Run) -> None:
    keep(smallest_run, store=store)
    found = take(smallest_run, Measurement(name="maps", data=smallest_run.data, images=3), store)
    assert found.keys() == {"metrics", "arrays"} and found["metrics"] == {} and found["arrays"].keys() == {"attention"}
    expected = attention(similarity(smallest_run, store=store, images=first_images(smallest_run.data, 3)))
    torch.testing.assert_close(torch.tensor(found["arrays"]["attention"]), expected, rtol=0, atol=5.1e-5)
    assert all(value == round(value, 4) for image in found["arrays"]["attention"] for h in image for row in h for value in row)


def test_other_images_than_its_own_can_be_measured(store: Store, smallest_run: Run) -> None:
    """A grid of 6 x 6 tokens for a network that was trained with 4 x 4, and another number of classes."""
    keep(smallest_run, store=store)
    other = Measurement(name="maps", data=Data(name="shapes-painting", image_size=48, train_size=10, test_size=20), images=2)
    attention = torch.tensor(take(smallest_run, other, store)["arrays"]["attention"])
    assert attention.shape == (2, 2, 6, 6)
    torch.testing.assert_close(attention.sum((-2, -1)), torch.ones(2, 2), rtol=0, atol=36 * 5e-5)


def test_objects_are_scored_as_the_run_scored_them(store: Store, smallest_run: Run) -> None:
    """On the run's own test set: its metrics, its references, and what white noise has."""
    record = execute(Work(smallest_run), Job(store, None, Machine("cpu", workers=1, threads=1)))
    found = take(smallest_run, Measurement(name="objects", data=smallest_run.data), store)["metrics"]
    shared = found.keys() & record.metrics.keys()
    assert shared == {"entropy", "components", "jaccard", *(f"jaccard_{name}" for name in ("all", "random", "centre", "best"))}
    assert {name: found[name] for name in shared} == pytest.approx({name: record.metrics[name] for name in shared}, abs=1e-6)
    assert found["jaccard_released"] == found["jaccard"] == pytest.approx(found["jaccard_gain"] + found["jaccard_random"])
    assert 0.6 < found["kept"] <= 0.7, "of 16 tokens at least 9.6, and few more of maps that are nearly flat"
    noise = torch.randn(4000, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    assert found["entropy_noise"] == pytest.approx(map_entropy(noise).mean().item(), abs=0.03)


def test_objects_of_files_at_another_size(store: Store, smallest_run: Run, tmp_path: Path) -> None:
    """VOC's layout, shown whole at 48 px to a network that was trained at 32: 6 x 6 tokens with resampled positions."""
    write_year(tmp_path / "VOCdevkit" / "VOC2012")
    model = keep(smallest_run, store=store)
    seen = Measurement(name="objects", data=Data(name="voc2012-masks", image_size=48))
    found = measures.take(Finished(smallest_run, store.weights(smallest_run), tmp_path), seen)["metrics"]
    model.set_input_size((48, 48))
    with Image.open(tmp_path / "VOCdevkit/VOC2012/JPEGImages/a.jpg") as picture:
        pixels = to_tensor(picture.convert("RGB").resize((48, 48), Image.Resampling.BICUBIC))
    with torch.no_grad():
        maps = last_block.forward(model, normalize(pixels, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)[None]).similarity[0]
    large = np.kron(np.array(CLASS_MASK), np.ones((12, 8), dtype=int))
    classes = {label: large == label for label in (12, 15)}
    for name, counts in (("jaccard", large != 255), ("jaccard_released", large > -1)):
        kept = [upsample(mass_mask(head), (48, 48)).numpy() & counts for head in maps]
        best = [max((k & truth).sum() / (k | truth).sum() for k in kept) for truth in classes.values()]
        assert found[name] == pytest.approx(np.mean(best), abs=1e-6)
    assert found["jaccard"] > found["jaccard_released"], "of two images one has objects"


def test_an_unknown_measurement_is_named(store: Store, smallest_run: Run) -> None:
    keep(smallest_run, store=store)
    with pytest.raises(ConfigError, match="unknown measurement 'weight'; choose from collapse, maps"):
        take(smallest_run, Measurement(name="weight", data=smallest_run.data), store)


def test_a_run_that_is_not_there_is_named(store: Store, smallest_run: Run) -> None:
    with pytest.raises(ConfigError, match=f"{smallest_run.key} is not finished.*train it first"):
        store.weights(smallest_run)


@pytest.mark.parametrize(
    ("spoil", "told"), [(Path.unlink, "has no weights"), (lambda file: file.write_bytes(b"{}"), "cannot be read")]
)
def test_weights_that_are_not_there_are_told(store: Store, smallest_run: Run, spoil, told: str) -> None:
    keep(smallest_run, store=store)
    spoil(store.folder(smallest_run) / "weights.safetensors")
    with pytest.raises(ConfigError, match=f"{smallest_run.key} .*{told}.*train the run again"):
        store.weights(smallest_run)


def test_clips_are_measured_frame_by_frame_and_as_volumes(store: Store, smallest_run: Run) -> None:
    """By a network for images. Frames of different clips are not in order; still clips are, whatever their order."""
    keep(smallest_run, store=store)
    data = dataclasses.replace(smallest_run.data, test_size=6, frames=3)
    found = take(smallest_run, Measurement(name="clips", data=data), store)["metrics"]
    clips = first_images(data)
    frames = similarity(smallest_run, store=store, images=clips.by_frame())
    volumes = torch.stack([frames[3 * i : 3 * i + 3].transpose(0, 1) for i in range(6)])
    assert found["entropy"] == pytest.approx(map_entropy(frames).mean().item(), abs=1e-6)
    assert found["clip_components"] == pytest.approx(component_counts(volumes, axes=3).double().mean().item())
    mixed = torch.stack([volumes[[(i - 2 * frame) % 6 for i in range(6)], :, frame] for frame in range(3)], 2)
    assert found["mixed_entropy"] == pytest.approx(map_entropy(mixed, axes=3).mean().item(), abs=1e-6)
    assert found["mixed_components"] == pytest.approx(component_counts(mixed, axes=3).double().mean().item())
    assert 0 < found["jaccard"] < found["jaccard_best"] <= 1
