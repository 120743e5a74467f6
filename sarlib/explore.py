"""For a notebook: trained networks by their key, where they look in one's own picture, and the next training in a minute."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarlib.config import Regularizer, require
from sarlib.experiments import open_store
from sarlib.run import Run
from sarlib.runner.machine import check
from sarlib.runner.schedule import execute_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image
    from torch import nn


def train(run: Run, *, data: str | Path | None = None, **machine: Any) -> dict[str, float]:
    """The final metrics of `run`: from the store, or trained now, in this process. `data` and `machine` as for a table."""
    machine = check(**{"workers": 1} | machine)
    return execute_all([run], store=open_store(), root=None if data is None else Path(data), machine=machine)[run.key].metrics


def load(key: str) -> tuple[Run, nn.Module]:
    """The run called `key` (its first digits do) and its trained network. `ConfigError` if the store has no weights of it."""
    from sarlib.measures.finished import Finished

    store = open_store()
    found = sorted(path.parent for path in store.root.glob(f"{key}*/config.json"))
    require(len(found) == 1, f"{len(found)} runs in {store.root} begin with {key!r}: give the whole key of one")
    run = Run.from_dict(json.loads((found[0] / "config.json").read_text(encoding="utf-8")))
    return run, Finished(run, store.weights(run)).network()


def changed(
    run: Run, *, epochs: int | None = None, variant: str = "", weight: float | None = None, regularizer: str = ""
) -> Run:
    """The same run with another length, last block (a row of Table 1c), weight (0: no loss) or (first) regularizer.

    `regularizer` is one of `sarlib.config.REGULARIZERS` or your own, "module:function", a function of S (B, H, h, w); it gets
    weight and schedule of the one before. Its file as it is now is part of the run: with an edited one it is another run.
    """
    recipe = run.recipe if epochs is None else dataclasses.replace(run.recipe, epochs=epochs, evaluations=1)
    model = dataclasses.replace(run.model, variant=variant or run.model.variant)
    old = run.regularizers[0] if run.regularizers else Regularizer(name="spatial_entropy", weight=0.01)
    if regularizer not in ("", old.name):  # without what is DRLoc's own, as a table declares it
        old = Regularizer(name=regularizer, weight=old.weight, schedule=old.schedule, warmup_epochs=old.warmup_epochs)
    new = dataclasses.replace(old, weight=weight or old.weight, source="")
    first = run.regularizers[:1] if weight is None and not regularizer else () if weight == 0 else (new,)
    return dataclasses.replace(run, recipe=recipe, model=model, regularizers=first + run.regularizers[1:])


def look(run: Run, model: nn.Module, picture: str | Path | Image.Image, *, mass: float = 0.6) -> Figure:
    """A picture as the network sees it, and below it for each head S, its components, and the tokens that hold `mass` of the
    attention; the entropy of the map stands above."""
    import matplotlib.pyplot as plt
    import torch

    from sarlib.data.images import Images, central_view, decode, to_bytes
    from sarlib.entropy import components, map_entropy
    from sarlib.measures.finished import similarity
    from sarlib.report.figures import drawing
    from sarlib.tasks.masks import mass_mask

    view = central_view(decode(Path(picture)) if isinstance(picture, (str, Path)) else picture, run.data.image_size)
    image = Images(labels=torch.zeros(1, dtype=torch.int64), classes=("yours",), pixels=to_bytes(view)[None])
    [maps] = similarity(model, image, batch_size=1)
    with drawing(3, 1 + len(maps), size=(1.6 * (1 + len(maps)), 5.2)) as (figure, grid):
        for axes in grid[:, 0]:
            axes.imshow(view)
        drawn = (maps, components(maps), mass_mask(maps, mass=mass))
        for line, values, colours in zip(grid, drawn, ("cividis", "tab10", "gray"), strict=True):
            for axes, one in zip(line[1:], values, strict=True):
                axes.imshow((torch.where(one > 0, one, torch.nan) if colours == "tab10" else one).numpy(), cmap=colours)
        for axes, one in zip(grid[0, 1:], maps, strict=True):
            axes.set_title(f"H = {float(map_entropy(one)):.2f}")
        for axes, label in zip(grid[:, 0], ("S", "components", f"{100 * mass:.0f} % mask"), strict=True):
            axes.set_ylabel(label)
        plt.setp(grid.ravel().tolist(), xticks=[], yticks=[])
    return figure
