"""Clips: drifting objects whose sense no frame shows, DAVIS sequences with their masks, UCF101's lists and decoder."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from sarlib import data
from sarlib.config import ConfigError, Data
from sarlib.data import load, shapes
from sarlib.data.images import Images

SIZE, T = 32, 4


@pytest.fixture(scope="module")
def clips() -> Images:
    return shapes.generate("object", 1600, image_size=SIZE, seed=5, frames=T)


def test_a_clip_is_a_function_of_seed_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shapes.generate("clipart", 20, image_size=SIZE, seed=7, frames=3)
    assert whole.pixels.shape == (20, 9, SIZE, SIZE) and whole.masks.shape == (20, 9, SIZE, SIZE) and whole.frames == 3
    monkeypatch.setattr(shapes, "_CHUNK", 7)
    for part in (
        shapes.generate("clipart", 20, image_size=SIZE, seed=7, frames=3).subset(range(11, 20)),
        shapes.generate("clipart", 9, image_size=SIZE, seed=7, frames=3, start=11),
    ):
        for name in ("labels", "pixels", "masks", "mask_labels", "boxes"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[11:]), name
    longer = shapes.generate("clipart", 20, image_size=SIZE, seed=7, frames=5)
    assert torch.equal(longer.pixels[:, :9], whole.pixels), "a longer clip begins like a shorter one"


def test_training_and_test_clips_are_those_of_the_declaration() -> None:
    spec = Data(name="shapes-object", image_size=SIZE, train_size=12, test_size=8, frames=T)
    train, test = load(spec, seed=3)
    assert train.classes == test.classes == shapes.CLIP_CLASSES
    assert torch.equal(train.pixels, shapes.generate("object", 12, image_size=SIZE, seed=3, frames=T).pixels)
    assert torch.equal(test.pixels, load(spec, seed=4)[1].pixels)
    with pytest.raises(ConfigError, match="digits has images, no clips"):
        load(Data(name="digits", image_size=SIZE, frames=T), seed=0)


def centroids(clips: Images) -> torch.Tensor:
    """Of the first object in every frame: (n, T, 2), x and y in pixels; NaN where nothing of it is to be seen."""
    masks = clips.masks.unflatten(1, (T, -1))[:, :, 0].float()
    at = torch.arange(SIZE) + 0.5
    x, y = (masks.sum(dim) @ at for dim in (2, 3))
    return torch.stack([x, y], -1) / masks.sum((2, 3))[..., None]


def test_the_ground_is_still_and_the_object_moves_by_its_label(clips: Images) -> None:
    frames = clips.pixels.unflatten(1, (T, 3))
    covered = clips.masks.unflatten(1, (T, -1)).any((1, 2))
    still = (frames == frames[:, :1]).all((1, 2))
    assert still[~covered].all() and not still[covered].all()
    moved = centroids(clips).diff(dim=1)
    rightwards = torch.tensor([name.endswith("to the right") for name in clips.classes])[clips.labels]
    across = moved[..., 0].nanmedian(1).values
    agree = (across > 0) == rightwards
    assert agree[~across.isnan()].float().mean() > 0.9, "but for those that come back on the other side"
    assert moved[..., 1].abs().nanmedian() < 0.5


def test_no_frame_shows_the_sense(clips: Images) -> None:
    """Neither where the object is, nor how much of it, nor a classifier that sees the frame; two frames do."""
    sense = (clips.labels % 2).numpy()
    frames = clips.pixels.unflatten(1, (T, 3)).float()
    area = clips.masks.unflatten(1, (T, -1))[:, :, 0].sum((2, 3)).float()
    places = centroids(clips)
    small = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 4).view(len(clips), T, -1) / 255
    for frame in range(T):
        for statistic in (*places[:, frame].unbind(-1), area[:, frame]):
            one, other = (statistic[sense == side] for side in (0, 1))
            error = (one[~one.isnan()].var() / len(one) + other[~other.isnan()].var() / len(other)).sqrt()
            assert (one.nanmean() - other.nanmean()).abs() < 4 * error
        seen = np.concatenate([small[:, frame].numpy(), places[:, frame].nan_to_num().numpy()], 1)
        assert accuracy(seen, sense) < 0.57
    moved = places[:, 1:] - places[:, :-1]
    assert accuracy((moved[..., 0].nan_to_num().numpy() > 0).astype(float), sense) > 0.9


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    half = len(labels) // 2
    return LogisticRegression(C=0.1, max_iter=2000).fit(features[:half], labels[:half]).score(features[half:], labels[half:])


def test_an_object_is_one_mask_a_frame(clips: Images) -> None:
    by_frame = clips.by_frame()
    assert len(by_frame) == T * len(clips) and by_frame.frames == 1
    assert torch.equal(by_frame.pixels[T : 2 * T].flatten(0, 1), clips.pixels[1])
    shown = by_frame.mask_labels >= 0
    assert torch.equal(shown, by_frame.masks.any((2, 3)))
    shape = by_frame.labels // 2
    assert torch.equal(by_frame.mask_labels[:, 0][shown[:, 0]], shape[shown[:, 0]])
    assert clips.subset([3]).by_frame().by_frame().pixels.shape == (T, 3, SIZE, SIZE)


# ---- DAVIS -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sequences of 7 and 5 frames, 40 x 20 px, whose object goes to the right by 4 px a frame."""
    for sequence, frames in (("bear", 7), ("cow", 5)):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "davis2016-val" / kind / sequence).mkdir(parents=True)
        for frame in range(frames):
            mask = np.zeros((20, 40), np.uint8)
            mask[5:15, 4 * frame : 4 * frame + 8] = 255
            pixels = np.stack([mask, mask // 2, 10 * np.full_like(mask, frame)], -1)
            Image.fromarray(pixels).save(tmp_path / f"davis2016-val/JPEGImages/{sequence}/{frame:05d}.jpg", quality=95)
            Image.fromarray(mask).save(tmp_path / f"davis2016-val/Annotations/{sequence}/{frame:05d}.png")
    return tmp_path


def test_sequences_are_cut_into_clips_with_a_mask_in_every_frame(davis: Path) -> None:
    spec = Data(name="davis2016-val", image_size=20, frames=3)
    _, clips = load(spec, seed=0, root=davis)
    assert clips.classes == ("bear", "cow") and clips.labels.tolist() == [0, 0, 1]
    assert clips.pixels.shape == (3, 9, 20, 20) and clips.masks.shape == (3, 3, 20, 20)
    blue = clips.pixels.unflatten(1, (3, 3))[:, :, 2].float().mean((2, 3))
    assert (blue / 10).round().tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]], "in the order of time"
    for clip, first in ((0, 0), (1, 3), (2, 0)):
        for frame in range(3):
            left = 2 * (first + frame)  # squashed: half as wide
            assert clips.boxes[clip, frame].tolist() == [left, 5, left + 4, 15]
    whole = data.inspect("davis2016-val", root=davis).fingerprint
    assert len(whole) == 16 and load(Data(**{**vars(spec), "fingerprint": whole}), seed=0, root=davis)
    (davis / "davis2016-val/JPEGImages/cow/00004.jpg").unlink()
    assert data.inspect("davis2016-val", root=davis).fingerprint != whole


def test_what_is_missing_is_named(davis: Path) -> None:
    spec = Data(name="davis2016-val", image_size=20, frames=3)
    with pytest.raises(ConfigError, match="not embedded: say DATA="):
        load(spec, seed=0)
    with pytest.raises(ConfigError, match="the sequences have 7 frames at most: take clips of fewer than 8"):
        load(Data(name="davis2016-val", image_size=20, frames=8), seed=0, root=davis)
    (davis / "davis2016-val/Annotations/bear/00001.png").unlink()
    with pytest.raises(ConfigError, match="00001.jpg has no mask .*00001.png"):
        load(spec, seed=0, root=davis)
    with pytest.raises(ConfigError, match=r"ucf101 is not below .*: expected DATA/UCF-101/<class>/\*.avi"):
        load(Data(name="ucf101", image_size=20, frames=3), seed=0, root=davis)


# ---- UCF101 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    (tmp_path / "ucfTrainTestlist").mkdir()
    videos = {
        "train": ["Archery/v_1.avi 1", "Biking/v_1.avi 2", "Archery/v_2.avi 1", ""],
        "test": ["Biking/v_9.avi", "Archery/v_9.avi"],
    }
    for split, names in videos.items():
        (tmp_path / "ucfTrainTestlist" / f"{split}list01.txt").write_text("\n".join(names))
        for name in filter(None, names):
            path = tmp_path / "UCF-101" / name.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


class Decoder:
    """torchcodec's interface: 10 frames of 12 x 16 px, frame i of the grey 20 i."""

    def __init__(self, path: Path, *, num_ffmpeg_threads: int) -> None:
        if path.name == "v_2.avi" and path.stat().st_size:
            raise RuntimeError("no frames\nand a long story")
        self.metadata = types.SimpleNamespace(num_frames=10)

    def get_frames_at(self, indices: list[int]) -> types.SimpleNamespace:
        grey = torch.tensor([20 * index for index in indices], dtype=torch.uint8)
        return types.SimpleNamespace(data=grey[:, None, None, None].expand(-1, 3, 12, 16))


def test_videos_are_sampled_evenly_in_the_order_of_the_lists(ucf101: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", types.SimpleNamespace(VideoDecoder=Decoder))
    spec = Data(name="ucf101", image_size=8, frames=2, fingerprint=data.inspect("ucf101", root=ucf101).fingerprint)
    train, test = load(spec, seed=0, root=ucf101)
    assert train.classes == ("Archery", "Biking")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0], [1, 0])
    assert train.pixels.shape == (3, 6, 8, 8)
    assert train.pixels[0].flatten(1).unique(dim=1)[:, 0].tolist() == [40] * 3 + [140] * 3, "of frames 2 and 7"
    (ucf101 / "UCF-101/Archery/v_2.avi").write_text("broken")
    with pytest.raises(ConfigError, match="cannot decode the video .*v_2.avi: no frames; replace"):
        load(Data(name="ucf101", image_size=8, frames=2), seed=0, root=ucf101)


def test_without_torchcodec_one_line_says_what_to_install(ucf101: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(ConfigError, match=r"ucf101 is decoded by torchcodec \(.*\): pip install 'sarlib\[video\]'") as error:
        load(Data(name="ucf101", image_size=8, frames=2), seed=0, root=ucf101)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    not ("SAR_TEST_DATA" in os.environ and (Path(os.environ["SAR_TEST_DATA"]) / "davis2016-val").is_dir()),
    reason="SAR_TEST_DATA does not name a folder with davis2016-val",
)
def test_davis_itself() -> None:
    _, clips = load(Data(name="davis2016-val", image_size=64, frames=4), seed=0, root=Path(os.environ["SAR_TEST_DATA"]))
    assert len(clips.classes) == 20 and clips.pixels.shape == (338, 12, 64, 64)
    assert (clips.mask_labels >= 0).all(), "an object in every frame"
    overlap = (clips.masks[:, :-1] & clips.masks[:, 1:]).sum((2, 3)) / (clips.masks[:, :-1] | clips.masks[:, 1:]).sum((2, 3))
    assert overlap.mean() > 0.7, "from frame to frame objects move little"
