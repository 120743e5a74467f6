"""Where batches come from: the choice, that it does not change them, reading ahead, and workers that die."""

import functools
import multiprocessing
import os
import signal
import threading
import time

import pytest
import small_batches
import torch
from small_batches import SIZE, equal

from sarlib.config import Augmentation, ConfigError, TrainingError
from sarlib.data import cache, loader
from sarlib.data.images import Images
from sarlib.data.loader import evaluation_batches

CPU = torch.device("cpu")
DEIT = Augmentation(crop="resized", flip=0.5, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25, mixup=0.8, cutmix=1.0)
batches = functools.partial(small_batches.batches, augmentation=DEIT)


def test_images_are_on_the_device_if_they_fit_there_else_in_memory_and_files_stay_files(images, files, monkeypatch):
    assert batches(images).source == "device" and batches(files).source == "files"
    monkeypatch.setattr(loader, "_free_bytes", lambda device: images.pixels.nbytes / loader.DEVICE_SHARE)
    assert batches(images).source == "device"
    monkeypatch.setattr(loader, "_free_bytes", lambda device: images.pixels.nbytes / loader.DEVICE_SHARE - 1)
    assert batches(images).source == "memory"
    monkeypatch.undo()
    assert loader._free_bytes(CPU) > 2**28


def test_the_choice_can_be_forced(images, files, monkeypatch):
    for source in cache.SOURCES:
        monkeypatch.setenv("SAR_INPUT", source)
        assert batches(images).source == source
    monkeypatch.setenv("SAR_INPUT", "")
    assert batches(images).source == "device"
    for source, shown, message in (("ram", images, "choose from device, memory, files"), ("memory", files, "sarlib.data.load")):
        monkeypatch.setenv("SAR_INPUT", source)
        with pytest.raises(ConfigError, match=message) as error:
            batches(shown)
        assert "\n" not in str(error.value)


def test_device_and_memory_give_the_same_batches(images, monkeypatch):
    whole = list(batches(images).epoch(1))
    monkeypatch.setenv("SAR_INPUT", "memory")
    assert equal(batches(images).epoch(1), whole)
    assert equal(batches(images).epoch(1, start=2), whole[2:])
    slices = [batches(images, rank=rank, world_size=3).epoch(1) for rank in range(3)]
    assert equal([tuple(map(torch.cat, zip(*parts))) for parts in zip(*slices)], whole)


def test_decoded_images_can_go_picture_by_picture_as_files_do(images, files, monkeypatch):
    expected = list(batches(files).epoch(0))
    monkeypatch.setenv("SAR_INPUT", "files")
    assert equal(batches(images, data_workers=1).epoch(0), expected)


def test_reading_ahead_keeps_the_order_and_stays_within_its_limit():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    found = []
    for item in loader._read_ahead(items(), device=CPU):
        time.sleep(0.01)
        found.append(item)
        assert len(made) <= item + 1 + 3  # two ready and one in the making
    assert found == list(range(10))
    assert list(loader._read_ahead([], device=CPU)) == []


def test_what_goes_wrong_ahead_is_raised_in_its_place():
    def items():
        yield 1
        raise OSError("no such disk")

    stream = loader._read_ahead(items(), device=CPU)
    assert next(stream) == 1
    with pytest.raises(OSError, match="no such disk"):
        next(stream)


def test_nobody_reads_on_for_a_reader_who_left(images):
    indices = [torch.arange(10)] * 1000
    for leave in (lambda stream: stream.close(), lambda stream: next(stream)):
        stream = loader._from_memory(images.pixels, indices, device=CPU)
        next(stream)
        leave(stream)
        del stream
    ahead = [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
    for thread in ahead:
        thread.join(600)
    assert not any(thread.is_alive() for thread in ahead)


def _kill_a_worker():
    worker = multiprocessing.active_children()[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


@pytest.mark.parametrize("read", ["train", "evaluate"])
def test_a_worker_that_dies_is_one_line(files, monkeypatch, read):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds; five by default
    if read == "train":
        stream = batches(files, batch_size=2, data_workers=1).epoch(0)
    else:
        stream = evaluation_batches(files, batch_size=2, image_size=SIZE, device="cpu", data_workers=1)
    next(stream)
    _kill_a_worker()
    with pytest.raises(TrainingError, match="a process that reads images died.*fewer workers") as error:
        for _ in stream:
            pass
    assert "\n" not in str(error.value) and error.value.__cause__ is None and error.value.__suppress_context__
    del stream
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError])
@pytest.mark.parametrize("data_workers", [0, 1])
def test_errors_of_another_kind_are_not_taken_for_a_dead_worker(files, monkeypatch, kind, data_workers):
    def broken(self, index):
        raise kind("a bug")

    monkeypatch.setattr(Images, "picture", broken)
    with pytest.raises(kind, match="a bug") as error:
        list(batches(files, data_workers=data_workers).epoch(0))
    assert not isinstance(error.value, TrainingError)
