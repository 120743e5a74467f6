"""Clips from files: UCF101, decoded by torchcodec, and the sequences of DAVIS 2016 with the object's mask in every frame."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sarlib.config import ConfigError, require
from sarlib.data.folders import Split, read_classes

if TYPE_CHECKING:
    from torch import Tensor

    from sarlib.data.images import Images

DAVIS, UCF101 = "davis2016-val", "ucf101"
LAYOUTS = {
    DAVIS: "DATA/davis2016-val/{JPEGImages,Annotations}/<sequence>/<number>.{jpg,png}",
    UCF101: "DATA/UCF-101/<class>/*.avi and DATA/ucfTrainTestlist/{train,test}list01.txt",
}


def find(root: Path, name: str) -> tuple[Split, Split]:
    """The frames of DAVIS by sequence, twice, as there are none to train on; UCF101's videos by its first official split."""
    lists = [root / "ucfTrainTestlist" / f"{split}list01.txt" for split in ("train", "test")]
    there = all(path.is_file() for path in lists) if name == UCF101 else (root / name / "JPEGImages").is_dir()
    require(there, f"{name} is not below {root}: expected {LAYOUTS[name]}")
    if name == DAVIS:
        return (read_classes(root / name / "JPEGImages"),) * 2
    videos = [[line.split()[0] for line in path.read_text().splitlines() if line.strip()] for path in lists]
    classes = sorted({video.partition("/")[0] for split in videos for video in split})
    labels = [np.array([classes.index(video.partition("/")[0]) for video in split]) for split in videos]
    files = [tuple(root / "UCF-101" / video for video in split) for split in videos]
    return tuple(Split(tuple(classes), *pair) for pair in zip(labels, files, strict=True))


def sequences(images: Images, *, frames: int, size: int) -> Images:
    """Each sequence cut into clips of successive frames, a rest left out; squashed to squares, as Table 11's photographs are:
    no object is cut off."""
    import torch
    from PIL import Image

    from sarlib.data.images import decode, to_bytes
    from sarlib.data.shapes import boxes

    def masked(photograph: Path) -> Tensor:
        path = photograph.parents[2] / "Annotations" / photograph.parent.name / f"{photograph.stem}.png"
        require(path.is_file(), f"{photograph} has no mask {path}: expected {LAYOUTS[DAVIS]}")
        with Image.open(path) as file:
            return torch.from_numpy(np.asarray(file.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 0)

    of_sequence = [(images.labels == label).nonzero()[:, 0] for label in images.labels.unique()]
    longest = max(map(len, of_sequence))
    require(longest >= frames, f"the sequences have {longest} frames at most: take clips of fewer than {frames}")
    chosen = torch.cat([index[: len(index) // frames * frames] for index in of_sequence])
    files = [images.files[index] for index in chosen.tolist()]
    shown = [to_bytes(decode(file).resize((size, size), Image.Resampling.BICUBIC)) for file in files]
    masks = torch.stack(list(map(masked, files))).view(-1, frames, size, size)
    labels = images.labels[chosen][::frames]
    kinds = torch.where(masks.any((2, 3)), labels[:, None], -1)
    pixels, around = torch.stack(shown).view(len(labels), -1, size, size), torch.from_numpy(boxes(masks.numpy()))
    return dataclasses.replace(images, files=None, labels=labels, pixels=pixels, masks=masks, mask_labels=kinds, boxes=around)


def videos(images: Images, *, frames: int, size: int) -> Images:
    """As many frames of each video, evenly over all of it; shorter side resized, centre cropped. `ConfigError` for one that
    cannot be decoded, and without torchcodec."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # it is there without FFmpeg's libraries
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{UCF101} is decoded by torchcodec ({reason}): pip install 'sarlib[video]', and FFmpeg") from error
    import torch
    from torchvision.transforms.v2.functional import center_crop, resize

    def clip(path: Path) -> Tensor:
        try:
            video = VideoDecoder(path, num_ffmpeg_threads=1)
            middles = (np.arange(frames) + 0.5) / frames * video.metadata.num_frames
            shown = video.get_frames_at(middles.astype(int).tolist()).data
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"cannot decode the video {path}: {reason}; replace or remove the file") from error
        return center_crop(resize(shown, [size], antialias=True), [size, size]).flatten(0, 1)

    with ThreadPoolExecutor() as pool:
        return dataclasses.replace(images, files=None, pixels=torch.stack(list(pool.map(clip, images.files))))
