"""Drawings of attention maps: what they show, from stored arrays alone, and that they read on light and dark pages."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from constructed import cell, declared
from PIL import Image

matplotlib = pytest.importorskip("matplotlib", reason="the book extra is not installed")
pytest.importorskip("seaborn", reason="the book extra is not installed")
matplotlib.use("agg")

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from sarlib import entropy, report  # noqa: E402
from sarlib.config import ConfigError  # noqa: E402
from sarlib.experiments.declaration import Experiment  # noqa: E402
from sarlib.report import attention, figures  # noqa: E402
from sarlib.run import Measurement, Run  # noqa: E402
from sarlib.runner.store import Store  # noqa: E402
from sarlib.tasks.masks import mass_mask  # noqa: E402

IMAGES, HEADS, SIDE = 2, 3, 6


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def stored(store: Store, smallest_run: Run) -> tuple[Experiment, Store, dict[str, np.ndarray], np.ndarray]:
    """Two rows whose maps are in the store, the maps, and the pictures."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (IMAGES, 24, 24, 3), dtype=np.uint8)
    measurement = Measurement(name="heads", data=smallest_run.data, images=IMAGES)
    runs = {"ViT": dataclasses.replace(smallest_run, regularizers=()), "ViT + SAR": smallest_run}
    cells = [cell("figure4", row, "d", run=run, measurement=measurement) for row, run in runs.items()]
    maps = {row: random.normal(size=(IMAGES, HEADS, SIDE, SIDE)).round(4) for row in runs}
    experiment = declared(cells, name="figure4", seeds=(0,), drawn=tuple(cells))
    for one in cells:
        arrays = {"similarity": maps[one.row].tolist(), "pictures": [png(each) for each in pictures]}
        store.write_measured(one.with_seed(0), measurement, {"metrics": {}, "arrays": arrays})
    return experiment, store, maps, pictures


def maps_at_random(count: int = 60) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 7, 9))


def test_the_steps_of_the_entropy_are_those_of_the_loss() -> None:
    for similarity in maps_at_random():
        steps, tensor = attention.Blobs.of(similarity), torch.from_numpy(similarity)
        labels, shares = entropy.components(tensor), entropy.component_probabilities(tensor)
        np.testing.assert_allclose(steps.excess, entropy.excess(tensor), rtol=1e-12)
        np.testing.assert_allclose(steps.shares, np.sort(shares.numpy())[::-1], rtol=1e-9)
        assert math.isclose(steps.terms.sum(), entropy.map_entropy(tensor).item(), rel_tol=1e-9)
        assert {(a, b) for a, b in zip(steps.labels.flat, labels.flatten().tolist())} == {
            (0, 0), *((1 + place, 1 + int(order)) for place, order in enumerate(np.argsort(-shares.numpy())))
        }  # fmt: skip


def test_the_masks_are_those_that_are_scored() -> None:
    maps = 3 * maps_at_random()
    expected = mass_mask(torch.from_numpy(maps)).numpy()
    assert np.array_equal(np.stack([attention._kept(one) for one in maps]), expected)


def test_every_head_is_drawn_over_its_image_rows_above_each_other(stored) -> None:
    experiment, store, maps, pictures = stored
    figure = report.heads(experiment, store=store)
    grid = np.array(figure.axes).reshape(IMAGES * 2, 1 + HEADS)
    for image in range(IMAGES):
        assert np.array_equal(grid[2 * image, 0].images[0].get_array(), pictures[image])
        for line, (row, own) in zip(grid[2 * image :], maps.items()):
            assert line[1].get_ylabel() == row
            for axes, similarity in zip(line[1:], own[image], strict=True):
                below, above = axes.images
                shares = np.exp(similarity) / np.exp(similarity).sum()
                np.testing.assert_allclose(above.get_array(), shares / shares.max(), rtol=1e-6)
                assert below.get_extent() == above.get_extent() == [-0.5, SIDE - 0.5, SIDE - 0.5, -0.5]
                assert 0 < above.get_alpha() < 1 and len(axes.collections) == 1, "a line around what exceeds the mean"
    assert [axes.get_title() for axes in grid[0, 1:]] == [f"head {number}" for number in (1, 2, 3)]


def test_masks_are_of_the_head_with_the_lowest_entropy_and_their_components_are_numbered(stored) -> None:
    experiment, store, maps, pictures = stored
    grid = np.array(report.masks(experiment, store=store).axes).reshape(IMAGES, 3)
    assert [axes.get_title() for axes in grid[0]] == ["image", "ViT", "ViT + SAR"]
    for image, line in enumerate(grid):
        for axes, own in zip(line[1:], maps.values(), strict=True):
            entropies = entropy.map_entropy(torch.from_numpy(own[image]))
            kept = mass_mask(torch.from_numpy(own[image])[entropies.argmin()]).numpy()
            shown = np.asarray(axes.images[0].get_array()).reshape(SIDE, 16, SIDE, 16, 3).mean((1, 3, 4))
            whole = np.asarray(Image.fromarray(pictures[image]).resize((96, 96), Image.Resampling.BICUBIC))
            bright = shown / whole.reshape(SIDE, 16, SIDE, 16, 3).mean((1, 3, 4))
            assert np.array_equal(bright > 0.6, kept)
            labels, count = attention.ndimage.label(kept, np.ones((3, 3)))
            sizes = np.bincount(labels.ravel())[1:]
            numbers = {text.get_text(): labels[int(text.get_position()[1]), int(text.get_position()[0])] for text in axes.texts}
            found = [sizes[numbers[str(i)] - 1] for i in range(1, min(4, count) + 1)]
            assert len(numbers) == len(found) and 0 not in numbers.values() and found == sorted(sizes, reverse=True)[:4]


def test_a_map_step_by_step(stored) -> None:
    experiment, store, maps, pictures = stored
    picture, whole, excess, components, text = report.blobs(experiment, store=store, image=1, head=2).axes
    similarity = maps["ViT"][1, 2]
    assert np.array_equal(picture.images[0].get_array(), pictures[1])
    assert np.array_equal(whole.images[0].get_array(), similarity)
    above = similarity > similarity.mean()
    assert np.array_equal(excess.images[0].get_array().mask, ~above) and np.array_equal(
        components.images[0].get_array() > 0, above
    )
    *lines, total = text.texts[0].get_text().splitlines()
    terms = [float(line.rpartition("= ")[2]) for line in lines]
    assert float(total.split()[3]) == pytest.approx(sum(terms), abs=0.005 * (1 + len(terms)))
    assert len(lines) == len(components.texts) == entropy.component_counts(torch.from_numpy(similarity))


def test_what_comes_with_the_package_is_drawn_without_torch() -> None:
    """On a fresh clone, where nothing was trained; the page of Figure 2 names these numbers."""
    code = """
import sys
from sarlib import report
report.heads(), report.masks()
print(report.blobs().axes[4].texts[0].get_text())
assert not {"torch", "timm", "torchvision"} & set(sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (maps,) = attention._stored(None, None)
    assert maps.similarity.shape == (3, 6, 14, 14) and all(picture.shape == (98, 98, 3) for picture in maps.pictures)
    page = (Path(__file__).parents[2] / "book" / "notebooks" / "figure2.ipynb").read_text(encoding="utf-8")
    for part in ("P = 0.56", "P = 0.35", "P = 0.09", "log P = 0.32", "log P = 0.37", "log P = 0.21", "H = 0.91"):
        assert part in told and part.split()[-1] in page


@pytest.mark.parametrize("name", ["heads", "masks", "blobs"])
def test_drawings_read_on_any_page_and_are_reproducible(stored, name: str) -> None:
    experiment, store, *_ = stored
    one, two = (getattr(report, name)(experiment, store=store) for _ in range(2))
    assert one.patch.get_facecolor()[3] == 0
    for text in one.findobj(Text):
        if text.get_text():
            own = text.get_bbox_patch()  # numbers bring a black ground of their own
            assert (text.get_color(), own and own.get_facecolor()[:3]) in {(figures.INK, None), ("white", (0.0, 0.0, 0.0))}
    assert as_svg(one) == as_svg(two)


def as_svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def test_maps_that_are_not_in_the_store_are_named(stored, tmp_path: Path) -> None:
    experiment, *_ = stored
    for name in ("heads", "masks", "blobs"):
        with pytest.raises(ConfigError, match="the maps of run .* are not in .*: run the table first"):
            getattr(report, name)(experiment, store=Store(tmp_path / "elsewhere"))
