"""ImageNet-A and ImageNet-C as their archives unpack, and the mean corruption error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sarlib.config import ConfigError
from sarlib.data import inspect, released
from sarlib.data.folders import read_classes
from sarlib.data.released import ALEXNET, mce

WNIDS = ("n01498041", "n01531178")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in (*released.places("imagenet-a"), *released.places("imagenet-c")):
        for wnid in WNIDS:
            (tmp_path / place / wnid).mkdir(parents=True)
            (tmp_path / place / wnid / "0.JPEG").touch()
    (tmp_path / "imagenet-a" / "README.txt").touch()
    return tmp_path


def test_alexnet_has_a_mean_corruption_error_of_100() -> None:
    alexnet = {name: [100 * error * share for share in (0.8, 0.9, 1.0, 1.1, 1.2)] for name, error in ALEXNET.items()}
    assert mce(alexnet) == pytest.approx(100, abs=1e-12)
    assert len(ALEXNET) == 15 and sum(ALEXNET.values()) / 15 == pytest.approx(0.789, abs=1e-4)


def test_the_same_error_everywhere_counts_by_the_mean_of_the_reciprocals() -> None:
    by_hand = 50 * sum(1 / error for error in ALEXNET.values()) / 15
    assert mce({name: [50.0] * 5 for name in ALEXNET}) == pytest.approx(by_hand)
    better = {name: [50.0] * 5 for name in ALEXNET} | {"fog": [40.0, 40.0, 40.0, 40.0, 90.0]}
    assert mce(better) == pytest.approx(by_hand)


def test_seventy_five_folders(root: Path) -> None:
    places = released.places("imagenet-c")
    assert len(set(places)) == 75 and places[:2] == ["imagenet-c/gaussian_noise/1", "imagenet-c/gaussian_noise/2"]
    found = read_classes(root / "imagenet-a")
    assert found.classes == WNIDS and found.labels.tolist() == [0, 1] and found.ignored == ("README.txt",)


def test_other_images_have_another_fingerprint(root: Path) -> None:
    before = {name: inspect(name, root=root).fingerprint for name in ("imagenet-a", "imagenet-c")}
    assert len({*before.values()}) == 1, "the same names and sizes, wherever they lie"
    for name in before:
        (root / released.places(name)[0] / WNIDS[0] / "1.JPEG").touch()
        assert inspect(name, root=root).fingerprint != before[name]


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-c"])
def test_a_folder_that_is_missing_is_named_in_one_line(root: Path, name: str) -> None:
    place = random.Random(0).choice(released.places(name))
    (root / place).rename(root / "elsewhere")
    with pytest.raises(ConfigError) as error:
        inspect(name, root=root)
    assert "\n" not in str(error.value) and f"lacks 1 of the {len(released.places(name))} folders of {name}" in str(error.value)
    assert f"among them {place}/<wnid>/*.JPEG" in str(error.value)
    with pytest.raises(ConfigError, match="say DATA=<folder that holds it>"):
        inspect(name, root=None)
