"""What a run is: data x model x task x recipe x augmentation x regularizers x seed, and the network that it starts from.

Two runs with equal declarations are the same run, whichever table asks for them; `Run.key` makes that identity a file name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sarlib.config import Augmentation, ConfigError, Data, Model, Published, Recipe, Regularizer, Stage, Task, require
from sarlib.config.learning import ON_VITDET, TARGETS_LOSE, SelfSupervision

#: Raised by one whenever the same declaration would give other numbers than before; `config.json` records it, from 2 on.
#: 2: `warmup-cosine` is at the weight in the last epoch of the warm-up, as in the released code.
NUMERICS_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: everything that decides its numbers.

    `regularizers` are added to the task's loss, each with its own weight: none, one, or two as in SAR + DRLoc. `pretrained`
    is the run, or the published network, whose weights this one starts from; a run that starts from a run shares its seed.
    """

    data: Data
    model: Model
    recipe: Recipe
    augmentation: Augmentation = Augmentation()
    regularizers: tuple[Regularizer, ...] = ()
    seed: int = 0
    task: Task = Task()
    pretrained: Run | Published | None = None

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seeds must not be negative, got {self.seed}")
        self.model.require_size(self.data.image_size)
        untrained = "only a published network is measured after 0 epochs: say 1 epoch or more"
        require(self.recipe.epochs > 0 or isinstance(self.pretrained, Published), untrained)
        self._check_regularizers()
        self._check_frames()
        self._check_augmentation()
        if self.task.name in ON_VITDET:
            self._check_vitdet()
        if self.task.self_supervision is not None:
            self._check_views(self.task.self_supervision)
        if isinstance(self.pretrained, Run):
            self._check_pretrained(self.pretrained)

    def _check_regularizers(self) -> None:
        names = [each.name for each in self.regularizers]
        require("none" not in names, "a run without regularizers has an empty tuple of them, not one called 'none'")
        why = f"a run has at most {len(_RECORDED)} different regularizers, got {', '.join(names)}"
        require(len(names) <= len(_RECORDED) and len(set(names)) == len(names), why)
        why = f"disagreement is between heads, and the last block has {self.model.heads}: give it two or more"
        require("disagreement" not in names or self.model.heads > 1, why)

    def _check_augmentation(self) -> None:
        for what in TARGETS_LOSE.get(self.task.name, ()):
            found = getattr(self.augmentation, what)
            require(not found, f"the targets of {self.task.name} cannot follow {what}, got {found!r}: leave it out")

    def _check_vitdet(self) -> None:
        what, model = self.task.name, self.model
        require(model.name in ("vit", "t2t"), f"{what} needs the one map of a ViT: choose vit or t2t, not {model.name}")
        require(not self.regularizers, f"{what} has no class token, whose attention the regularizers look at: leave them out")
        left = f"{what} without {self.task.blocks_left_out} of {model.depth} blocks: leave at least one"
        require(self.task.blocks_left_out < model.depth, left)
        require(model.dim >= 4, f"the pyramid of {what} halves the {model.dim} channels twice: choose 4 or more")

    def _check_views(self, views: SelfSupervision) -> None:
        require(self.model.name == "vit", f"{self.task.name} is there for vit, not for {self.model.name}")
        untaught = f"{self.task.name} starts from random weights, its teacher too: leave pretrained out"
        require(self.pretrained is None, untaught)
        unused = f"{self.task.name} makes views of its own: leave the run's augmentation at its default"
        require(self.augmentation == Augmentation(), unused)
        why = f"a local crop of {views.local_tokens} tokens a side is no part of {self.grid}: choose 2 to {self.grid}"
        require(not views.local_crops or 2 <= views.local_tokens <= self.grid, why)

    def _check_frames(self) -> None:
        frames, augmentation, names = self.data.frames, self.augmentation, {each.name for each in self.regularizers}
        why = f"clips of {frames} frames are for a network of as many, not of {self.model.frames}"
        require(frames == self.model.frames, why)
        known = (frames, self.model.pool) == (1, "token") or self.task.name in ("classification", "multilabel")
        require(known, f"{self.task.name} is there for images and networks with class token")
        coloured = augmentation.color_jitter or augmentation.rand_augment or augmentation.erasing
        require(frames == 1 or not coloured, "clips are cropped, flipped, mixed: leave color_jitter, rand_augment, erasing out")
        require(frames == 1 or "drloc" not in names, "DRLoc is about positions in an image, not in a clip: leave it out")
        require(frames > 1 or "space_time_entropy" not in names, "space_time_entropy needs clips of two frames or more")

    def _check_pretrained(self, parent: Run) -> None:
        why = f"a run shares the seed of the run that it starts from, got {self.seed} and {parent.seed}: use Run.with_seed"
        require(parent.seed == self.seed, why)
        headless = f"a run cannot start from run {parent.key}, a {parent.task.name}: start from what that started from"
        require(parent.task.name not in ON_VITDET, headless)
        for what in ("name", "patch_size", "dim", "depth", "heads", "mlp_ratio", "stages", "pool", "frames"):
            mine, theirs = getattr(self.model, what), getattr(parent.model, what)
            why = f"a run with {what} {mine} cannot start from run {parent.key}, which has {what} {theirs}"
            require(mine == theirs, f"{why}: only the last block's variant, drop path and image size may differ")

    @property
    def grid(self) -> int:
        """Side k of the similarity map S, in keys."""
        return self.data.image_size // self.model.patch_size // self.model.key_stride

    def with_seed(self, seed: int) -> Run:
        """The same run, and the runs that it starts from, with another seed."""
        parent = self.pretrained.with_seed(seed) if isinstance(self.pretrained, Run) else self.pretrained
        return dataclasses.replace(self, seed=seed, pretrained=parent)

    def lineage(self) -> tuple[Run, ...]:
        """The runs whose weights this one needs, the earliest first, and itself last."""
        return (*(self.pretrained.lineage() if isinstance(self.pretrained, Run) else ()), self)

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it. A field that came later is written only where it says something."""
        written = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        regularizers = (*written.pop("regularizers"), *[Regularizer()] * len(_RECORDED))
        written |= dict(zip(_RECORDED, regularizers))
        if self.task == Task():
            del written["task"]
        parent = written.pop("pretrained")
        if parent is not None:
            written["pretrained"] = parent.to_dict() if isinstance(parent, Run) else dataclasses.asdict(parent)
        parts = {name: _written(part) if dataclasses.is_dataclass(part) else part for name, part in written.items()}
        return {"version": NUMERICS_VERSION, **parts}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Run:
        """Inverse of `to_dict` after a trip through JSON. Unknown or missing fields raise `ConfigError`."""
        try:
            regularizers = [_build(Regularizer, fields[name]) for name in _RECORDED if name in fields]
            built = {name: _build(kind, fields[name]) for name, kind in _PARTS.items()}
            if "task" in fields:
                built["task"] = _build(Task, fields["task"])
            if (parent := fields.get("pretrained")) is not None:
                built["pretrained"] = _build(Published, parent) if "sha256" in parent else cls.from_dict(parent)
            known = {*_RECORDED, *_PARTS, "version", "seed", "task", "pretrained"}
            if unknown := sorted(set(fields) - known):
                raise TypeError(f"unknown {', '.join(unknown)}")
            return cls(seed=fields["seed"], regularizers=tuple(each for each in regularizers if each.name != "none"), **built)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a run's configuration: {error}") from error

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name this run in the store: a hash of the fields that are not at their defaults.

        So a new field, whose default means "as before", leaves the keys of earlier results valid; changing a default calls
        for a new `NUMERICS_VERSION`. A run that it starts from counts by that run's key.
        """
        return self.key_of_version(NUMERICS_VERSION)

    def key_of_version(self, version: int) -> str:
        """The key that the run had under an earlier `NUMERICS_VERSION`."""
        departures = {"augmentation": {}, **_departures(self)}
        first, *others = (*map(_canonical, departures.pop("regularizers", ())), {})
        departures |= dict(zip(_RECORDED, (first, *filter(None, others))))
        if isinstance(self.pretrained, Run):
            departures["pretrained"] = self.pretrained.key_of_version(version)
        return _hash({"version": version, **departures})


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured of a finished run, on any data: `name` is one of `sarlib.measures.MEASURES`, `images` limits it to the
    first of the test images."""

    name: str
    data: Data
    images: int | None = None

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name the measurement beside its run."""
        return _hash({"version": NUMERICS_VERSION, **_departures(self)})


#: How the regularizers of a run are called in its records, and in the canonical form that its key is the hash of.
_RECORDED = ("regularizer", "second")
_PARTS = {"data": Data, "model": Model, "recipe": Recipe, "augmentation": Augmentation}


#: Fields of its parts that came later, and what they say where they are not written.
_LATER = {"pool": "token", "frames": 1, "source": ""}


def _written(part: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(part).items() if name not in _LATER or value != _LATER[name]}


def _hash(canonical: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _departures(declaration: Any) -> dict[str, Any]:
    """The fields of a (nested) declaration that differ from their defaults, or have none."""
    values = {item.name: getattr(declaration, item.name) for item in dataclasses.fields(declaration)}
    defaults = {item.name: item.default for item in dataclasses.fields(declaration)}
    return {name: _canonical(value) for name, value in values.items() if value != defaults[name]}


def _canonical(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _departures(value)
    return [_canonical(item) for item in value] if isinstance(value, tuple) else value


def _build(kind: type, fields: dict[str, Any]) -> Any:
    return kind(**{name: _from_json(name, value) for name, value in fields.items()})


def _from_json(name: str, value: Any) -> Any:
    if name == "self_supervision":
        return value and _build(SelfSupervision, value)
    if name == "stages":
        return tuple(Stage(**stage) for stage in value)
    return tuple(value) if isinstance(value, list) else value
