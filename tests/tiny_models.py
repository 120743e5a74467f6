"""The smallest network of every architecture: 24 channels, 3 heads, maps of 4 x 4 keys at 32 px."""

from __future__ import annotations

from sarlib.config import Model, Stage

SIZE = 32
TINY = {
    "vit": Model(patch_size=8, dim=24, depth=2, heads=3),
    "t2t": Model(name="t2t", patch_size=8, dim=24, depth=2, heads=3, mlp_ratio=2.0),
    "pvt": Model(
        name="pvt",
        patch_size=8,
        dim=24,
        depth=2,
        heads=3,
        stages=(
            Stage(dim=8, depth=1, heads=2, stride=4, mlp_ratio=2.0, key_stride=2),
            Stage(dim=24, depth=2, heads=3, stride=2),
        ),
    ),
    "cvt": Model(
        name="cvt",
        patch_size=4,
        dim=24,
        depth=2,
        heads=3,
        stages=(
            Stage(dim=8, depth=1, heads=2, stride=2, mlp_ratio=2.0, key_stride=2),
            Stage(dim=24, depth=2, heads=3, stride=2, key_stride=2),
        ),
    ),
}
