"""The appendix's self-supervised hosts: DINO and MoCo-v3, each without SAR and with it, beside what no training gives.

With SAR a host's network and its teacher have SAR's last block (row C of Table 1c), and the loss is on the student's global
views; without it the block is the stock one. Whatever a table of labels needs is measured of the frozen features.

The hosts' sizes below `paper` were fixed by the precondition of the claim alone, that a host is better than its own random
weights, on pilot seeds from 100 on and with the rows without SAR alone, before a row with SAR was looked at.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Cell, Setting, Table
from sarlib.experiments.figure4 import drawn
from sarlib.experiments.settings import Sets
from sarlib.run import Run
from sarlib.trainer.recipes import Protocol

TABLE, PIXELS = "self_supervised", "raw pixels"


def declare(sets: Sets) -> Table:
    """On the preset's embedded images, and on as many of each real set."""
    embedded = sets.setting(sets.preset.self_supervised or sets.preset.in100)
    settings = [embedded, *(_as_many(sets, subsets[-1], embedded) for subsets in sets.real())]
    cells = [cell for setting in settings for cell in _cells(setting, sets.preset.hosts)]
    each_host = [(host, setting.dataset) for setting in settings for host in sets.preset.hosts]
    better = functools.partial(difference, table=TABLE, metric="knn")
    return Table(
        title="Self-supervised hosts",
        cells=tuple(cells),
        tests=(
            ClaimTest(
                "ssl",
                tuple(better(f"{host} + SAR", host, dataset=dataset, note=f", {dataset}") for host, dataset in each_host),
                requires=tuple(
                    better(host, _untrained(host), dataset=dataset, note=f", {dataset}") for host, dataset in each_host
                ),
                note="by k nearest neighbours of frozen features",
            ),
        ),
        drawn=drawn([cell for cell in cells if cell.dataset == embedded.dataset and cell.measurement.name == "features"]),
        leads=("knn", "linear", "jaccard", "entropy", "components"),
    )


def _as_many(sets: Sets, real: Setting, embedded: Setting) -> Setting:
    """A real set with as many training images as the embedded one, or with all it has."""
    data = real.baseline.data
    size = min(sets.inspect(data.name).train, embedded.baseline.data.train_size)
    whole = real.with_parts(data=dataclasses.replace(data, train_size=size))
    return dataclasses.replace(whole, dataset=f"{data.name}, {size} images", regularizer=embedded.regularizer)


def _cells(setting: Setting, hosts: dict[str, Protocol]) -> Iterator[Cell]:
    """What no training gives first: the pixels, and each host's random weights, which differ in how they are drawn."""
    trained = {name: setting.under(protocol) for name, protocol in hosts.items()}
    cell = functools.partial(_cell, setting.dataset)
    yield cell(PIXELS, next(iter(trained.values())).row("A"), "pixels")
    for name, host in trained.items():
        yield cell(_untrained(name), host.row("A"), "untrained_features")
    for name, host in trained.items():
        yield cell(name, host.row("A"), "features", baseline=_untrained(name))
        yield cell(f"{name} + SAR", host.row("F"), "features", baseline=name)


def _cell(dataset: str, row: str, run: Run, measured: str, *, baseline: str | None = None) -> Cell:
    return Cell(table=TABLE, row=row, dataset=dataset, run=run, baseline=baseline).measured(measured)


def _untrained(host: str) -> str:
    return f"random weights of {host}"
