"""Makes the table of the training protocols in the chapter on baselines, from `sarlib.trainer.recipes`."""

from __future__ import annotations

from pathlib import Path

import markup
import yaml

from sarlib.trainer.recipes import HOSTS, PROTOCOLS, VITDET, Protocol

NAMES = {"deit": "DeiT", "liu": "Liu et al.", "t2t": "T2T", "pvt": "PVT", "cvt": "CvT", "fine-tuning": "Fine-tuning"}
#: Those that are not in the table: what is trained is not an architecture.
OTHERS = {"ViTDet": VITDET} | HOSTS
RATE = (
    "the released rate changes each epoch, and the warm-up replaces the beginning of its cosine; here it changes each step, "
    "and the cosine begins where the warm-up ends: at the beginning of an epoch up to {} % of the peak away"
)

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
    named = {name: NAMES.get(name, name) for name in PROTOCOLS | OTHERS}
    return "\n\n".join([table, *(_source(name, named[name], each) for name, each in (PROTOCOLS | OTHERS).items())])


def departures(name: str) -> list[str]:
    """In what a protocol departs from the released trainer that its numbers are from."""
    entry = yaml.safe_load(Path(__file__).with_name("recipes.yml").read_text(encoding="utf-8"))[name]
    return [*entry.get("departures", ()), *([RATE.format(entry["peak"])] if "peak" in entry else ())]


def _source(name: str, shown: str, protocol: Protocol) -> str:
    repository, files = protocol.source.split(": ", 1)
    text = f"{shown}\n: From [{repository.removeprefix('github.com/')}](https://{repository}), {files}."
    differ = "; ".join(departures(name))
    return text + (f" What differs: {differ}." if differ else "")
