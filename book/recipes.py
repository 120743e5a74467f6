"""Makes the table of the training protocols in the chapter on baselines, from `sarlib.trainer.recipes`."""

from __future__ import annotations

import markup

from sarlib.trainer.recipes import PROTOCOLS, Protocol

NAMES = {"deit": "DeiT", "liu": "Liu et al.", "t2t": "T2T", "pvt": "PVT", "cvt": "CvT", "fine-tuning": "Fine-tuning"}

#: Column: what it shows of a protocol.
COLUMNS = {
    "epochs": lambda protocol: protocol.recipe.epochs,
    "batch": lambda protocol: protocol.recipe.batch_size,
    "learning rate": lambda protocol: f"{protocol.recipe.lr:g}",
    "from, over epochs": lambda protocol: f"{protocol.recipe.warmup_lr:g}, {protocol.recipe.warmup_epochs:g}",
    "to": lambda protocol: f"{protocol.recipe.min_lr:g}",
    "weight decay": lambda protocol: f"{protocol.recipe.weight_decay:g}",
    "clip": lambda protocol: protocol.recipe.clip or "–",
    "EMA": lambda protocol: protocol.recipe.ema or "–",
    "drop path": lambda protocol: protocol.drop_path,
}


def section() -> str:
    """The numbers of every protocol as a table, then its source and in what the declaration departs from it."""
    rows = [(NAMES[name], *(show(protocol) for show in COLUMNS.values())) for name, protocol in PROTOCOLS.items()]
    table = markup.table(("recipe", *COLUMNS), rows)
    return "\n\n".join([table, *(_source(NAMES[name], protocol) for name, protocol in PROTOCOLS.items())])


def _source(name: str, protocol: Protocol) -> str:
    repository, files = protocol.source.split(": ", 1)
    text = f"{name}\n: From [{repository.removeprefix('github.com/')}](https://{repository}), {files}."
    return text + (f" What differs: {'; '.join(protocol.departures)}." if protocol.departures else "")
