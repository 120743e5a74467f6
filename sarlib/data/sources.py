"""Where the images of a training come from.

device  all of them lie on the device (on a CPU: in its memory) as bytes, batches are picked and augmented there
memory  batches are picked in host memory, mostly a memory map, and augmented on the device
files   `DataLoader` workers decode one picture at a time and augment it with timm's transforms

Images that are decoded come from the device if they fit there, else from memory: both give the same batches. Files stay files.
SAR_INPUT=device, memory or files forces one of them, from `load` on, which decodes files for the first two.
"""

from __future__ import annotations

import os

import torch

from sarlib.config import ConfigError
from sarlib.data.images import Images

SOURCES = ("device", "memory", "files")
VARIABLE = "SAR_INPUT"

#: Images may take so much of the memory that the device has free; the rest is for the training itself.
DEVICE_SHARE = 0.25


def forced() -> str | None:
    """The source that SAR_INPUT names, None if it names none; `ConfigError` for one that does not exist."""
    source = os.environ.get(VARIABLE) or None
    if source is not None and source not in SOURCES:
        raise ConfigError(f"{VARIABLE}={source} names no source of images: choose from {', '.join(SOURCES)}, or unset it")
    return source


def choose(images: Images, *, device: torch.device) -> str:
    """The source of `images`; `ConfigError` if the forced one is impossible for them."""
    source = forced()
    if images.files is not None:
        if source in ("device", "memory"):
            raise ConfigError(f"{VARIABLE}={source}, but the images are files: let `sarlib.data.load` decode them, or unset it")
        return "files"
    if source is not None:
        return source
    return "device" if images.pixels.nbytes <= DEVICE_SHARE * _free_bytes(device) else "memory"


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
