"""Procedural objects: images that need no download, with labels, instance masks and boxes that are known exactly.

One to three shapes lie on clutter behind occluding bars; the largest gives the label. A class is a shape plus an imperfect
cue in colour and grating. Image i is a pure function of (style, stream, seed, i): a Philox counter per image, and per-pixel
arithmetic that is exact or a single IEEE operation, so neither chunk size nor threads change a bit (nor should the machine).

In clips the same objects drift to the left or to the right before a still ground; what leaves comes back on the other side. A
class is a shape and the sense of its drift, which no frame shows by itself: where an object is, is uniform in every frame.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import torch
from scipy import ndimage

from sarlib.config import Data, require
from sarlib.data.folders import CONFLICT
from sarlib.data.images import TEST_SEED, Images
from sarlib.data.shape_styles import CLASSES, SIDE, STYLES, WINDOW, Scene, templates

STREAMS = ("train", "test")
MAX_OBJECTS = 3
HUE_JITTER = 1.2  # radians, half width of a triangular distribution; ten class hues lie 0.63 apart
CLIP_CLASSES = tuple(f"{shape}, {sense}" for shape in CLASSES[:5] for sense in ("to the left", "to the right"))
CUE_RELIABILITY = 0.95  # how often colour and grating belong to the object's own class

_OCTAVES = ((2, 4), (4, 4), (8, 3), (16, 2))  # (cells a side, amplitude) of the clutter
_LEVELS = 64  # interpolation weights are multiples of 1 / _LEVELS, see _clutter
_MOST_COVERED = 0.35  # share of the main object's pixels that one occluder may cover
_UNIFORMS = 96  # random numbers drawn for an image's scene, a few more than it takes
_TRAIN_SIZE, _TEST_SIZE = 10_000, 2_000
_SPEED, _REACH = 0.1, 1.1  # of objects in clips: half sides of the image a frame, and how far from its centre
_CHUNK = 16  # images rendered at once: small enough for the cache


def generate(
    style: str,
    n: int,
    *,
    image_size: int,
    seed: int = 0,
    stream: str = "train",
    start: int = 0,
    frames: int = 1,
) -> Images:
    """Images start .. start + n - 1 of a stream: pixels and masks are both (n, 3, image_size, image_size).

    Labels run through the ten classes in turn. The scene (label, places, colours) does not depend on the image size. A style
    that ends in CONFLICT shows the same scenes, but gives every object colour and grating of another class. With several
    `frames` they are clips of `CLIP_CLASSES`, with three channels and three masks a frame.

    Raises `ConfigError` for an unknown style or stream.
    """
    conflict, style = style.endswith(CONFLICT), style.removesuffix(CONFLICT)
    known = f"styles: {', '.join(STYLES)}; streams: {', '.join(STREAMS)}"
    require(style in STYLES and stream in STREAMS, f"unknown style or stream {style!r}, {stream!r}; {known}")
    source = len(STREAMS) * (list(STYLES).index(style) + (frames > 1) * len(STYLES)) + STREAMS.index(stream)
    pixels = np.empty((n, frames, 3, image_size, image_size), dtype=np.uint8)
    masks = np.empty((n, frames, MAX_OBJECTS, image_size, image_size), dtype=bool)
    kinds = np.empty((n, frames, MAX_OBJECTS), dtype=np.int64)
    classes = CLASSES if frames == 1 else CLIP_CLASSES
    for low, frame in itertools.product(range(0, n, _CHUNK), range(frames)):
        rows = slice(low, min(low + _CHUNK, n))
        indices = np.arange(start + rows.start, start + rows.stop)
        labels = indices % len(classes)
        draws = _Draws(seed=seed, source=source, indices=indices, size=image_size, conflict=conflict)  # the same in every frame
        shapes = labels if frames == 1 else labels // 2
        drift = None if frames == 1 else frame * (2 * (labels % 2) - 1)
        pixels[rows, frame], masks[rows, frame], kinds[rows, frame] = _render(style, draws, shapes, image_size, drift)
    labels = torch.arange(start, start + n) % len(classes)
    pixels, masks, kinds = (part.reshape(n, -1, *part.shape[3:]) for part in (pixels, masks, kinds))
    parts = map(torch.from_numpy, (pixels, masks, kinds, boxes(masks)))
    return Images(labels=labels, classes=classes, **dict(zip(("pixels", "masks", "mask_labels", "boxes"), parts, strict=True)))


def load(spec: Data, *, seed: int) -> tuple[Images, Images]:
    """The set "shapes-<style>": training images from the seed's own stream, test images from one that no training touches.
    Without sizes 10,000 and 2,000."""
    draw = functools.partial(generate, spec.name.removeprefix("shapes-"), image_size=spec.image_size, frames=spec.frames)
    train = draw(spec.train_size or _TRAIN_SIZE, seed=seed, stream="train")
    return train, draw(spec.test_size or _TEST_SIZE, seed=TEST_SEED, stream="test")


class _Draws:
    """The random numbers of some images, each from its own Philox counter; `uniform` hands out the next columns. In `conflict`
    they decide which other class than its own an object looks like."""

    def __init__(self, *, seed: int, source: int, indices: np.ndarray, size: int, conflict: bool = False) -> None:
        self.conflict = conflict
        cells = 3 * sum(q * q for q, _ in _OCTAVES)
        self.cells = np.empty((len(indices), cells), dtype=np.uint8)
        self.grain = np.empty((len(indices), 1, size, size), dtype=np.uint8)
        self._columns = np.empty((len(indices), _UNIFORMS), dtype=np.float32)
        self._used = 0
        for row, index in enumerate(indices.tolist()):
            generator = np.random.Generator(np.random.Philox(key=(seed << 64) | source, counter=index << 192))
            generator.random(out=self._columns[row], dtype=np.float32)
            self.cells[row] = np.frombuffer(generator.bytes(cells), dtype=np.uint8)
            self.grain[row] = np.frombuffer(generator.bytes(size * size), dtype=np.uint8).reshape(1, size, size)

    def uniform(self, *shape: int) -> np.ndarray:
        """(n, *shape) float32, uniform in [0, 1)."""
        start, self._used = self._used, self._used + math.prod(shape)
        return self._columns[:, start : self._used].reshape(-1, *shape)

    def below(self, bound: int, *shape: int) -> np.ndarray:
        """(n, *shape) int64, uniform in 0 .. bound - 1."""
        return (self.uniform(*shape) * bound).astype(np.int64)


def _objects(
    draws: _Draws, labels: np.ndarray, axis: np.ndarray, waver: np.ndarray, drift: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Classes (n, M) of M objects, the first one's the label; (n, M, size, size) uint8: 0 outside an object, else how deep
    inside it, looked up in the class's template; the centres' x and y (n, M). Lengths are in units of the image's half side."""
    n, m = len(labels), MAX_OBJECTS
    kind = draws.below(len(CLASSES), m)
    kind[:, 0] = labels
    alive = np.arange(m) <= draws.below(m, 1)
    radius = np.concatenate([0.56 + 0.22 * draws.uniform(1), np.zeros((n, m - 1), np.float32)], axis=1)
    radius[:, 1:] = radius[:, :1] * (0.4 + 0.2 * draws.uniform(m - 1))
    x, y = _places(draws, radius) if drift is None else _drifting(draws, drift)
    cos, sin = _turn((draws.uniform(m) - 0.5) * 1.2)
    stretch = 0.85 + 0.3 * draws.uniform(m)
    unit = np.float32(SIDE / (2 * WINDOW)) / radius  # cells per half side of the image
    ux, uy, vx, vy = unit * cos * stretch, unit * sin * stretch, -unit * sin / stretch, unit * cos / stretch
    middle = np.float32(SIDE / 2)
    u = _plane(ux, uy, middle - ux * x - uy * y, axis)
    v = _plane(vx, vy, middle - vx * x - vy * y, axis)
    if waver.any():
        u += waver[:, :1] * unit[:, :, None, None]
        v += waver[:, 1:2] * unit[:, :, None, None]
    column, row = (np.clip(at, 0, SIDE - 1).astype(np.int32) for at in (u, v))
    first = (kind * SIDE**2).astype(np.int32)[:, :, None, None]
    return kind, templates().take(first + row * np.int32(SIDE) + column) * alive[:, :, None, None], x, y


def _places(draws: _Draws, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres such that every pixel is covered nearly equally often: the first of five proposals, a little denser towards the
    border and reaching beyond it, that leaves a good part of the object inside, else the last."""
    reach = 1 + np.float32(0.3) * radius[:, None, :, None]
    at = 2 * draws.uniform(5, radius.shape[1], 2) - 1
    at = at * (1 + np.float32(0.2) * (1 - np.abs(at))) * reach
    inside = np.clip((1 - np.abs(at) + radius[:, None, :, None]) / (2 * radius[:, None, :, None]), 0, 1).prod(-1)
    fits = inside >= 0.35
    fits[:, -1] = True
    first = fits.argmax(1)[:, None, :, None]
    chosen = np.take_along_axis(at, first, axis=1)[:, 0]
    return chosen[..., 0], chosen[..., 1]


def _drifting(draws: _Draws, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres in a frame to which the first objects have drifted by `drift` (n,) frames; the others as far, to either side."""
    way = np.where(draws.uniform(MAX_OBJECTS) < 0.5, -1, 1) * np.abs(drift)[:, None]
    way[:, 0] = drift
    x, y = draws.uniform(2, MAX_OBJECTS).swapaxes(0, 1)
    x = ((x + way * np.float32(_SPEED / 2 / _REACH)) % 1).astype(np.float32)
    return np.float32(_REACH) * (2 * x - 1), np.float32(0.6) * (2 * y - 1)


def _render(
    style: str, draws: _Draws, labels: np.ndarray, size: int, drift: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (n, 3, size, size) uint8, masks (n, M, size, size) bool, class of each instance (n, M) or -1.

    In clips objects take their texture with them by `drift`, and no bars lie over them.
    """
    paint, wavering = STYLES[style]
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)
    clutter = _clutter(draws.cells, size)
    kind, depth, x, y = _objects(draws, labels, axis, (clutter - np.float32(0.5)) * np.float32(wavering), drift)
    above = draws.uniform(1)[:, 0] < 0.5
    wave, light, dark = _texture(draws, kind, axis, origin=None if drift is None else (x, y))
    visible, bars = _visible(depth > 0, above, _bars(draws, axis) & (drift is None))
    light, dark, bar = light[..., None, None], dark[..., None, None], draws.uniform(3, 1, 1)
    grain, shade = draws.grain * np.float32(1 / 255), depth * np.float32(1 / 255)
    scene = Scene(
        clutter=clutter, grain=grain, visible=visible, depth=shade, wave=wave, light=light, dark=dark, bars=bars, bar_colour=bar
    )
    pixels = np.clip(paint(scene) * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels, visible, np.where(visible.any((2, 3)), kind, -1)


def _clutter(cells: np.ndarray, size: int) -> np.ndarray:
    """(n, 3, size, size) in [0, 1]: octaves of random cells, interpolated bilinearly by integers held in float32 with all sums
    below 2^24, so that the matrix products are exact in whatever order a BLAS adds them up."""
    n, start, rows = len(cells), 0, []
    for side, amplitude in _OCTAVES:
        octave = cells[:, start : start + 3 * side * side].reshape(n, 3, side, side).astype(np.float32)
        start += 3 * side * side
        rows.append(octave @ _interpolation(side, size).T * np.float32(amplitude))
    columns = np.concatenate([_interpolation(side, size) for side, _ in _OCTAVES], axis=1)
    total = 255 * _LEVELS**2 * sum(amplitude for _, amplitude in _OCTAVES)
    # The sum of octaves crowds around its mean: stretch it, and clip what little leaves [0, 1].
    smooth = columns @ np.concatenate(rows, axis=2) * np.float32(1.8 / total) - np.float32(0.4)
    return np.clip(smooth, 0, 1)


@functools.cache
def _interpolation(side: int, size: int) -> np.ndarray:
    """(size, side) float32: bilinear weights in whole multiples of 1 / _LEVELS, times _LEVELS."""
    position = np.clip((np.arange(size) + 0.5) / size * side - 0.5, 0, side - 1)
    low = np.minimum(position.astype(int), side - 2)
    high = np.round((position - low) * _LEVELS)
    weights = np.zeros((size, side), dtype=np.float32)
    weights[np.arange(size), low] = _LEVELS - high
    weights[np.arange(size), low + 1] += high
    return weights


def _turn(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine in float32, rounded so that no maths library's last bit shows."""
    wide = angle.astype(np.float64)
    return np.round(np.cos(wide), 5).astype(np.float32), np.round(np.sin(wide), 5).astype(np.float32)


def _plane(x: np.ndarray, y: np.ndarray, constant: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """x * X + y * Y + constant on the pixel grid: (..., ) -> (..., size, size)"""
    return (x[..., None] * axis + constant[..., None])[..., None, :] + (y[..., None] * axis)[..., :, None]


def _texture(
    draws: _Draws, kind: np.ndarray, axis: np.ndarray, *, origin: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grating (n, M, size, size) and its two colours (n, M, 3): hue, direction, frequency of the cue's class, with jitter.
    The grating is laid from the `origin`, x and y (n, M), if there is one."""
    m = kind.shape[1]
    cue = _look(draws, kind).astype(np.float32)
    cycles = np.where(cue % 2 == 0, np.float32(2.5), np.float32(5)) * (0.85 + 0.3 * draws.uniform(m))
    # A direction and its mirror image belong to the same class: flipping an image must not change what its grating says.
    mirror = np.where(draws.uniform(m) < 0.5, np.float32(-1), np.float32(1))
    cos, sin = _turn(mirror * np.floor(cue / 2) * np.float32(np.pi / 8) + (draws.uniform(m) - 0.5) * np.float32(0.3))
    steps = len(_WAVE) * cycles
    # + 64 turns keep the phase positive, so that truncation and the bit mask act as floor and modulo
    start = len(_WAVE) * (draws.uniform(m) + np.float32(64))
    if origin is not None:
        start = start - steps * (cos * origin[0] + sin * origin[1])
    phase = _plane(steps * cos, steps * sin, start, axis)
    wave = _WAVE.take(phase.astype(np.int32) & np.int32(len(_WAVE) - 1))
    hue = cue * np.float32(2 * np.pi * 0.3) + (draws.uniform(m) + draws.uniform(m) - 1) * np.float32(HUE_JITTER)
    tint = _turn(hue[..., None] + np.array([0, 2 * np.pi / 3, 4 * np.pi / 3]))[0]
    strength = (0.12 + 0.25 * draws.uniform(m))[..., None]
    value = (0.5 + 0.25 * draws.uniform(m))[..., None]
    light = np.clip(value + strength * tint, 0, 1)
    return wave, light, light * (0.35 + 0.3 * draws.uniform(m))[..., None]


def _look(draws: _Draws, kind: np.ndarray) -> np.ndarray:
    """(n, M): the class that each object looks like, mostly its own; in conflict any other, all of them equally often."""
    reliable = draws.uniform(kind.shape[1]) < CUE_RELIABILITY
    other = draws.below(len(CLASSES) - draws.conflict, kind.shape[1])
    return (kind + 1 + other) % len(CLASSES) if draws.conflict else np.where(reliable, kind, other)


def _bars(draws: _Draws, axis: np.ndarray) -> np.ndarray:
    """(n, 2, size, size) bool: none, one or two straight occluders across the image."""
    there = draws.uniform(2) < 0.4
    cos, sin = _turn(draws.uniform(2) * np.float32(np.pi))
    offset = (2 * draws.uniform(2) - 1) * np.float32(0.9)
    half_width = np.where(there, 0.04 + 0.06 * draws.uniform(2), -1)
    return np.abs(_plane(cos, sin, offset, axis)) < half_width[..., None, None]


def _visible(inside: np.ndarray, above: np.ndarray, bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of each object (n, M, size, size), and the bars (n, size, size), once they lie over each other; both bool.

    From the front: bars, object 1 where it lies `above`, objects 0, 1, 2. Bars or an object 1 that would cover too much of the
    main object 0 give way, and so does any object that would show more of itself. Of one cut apart the largest part stays.
    """
    main, second, third = inside[:, 0], inside[:, 1], inside[:, 2]
    bearable = _MOST_COVERED * _area(main)
    bars = (bars & (_area(bars & main[:, None]) <= bearable[:, None])[..., None, None]).any(1)
    over = (above & (_area(main & second) <= bearable))[:, None, None]
    parts = np.stack([main & ~(second & over), second & ~(main & ~over), third & ~(main | second)], axis=1)
    parts = _largest_component(parts & ~bars[:, None])
    area = _area(parts)
    parts[:, 1:] &= (area[:, 1:] < area[:, :1])[..., None, None]
    return parts, bars


def _area(masks: np.ndarray) -> np.ndarray:
    """(..., size, size) bool -> (...) int64: pixels of each mask."""
    return np.count_nonzero(masks, axis=(-2, -1))


def _largest_component(masks: np.ndarray) -> np.ndarray:
    """Each mask (..., size, size) without all but its largest 4-connected part; one labelling call for all of them."""
    within_a_map = np.zeros((3, 3, 3), dtype=bool)
    within_a_map[1, 1, :] = within_a_map[1, :, 1] = True
    found, count = ndimage.label(masks.reshape(-1, *masks.shape[-2:]), structure=within_a_map)
    area = np.bincount(found.ravel(), minlength=count + 1)
    area[0] = 0  # the ground
    flat = found.reshape(len(found), -1)
    largest = flat[np.arange(len(flat)), area[flat].argmax(1)]
    return ((found == largest[:, None, None]) & (found > 0)).reshape(masks.shape)


def boxes(masks: np.ndarray) -> np.ndarray:
    """(n, M, 4) int64: x0 y0 x1 y1 around each mask, x1 and y1 exclusive; zeros for an empty one."""
    columns, rows = masks.any(2), masks.any(3)
    size = masks.shape[-1]
    ends = [columns.argmax(-1), rows.argmax(-1), size - columns[..., ::-1].argmax(-1), size - rows[..., ::-1].argmax(-1)]
    return np.stack(ends, axis=-1) * columns.any(-1)[..., None]


_WAVE = np.round(0.5 + 0.5 * np.sin(np.arange(256) * (2 * np.pi / 256)), 6).astype(np.float32)
