"""Which architecture, and which published network to start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sarlib.config.checks import require, require_known

VARIANTS = ("A", "B", "C", "D")
ARCHITECTURES = ("vit", "t2t", "pvt", "cvt")
POOLS = ("token", "avg")
#: Sizes in pixels that T2T's soft splits can make a token of.
T2T_TOKENS = (16, 8, 4)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a pyramid: its tokens are `stride` times fewer a side than those before it, and its keys and values
    come from a grid that is once more `key_stride` times smaller a side."""

    dim: int
    depth: int
    heads: int
    stride: int
    mlp_ratio: float = 4.0
    key_stride: int = 1

    def __post_init__(self) -> None:
        for what in ("dim", "depth", "heads", "stride", "key_stride"):
            require(getattr(self, what) > 0, f"{what} of a stage must be positive, got {getattr(self, what)}")
        require(self.dim % self.heads == 0, f"dim {self.dim} of a stage is not divisible by {self.heads} heads")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which architecture. `variant` is the last block of Table 1c: A stock, B no MSA skip, C also no LayerNorm, D also no
    MLP skip.

    `patch_size` is the side of a token of the last block in pixels. A pyramid (pvt, cvt) has `stages`; `dim`, `depth`,
    `heads` and `mlp_ratio` are then those of the last one. A vit has a class token, which the head reads (`pool` is token), or
    none, and the head reads the average of the patch tokens (avg); the patches of several `frames` are one sequence.
    """

    name: str = "vit"
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    variant: str = "A"
    stages: tuple[Stage, ...] = ()
    pool: str = "token"
    frames: int = 1

    def __post_init__(self) -> None:
        require_known("model", self.name, ARCHITECTURES)
        require_known("last-block variant", self.variant, VARIANTS)
        require_known("pool", self.pool, POOLS)
        require(self.dim % self.heads == 0, f"dim {self.dim} is not divisible by {self.heads} heads")
        require(self.frames > 0, f"a clip has one frame or more, got {self.frames}")
        stock = (self.pool, self.frames) == ("token", 1)
        require(stock or self.name == "vit", f"{self.name} has a class token and sees one frame: average and clips are for vit")
        require(self.pool == "token" or self.frames == 1, "clips are pooled by a class token: use pool token")
        why = f"patch size and depth must be positive, got {self.patch_size}, {self.depth}"
        require(self.patch_size > 0 and self.depth > 0, why)
        why = f"stages are for pvt and cvt, which need them; {self.name} has {len(self.stages)}"
        require(bool(self.stages) == (self.name in ("pvt", "cvt")), why)
        if self.stages:
            self._check_stages()

    def _check_stages(self) -> None:
        last = self.stages[-1]
        stated = (self.dim, self.depth, self.heads, self.mlp_ratio)
        why = f"dim, depth, heads and mlp_ratio of a pyramid are those of its last stage, {last}; got {stated}"
        require(stated == (last.dim, last.depth, last.heads, last.mlp_ratio), why)
        stride = math.prod(stage.stride for stage in self.stages)
        why = f"the strides of the stages multiply to {stride} pixels a token, not to patch_size {self.patch_size}"
        require(stride == self.patch_size, why)

    @property
    def key_stride(self) -> int:
        """How many times fewer keys than tokens a side the last block has: S is that much smaller than the token grid."""
        return self.stages[-1].key_stride if self.stages else 1

    def of_timm(self, *, classes: int, image_size: int) -> dict[str, Any]:
        """The sizes by the names that timm's VisionTransformer has for them; without classifier for 0 `classes`."""
        sizes = {"embed_dim": self.dim, "depth": self.depth, "num_heads": self.heads, "mlp_ratio": self.mlp_ratio}
        sizes |= {"img_size": image_size, "patch_size": self.patch_size, "num_classes": classes}
        return sizes | {"drop_path_rate": self.drop_path}

    def stage_grids(self, image_size: int) -> list[int]:
        """Tokens a side at every stage of a pyramid. `ConfigError` where strides or keys do not tile what they are given."""
        grids, grid = [], image_size
        for number, stage in enumerate(self.stages, start=1):
            where = f"stage {number} of {self.name}, at an image of {image_size} px"
            why = f"{where}, cannot take every {stage.stride}th of {grid} pixels or tokens a side"
            require(grid % stage.stride == 0, f"{why}: choose another size")
            grid //= stage.stride
            why = f"{where}, has {grid} x {grid} tokens, which keys of {stage.key_stride} x {stage.key_stride} do not tile"
            require(grid % stage.key_stride == 0, f"{why}: choose another size")
            grids.append(grid)
        return grids

    def require_size(self, image_size: int) -> None:
        """`ConfigError` unless patches, stages and keys tile an image of `image_size` px and S has two keys a side or more."""
        why = f"an image of {image_size} x {image_size} px cannot be cut into patches of {self.patch_size} px"
        require(image_size % self.patch_size == 0, f"{why}: choose a multiple of {self.patch_size}")
        why = f"t2t has tokens of {', '.join(map(str, T2T_TOKENS))} px, not of {self.patch_size}"
        require(self.name != "t2t" or self.patch_size in T2T_TOKENS, why)
        self.stage_grids(image_size)
        key = self.patch_size * self.key_stride
        grid = image_size // key
        why = f"an image of {image_size} px leaves {self.name} a similarity map of {grid} x {grid} keys ({key} px a side)"
        require(grid >= 2, f"{why}: choose one of at least {2 * key} px")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published network to start from: its name, as in timm/deit_small_patch16_224, and the SHA-256 of its weights file."""

    name: str
    sha256: str

    def __post_init__(self) -> None:
        well_formed = len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")
        require(well_formed, f"the checksum of {self.name} must be 64 hexadecimal digits, got {self.sha256!r}")
