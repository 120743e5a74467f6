"""Writes what the book shows of trained networks' attention: `python book/attention.py` makes runs/reference/attention.json.

Images, object masks and S (Equation 4) of the first test images, for the first and the last row that a table has on one data
set, with the key and the commit of each run. The networks are trained if the run store lacks them.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from sarlib import experiments
from sarlib.durable import write_durably
from sarlib.run import Run

SEED, DECIMALS, IMAGES = 0, 4, 12


def kept(runs: Path) -> dict[str, Any] | None:
    """What was kept below the folder `runs`: the reader's own before the reference; None if there is neither."""
    for path in (runs / "attention.json", runs / "reference" / "attention.json"):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def take(table: str, dataset: str | None, *, preset: str, images: int, data: Path | None = None) -> dict[str, Any]:
    """The maps of a table's first and last row on `dataset` (default: its first), of the network with seed 0."""
    first = experiments.declare(table, preset=preset, data=data, seeds=1).cells[0].dataset
    experiment = experiments.declare(table, preset=preset, data=data, datasets=dataset or first, seeds=1)
    experiments.run(experiment, workers=1)
    cells = (experiment.cells[0], experiment.cells[-1])
    pictures = _pictures(cells[0].with_seed(SEED), images, root=data)
    rows = [{"row": cell.row} | _maps(cell.with_seed(SEED), images, root=data) for cell in cells]
    command = f"python book/attention.py --table {table} --preset {preset}" + (f" --dataset '{dataset}'" if dataset else "")
    command += f" --images {images}" if images != IMAGES else ""
    return {"command": command, "dataset": cells[0].dataset, "preset": preset, "rows": rows} | pictures


def _pictures(run: Run, count: int, *, root: Path | None) -> dict[str, Any]:
    """Of each image its class, its pixels (PNG) and, one bit a pixel, where an object is."""
    from sarlib.measures.finished import first_images

    test = first_images(run.data, count, root=root)
    found = []
    for index in range(len(test)):
        picture = io.BytesIO()
        test.view(index, run.data.image_size).save(picture, "PNG", optimize=True)
        one = {"class": test.classes[int(test.labels[index])], "png": base64.b64encode(picture.getvalue()).decode()}
        if test.masks is not None:
            inside = np.asarray(test.masks[index]).reshape(-1, *test.masks.shape[-2:]).any(0)
            one["object"] = base64.b64encode(np.packbits(inside).tobytes()).decode()
        found.append(one)
    return {"pixels": run.data.image_size, "images": found}


def _maps(run: Run, count: int, *, root: Path | None) -> dict[str, Any]:
    """The run's key, the commit it was trained at, and S: [image][head][y][x]."""
    from sarlib.measures.finished import Finished, first_images, similarity

    store = experiments.open_store()
    model = Finished(run, store.weights(run)).network()
    maps = similarity(model, first_images(run.data, count, root=root), batch_size=count).numpy().astype(float)
    return {"key": run.key, "commit": store.read(run).provenance["commit"], "S": np.round(maps, DECIMALS).tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", default="table2")
    parser.add_argument("--dataset", help="one of the table's data sets (default: its first)")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    found = take(options.table, options.dataset, preset=options.preset, images=options.images)
    path = experiments.runs_folder() / "reference" / "attention.json"
    write_durably(path, json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
