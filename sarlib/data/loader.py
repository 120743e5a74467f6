"""Batches for training and for evaluation.

A training batch is a function of (seed, epoch, step): not of what ran before, the number of data workers, the device or the
number of ranks. That makes an interrupted run resumable and one on several GPUs comparable with one on one. Its images are

device  all on the device (on a CPU: in its memory) as bytes, picked and augmented there
memory  picked in host memory, mostly a memory map, by a thread that reads ahead, and augmented on the device
files   decoded one by one by data workers, which also cut a random resized crop from the whole photograph; the rest of the
        augmentation is the device's

Decoded images come from the device if they fit there, else from memory: both give the same batches. Files stay files.
SAR_INPUT=device, memory or files forces one of them, from `sarlib.data.load` on, which decodes files for the first two.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from sarlib.config import Augmentation, ConfigError, TrainingError, require
from sarlib.data import augment
from sarlib.data.cache import forced_source, stay_files
from sarlib.data.images import Images, in_memory, to_bytes, to_device

#: Images may take so much of the memory that the device has free; the rest is for the training itself.
DEVICE_SHARE = 0.25

_CHUNK = 2**22  # bytes of float32 that a core augments at a time: few enough to stay in its cache, enough to be worth the calls
_AHEAD = 2  # batches that are prepared while one is used
_PATIENCE = 1.0  # seconds that a reader who leaves early waits for the batch in preparation
_ORDER, _BATCH, _PICTURE = 0, 1, 2  # what a random stream is for


class Batch(NamedTuple):
    """`images` (B, 3, S, S), normalised, and `targets` (B, classes), soft labels that sum to 1; float32, on the device."""

    images: Tensor
    targets: Tensor


class TrainBatches:
    """Augmented batches of a training set, and the order they come in; `source` says where they come from.

    The last images of an epoch that fill no batch are dropped; a set smaller than a batch is one batch. With several ranks each
    yields its slice of the global batch. Raises `ConfigError` if images in memory are not image_size x image_size, ranks do not
    divide the batch, or a source is forced that the images cannot have; while iterating `TrainingError` if a data worker dies.
    """

    #: Do the targets follow crops? Then crops of pictures are left to the batch.
    targets_move = False

    def __init__(
        self,
        images: Images,
        *,
        augmentation: Augmentation,
        batch_size: int,
        image_size: int,
        seed: int,
        device: torch.device | str,
        data_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _require_size(images, image_size)
        self._images, self._seed, self._size, self._data_workers = images, seed, image_size, data_workers
        self._device, self._batch = torch.device(device), min(batch_size, len(images))
        uneven = f"a batch of {self._batch} images cannot be shared by {world_size} ranks: choose a multiple"
        require(self._batch % world_size == 0, uneven)
        self.steps_per_epoch = len(images) // self._batch
        self.source = _source(images, self._device)
        if self.source == "files":
            crop = None
            if augmentation.crop == "resized" and not self.targets_move:
                crop = RandomResizedCrop(image_size, augmentation.crop_scale, interpolation=InterpolationMode.BICUBIC)
                augmentation = dataclasses.replace(augmentation, crop="none")
            self._pictures = _Pictures(images, image_size, crop)
        else:
            self._pixels = images.pixels.to(self._device) if self.source == "device" else images.pixels
        self._augmentation = augmentation
        # Rows of the global batch that this rank prepares, with the mixing partners of its outermost, and its own among them.
        share = self._batch // world_size
        first, end = rank * share, (rank + 1) * share
        mixed = augmentation.mixup > 0 or augmentation.cutmix > 0
        self._rows = slice(first - first % 2, min(end + end % 2, self._batch)) if mixed else slice(first, end)
        self._own = slice(first - self._rows.start, end - self._rows.start)
        # glibc gives back freed blocks above a size that grows with the largest one freed so far, up to 32 MiB: from now on it
        # keeps what a chunk frees for the next one, which saves a fifth of the time.
        torch.empty(2**25 - 2**20, dtype=torch.uint8)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Batches `start`, start + 1, ... of an epoch."""
        order = torch.randperm(len(self._images), generator=torch.Generator().manual_seed(self._stream(_ORDER, epoch)))
        steps = range(start, self.steps_per_epoch)
        indices = [order[step * self._batch :][: self._batch][self._rows] for step in steps]
        for step, index, pixels in zip(steps, indices, self._read(epoch, indices)):
            generator = torch.Generator().manual_seed(self._stream(_BATCH, epoch, step))
            yield self._made(pixels, index, generator)

    def _made(self, pixels: Tensor, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The batch of the images at `index`, `pixels` (n, 3, S, S) uint8 on the device, drawn from `generator`."""
        plan = augment.draw(self._batch, augmentation=self._augmentation, size=self._size, generator=generator)
        plan, images = plan.rows(self._rows), self._empty(*pixels.shape)

        def work(rows: slice) -> None:
            augment.apply(pixels[rows], plan.rows(rows).to(self._device), out=images[rows])

        self._in_chunks(work, pixels)
        return self._with_targets(images, index, plan)

    def _with_targets(self, images: Tensor, index: Tensor, plan: augment.Plan) -> tuple[Tensor, ...]:
        """This rank's rows, with their targets, of the augmented `images` that are the ones at `index`."""
        labels = to_device(self._images.labels[index], self._device)
        classes, smoothing = len(self._images.classes), self._augmentation.label_smoothing
        targets = augment.soft_labels(labels, classes=classes, smoothing=smoothing, mixing=plan.mixing)
        return Batch(images[self._own], targets[self._own])

    def _stream(self, purpose: int, epoch: int, index: int = 0) -> int:
        """The seed of a random stream: 63 bits that differ for every argument."""
        names = (purpose, self._seed, epoch, index)  # a SeedSequence ignores trailing zeros: keep the length fixed
        return int(np.random.SeedSequence(names).generate_state(1, np.uint64)[0] >> 1)

    def _read(self, epoch: int, indices: list[Tensor]) -> Iterator[Tensor]:
        """The images at each of `indices`, (n, 3, S, S) uint8 on the device."""
        if self.source == "files":
            items = [[(i, self._stream(_PICTURE, epoch, i)) for i in index.tolist()] for index in indices]
            return _from_files(self._pictures, items, data_workers=self._data_workers, device=self._device)
        if self.source == "memory":
            return _from_memory(self._pixels, indices, device=self._device)
        return (self._pixels.index_select(0, to_device(index, self._device)) for index in indices)

    def _empty(self, *shape: int) -> Tensor:
        # numpy asks for huge pages, which take a third of the time of torch's pages to write for the first time
        on_cpu = self._device.type == "cpu"
        return torch.from_numpy(np.empty(shape, np.float32)) if on_cpu else torch.empty(shape, device=self._device)

    def _in_chunks(self, work: Callable[[slice], None], pixels: Tensor) -> None:
        """Call `work` on rows of the images, on as many threads as torch may use: each chunk stays in a core's cache. If cores
        shared every operation, as torch's own threads do, they would wait for each other some hundred times a batch."""
        # chunks are even, so that mixing partners are in one
        n, on_cpu = len(pixels), self._device.type == "cpu"
        step = max(2, _CHUNK // (4 * pixels[0].numel()) // 2 * 2) if on_cpu else n
        chunks, threads = [slice(start, min(start + step, n)) for start in range(0, n, step)], torch.get_num_threads()
        if threads == 1 or len(chunks) == 1:
            list(map(work, chunks))
            return
        with ThreadPoolExecutor(min(threads, len(chunks)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, chunks))
        torch.set_num_threads(threads)  # it is each thread's own, but the last one said is also that of threads to come


def in_memory_if_small(images: Images, size: int) -> Images:
    """`in_memory`, but for images that `stay_files`: for sets with annotations, which `sarlib.data.load` does not decode."""
    return images if stay_files(images, size) else in_memory(images, size)


def evaluation_batches(
    images: Images, *, batch_size: int, image_size: int, device: torch.device | str, data_workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order, as `Images.view` shows it: normalised (B, 3, S, S) float32 on `device`, and its indices (B,).
    Raises `ConfigError` if images in memory are not image_size x image_size."""
    _require_size(images, image_size)
    device, indices = torch.device(device), torch.arange(len(images)).split(batch_size)
    if images.files is None:
        shown = (to_device(images.pixels[index], device) for index in indices)
    else:
        items = [[(i, 0) for i in index.tolist()] for index in indices]
        shown = _from_files(_Pictures(images, image_size), items, data_workers=data_workers, device=device)
    for index, pixels in zip(indices, shown):
        yield augment.normalise(pixels), index


def _require_size(images: Images, size: int) -> None:
    if images.pixels is not None and images.image_size != (size, size):
        height, width = images.image_size
        raise ConfigError(f"images in memory are {height} x {width} px, the run wants {size} x {size}")


def _source(images: Images, device: torch.device) -> str:
    """Where `images` come from; `ConfigError` if the forced source is impossible for them."""
    source = forced_source()
    if images.files is None:
        return source or ("device" if images.pixels.nbytes <= DEVICE_SHARE * _free_bytes(device) else "memory")
    undone = f"SAR_INPUT={source}, but the images are files: let `sarlib.data.load` decode them, or unset it"
    require(source in (None, "files"), undone)
    return "files"


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _from_memory(pixels: Tensor, indices: Iterable[Tensor], *, device: torch.device) -> Iterator[Tensor]:
    """pixels[index] on the device for each of `indices`, read ahead by a thread."""

    def pick(index: Tensor) -> Tensor:
        batch = torch.empty(len(index), *pixels.shape[1:], dtype=pixels.dtype, pin_memory=device.type == "cuda")
        return torch.index_select(pixels, 0, index, out=batch)

    for batch in _read_ahead(map(pick, indices), device=device):
        yield batch.to(device, non_blocking=True)


def _from_files(pictures: _Pictures, items: list[list], *, data_workers: int, device: torch.device) -> Iterator[Tensor]:
    """The batches of `pictures` for each of `items` on the device; the error of a picture that cannot be read is raised."""
    loader = DataLoader(
        pictures,
        sampler=items,
        batch_size=None,  # an item is one
        num_workers=data_workers,
        pin_memory=data_workers > 0 and device.type == "cuda",
        generator=torch.Generator(),  # of the workers' unused seeds: without one the loader draws from the global generator
    )
    # Without workers crops borrow the global generator, which is the model's: no thread beside it then.
    # With workers the thread keeps torch's handler of dead children out of the main thread, where it would interrupt anything.
    shown = _read_ahead(loader, device=device) if data_workers else iter(loader)
    try:
        for batch in shown:
            if isinstance(batch, ConfigError):
                raise batch
            yield to_device(batch, device)
    except (RuntimeError, OSError, EOFError) as error:
        # A living worker's errors begin with "Caught"; an OSError: a batch was announced, and who held its memory is gone.
        lost = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not str(error).startswith("Caught")
        if data_workers == 0 or not (lost or str(error).startswith("DataLoader worker")):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        died = "a process that reads images died, mostly for want of memory or of shared memory (/dev/shm)"
        raise TrainingError(f"{died}: {reason}; the last checkpoint is kept, go on with fewer workers") from None


def _read_ahead(items: Iterable[Any], *, device: torch.device) -> Iterator[Any]:
    """The `items`, some of them prepared by a thread before they are used on `device`. What they raise is raised here.

    Not an executor's thread: data workers are forked from it, and would fail at their end, where it waits for its threads.
    """
    gpu = torch.cuda.current_device() if device == torch.device("cuda") else device.index
    ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    free, abandoned, end = threading.Semaphore(_AHEAD), threading.Event(), object()

    def prepare() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(gpu)  # it is each thread's own, and decides where pinned memory is known
            for item in items:
                ready.put((item, None))
                free.acquire()
                if abandoned.is_set():
                    return
            ready.put((end, None))
        except BaseException as error:
            ready.put((end, error))

    thread = threading.Thread(target=prepare, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (found := ready.get())[0] is not end:
            free.release()
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        abandoned.set()
        free.release()
        thread.join(_PATIENCE)


class _Pictures(Dataset):
    """n pairs (index, seed) -> (n, 3, S, S) uint8: picture `index` as `Images.view` shows it, or a random `crop` drawn from
    `seed`. The error of one that cannot be read is returned: raised in a worker it would lose its one line among tracebacks."""

    def __init__(self, images: Images, size: int, crop: RandomResizedCrop | None = None) -> None:
        self._images, self._size, self._crop = images, size, crop

    def __getitem__(self, items: list[tuple[int, int]]) -> Tensor | ConfigError:
        try:
            return torch.stack([to_bytes(self._picture(*item)) for item in items])
        except ConfigError as error:
            return error

    def _picture(self, index: int, seed: int) -> Image.Image:
        if self._crop is None:
            return self._images.view(index, self._size)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the accelerators
            return self._crop(self._images.picture(index))
