"""Decoded images on disk: made once, checked, made anew when they do not hold, never half there."""

import dataclasses
import multiprocessing
import os
import pwd
import resource
import signal
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sarlib.config import Augmentation, ConfigError
from sarlib.data import cache
from sarlib.data.images import Images, central_view, to_bytes
from sarlib.data.loader import TrainBatches, evaluation_batches

SIZE = 24
DEIT = Augmentation(crop="resized", flip=0.5, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path):
    """Twelve pictures of different sizes."""
    generator = np.random.default_rng(0)
    files = tuple(tmp_path / f"{i}.png" for i in range(12))
    for i, file in enumerate(files):
        Image.fromarray(generator.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)).save(file)
    return Images(labels=torch.arange(12) % 3, classes=("a", "b", "c"), files=files)


def expected(images):
    return torch.stack([to_bytes(central_view(images.picture(i), SIZE)) for i in range(len(images))])


def kept(folder):
    """Names of all that lies in the cache, without its locks."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


ENTRY = ["images.uint8", "manifest.json"]


def test_the_second_time_nothing_is_decoded(images, cache_folder, monkeypatch, capsys):
    first = cache.decoded(images, SIZE)
    assert torch.equal(first.pixels, expected(images)) and torch.equal(first.labels, images.labels)
    assert first.classes == images.classes and first.image_size == (SIZE, SIZE) and kept(cache_folder) == ENTRY
    monkeypatch.setattr(Images, "picture", lambda self, index: pytest.fail("decoded again"))
    capsys.readouterr()
    second = cache.decoded(images, SIZE)
    assert torch.equal(first.pixels, second.pixels) and capsys.readouterr().err == ""
    second.pixels[0] = 0  # stays in this process
    assert torch.equal(cache.decoded(images, SIZE).pixels, first.pixels)


def test_sizes_and_subsets_are_entries_of_their_own(images, cache_folder):
    assert cache.decoded(images, 8).image_size == (8, 8)
    whole = cache.decoded(images, SIZE)
    part = cache.decoded(images.subset([3, 1]), SIZE)
    assert torch.equal(part.pixels, whole.pixels[[3, 1]]) and len(kept(cache_folder)) == 6


def test_pixels_of_another_size_are_resized_once(images, cache_folder):
    small = Images(
        labels=images.labels, classes=images.classes, pixels=torch.arange(12)[:, None, None, None].expand(12, 3, 8, 8).byte()
    )
    assert cache.decoded(small, 8) is small and not cache_folder.exists()
    assert torch.equal(cache.decoded(small, SIZE).pixels, expected(small)) and kept(cache_folder) == ENTRY
    other = dataclasses.replace(small, pixels=small.pixels + 1)
    assert torch.equal(cache.decoded(other, SIZE).pixels, expected(other))


def _truncate(entry, images):
    os.truncate(entry / "images.uint8", 100)


def _flip_a_bit(entry, images):
    path = entry / "images.uint8"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _garble_the_manifest(entry, images):
    (entry / "manifest.json").write_bytes(b'{"shape": [12')


def _lose_the_manifest(entry, images):
    (entry / "manifest.json").unlink()


def _lose_the_images(entry, images):
    (entry / "images.uint8").unlink()


def _change_a_file(entry, images):
    Image.new("RGB", (30, 30), (9, 8, 7)).save(images.files[5])


def _touch_a_file(entry, images):
    os.utime(images.files[5], (1, 1))


@pytest.mark.parametrize(
    "damage, flaw",
    [
        (_truncate, "it has 100 bytes"),
        (_flip_a_bit, "checksum is wrong"),
        (_garble_the_manifest, "manifest cannot be read"),
        (_lose_the_manifest, "no manifest"),
        (_lose_the_images, "images cannot be read"),
        (_change_a_file, "have changed"),
        (_touch_a_file, "have changed"),
    ],
)
def test_an_entry_that_does_not_hold_is_made_anew_and_told(images, cache_folder, capsys, damage, flaw):
    cache.decoded(images, SIZE)
    (entry,) = cache_folder.iterdir()
    damage(entry, images)
    capsys.readouterr()
    assert torch.equal(cache.decoded(images, SIZE).pixels, expected(images))
    told = [line for line in capsys.readouterr().err.splitlines() if line and "decoding" not in line]
    assert len(told) == 1 and flaw in told[0] and "made anew" in told[0]
    cache.decoded(images, SIZE)
    assert "anew" not in capsys.readouterr().err and kept(cache_folder) == ENTRY


def _decode_slowly(images, start, counts):
    picture, decodings = Images.picture, []

    def slowly(self, index):
        decodings.append(index)
        time.sleep(0.02)
        return picture(self, index)

    Images.picture = slowly
    start.wait()
    pixels = cache.decoded(images, SIZE).pixels
    counts.put((len(decodings), int(pixels.sum())))


def test_two_processes_at_once_decode_once(images):
    context = multiprocessing.get_context("fork")
    start, counts = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_decode_slowly, args=(images, start, counts)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [counts.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(600)
    assert sorted(count for count, _ in found) == [0, 12]
    assert {total for _, total in found} == {int(expected(images).sum())}


def _die_while_decoding(images):
    picture = Images.picture

    def deadly(self, index):
        if index == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(self, index)

    Images.picture = deadly
    cache._AT_A_TIME = 1  # so that something has been written by then
    cache.decoded(images, SIZE)


def test_what_a_killed_process_left_is_swept(images, cache_folder):
    process = multiprocessing.get_context("fork").Process(target=_die_while_decoding, args=(images,))
    process.start()
    process.join(600)
    assert process.exitcode == -signal.SIGKILL and any(name.endswith(".tmp") for name in kept(cache_folder))
    assert torch.equal(cache.decoded(images, SIZE).pixels, expected(images)) and kept(cache_folder) == ENTRY


def test_a_full_disk_is_one_line_and_leaves_nothing(images, cache_folder, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot keep 0.00 GB .*File too large.*SAR_CACHE") as error:
            cache.decoded(images, SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and kept(cache_folder) == []
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**6, 100))
    with pytest.raises(ConfigError, match=r"0.00 GB are free"):
        cache.decoded(images, SIZE)
    assert kept(cache_folder) == []


def test_a_folder_that_cannot_be_written_is_one_line(images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAR_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot keep .*SAR_CACHE") as error:
        cache.decoded(images, SIZE)
    assert "\n" not in str(error.value)


def test_without_a_home_it_is_one_line_that_names_it(images, monkeypatch):
    """A user id without an account, as a container may have one."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("SAR_CACHE", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigError, match="set HOME, or say SAR_CACHE") as error:
        cache.decoded(images, SIZE)
    assert "\n" not in str(error.value)


def test_a_picture_that_does_not_decode_is_one_line_and_leaves_nothing(images, cache_folder):
    images.files[7].write_bytes(images.files[7].read_bytes()[:200])
    with pytest.raises(ConfigError, match="7.png") as error:
        cache.decoded(images, SIZE)
    assert "\n" not in str(error.value) and kept(cache_folder) == []
    images.files[7].unlink()
    with pytest.raises(ConfigError, match="7.png"):
        cache.decoded(images, SIZE)


@pytest.mark.parametrize("augmentation", [Augmentation(crop="pad", flip=0.5, mixup=0.5), DEIT], ids=["pad", "deit"])
def test_the_map_gives_the_batches_of_pixels_in_memory(images, augmentation):
    mapped = cache.decoded(images, SIZE)
    in_memory = dataclasses.replace(mapped, pixels=expected(images))
    settings = {"augmentation": augmentation, "batch_size": 4, "image_size": SIZE, "seed": 1, "device": "cpu"}
    for (x, target), (y, other) in zip(
        *(TrainBatches(source, **settings).epoch(0) for source in (mapped, in_memory)), strict=True
    ):
        assert torch.equal(x, y) and torch.equal(target, other)


@pytest.mark.skipif("SAR_TEST_DATA" not in os.environ, reason="SAR_TEST_DATA does not name a folder with real photographs")
def test_real_photographs_come_the_same_from_the_map_and_from_files():
    files = tuple(sorted(Path(os.environ["SAR_TEST_DATA"]).rglob("*.JPEG"))[:200])
    if not files:
        pytest.skip("no photographs (*.JPEG) below the folder that SAR_TEST_DATA names")
    photographs = Images(labels=torch.zeros(len(files), dtype=torch.int64), classes=("photograph",), files=files)
    mapped = cache.decoded(photographs, 224)
    settings = {"batch_size": 50, "image_size": 224, "device": "cpu"}
    for (x, _), (y, _) in zip(*(evaluation_batches(source, **settings) for source in (mapped, photographs)), strict=True):
        assert torch.equal(x, y)
    settings = {"augmentation": DEIT, "batch_size": 50, "image_size": 224, "device": "cpu", "seed": 0}
    means = []
    for source, workers in ((mapped, 0), (photographs, 2)):
        batches = TrainBatches(source, data_workers=workers, **settings)
        means.append(torch.stack([x.mean((0, 2, 3)) for x, _ in batches.epoch(0)]).mean(0))
    assert (means[0] - means[1]).abs().max() < 0.3  # of one standard deviation: the same photographs, other crops and colours
