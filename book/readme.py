"""Write the README's tables from the committed reference results: `python book/readme.py`.

What stands between `<!-- NAME -->` and `<!-- /NAME -->` is made here, so that no figure of the README is typed by hand; a test
holds the two together.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import markup
import pandas as pd
import speed

from sarlib import experiments, report
from sarlib.durable import write_durably
from sarlib.experiments.results import read_csv
from sarlib.report.judgement import VERDICTS
from sarlib.report.statistics import mean_interval
from sarlib.runner.store import Store

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REFERENCE = ROOT / "runs" / "reference"
PRESET = "laptop"

#: What the paper shows where, in its order.
PLACES = {
    "table1": "ablations: weight of the loss, epochs, components of SAR",
    "table2": "training from scratch on small and medium data sets",
    "table3": "shares of IN-100, and DRLoc",
    "table4": "ImageNet-1K",
    "table5": "detection, VOC 2007",
    "table6": "segmentation, VOC",
    "table7": "fine-tuning on four sets",
    "table8": "ImageNet-A and ImageNet-C",
    "table9": "T2T, PVT and CvT on IN-100",
    "table10": "T2T, PVT and CvT on ImageNet-1K",
    "table11": "attention masks against objects",
    "figure1": "thresholded attention of four trainings",
    "figure2": "how the entropy is computed",
    "figure3": "accuracy against epochs",
    "figure4": "the heads' attention maps",
    "dose": "the weight at which the loss lowers the entropy",
    "headline": "SAR's block and its loss on few real photographs, registered first",
    "appendix": "other regularisers, a collapse; self-supervised hosts are not there yet",
    "multilabel": "the appendix's images with several labels",
}


#: Of a place whose runs the paper's text claims nothing about.
NO_CLAIM = "differences with intervals; the text claims nothing that can be tested here"


def state() -> str:
    """One line for each place: its command, and the verdicts of the reference results on embedded data."""
    rows = []
    for name, about in PLACES.items():
        title = name.replace("table", "Table ").replace("figure", "Figure ").capitalize()
        there = name in experiments.TABLES
        rows.append((title, about, f"`make {name}`" if there else "–", _verdicts(name) if there else "not there yet"))
    return markup.table(("", "what it is about", "command", f"verdicts at `{PRESET}`"), rows)


def _verdicts(name: str) -> str:
    """How many claims met which verdict, e.g. "2 supported, 1 contradicted"."""
    found = _reference(name)
    if found is None:
        return "declared; no reference results yet"
    if report.of_earlier(*found, REFERENCE / "store"):
        return "the results are of an earlier declaration"
    counts = Counter(report.verdicts(*found).verdict)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or NO_CLAIM


def gains() -> str:
    """Full SAR minus baseline on every data set of Table 2's reference results: top-1 points and Jaccard, paired by seed."""
    results = read_csv(REFERENCE / PRESET / "table2.csv")
    rows = []
    for dataset in results.dataset.unique():
        here = results[results.dataset == dataset]
        by_row = {row: here[here.row == row] for row in here.row.unique()}
        baseline, sar = by_row.values()
        points, jaccard = (_difference(sar, baseline, name, decimals=n) for name, n in (("top1", 1), ("jaccard", 3)))
        rows.append((dataset, here.seed.nunique(), points, jaccard))
    return markup.table(("data set", "seeds", "top-1, points", "Jaccard of the attention masks"), rows)


def architectures() -> str:
    """What SAR adds to each architecture, in Tables 9 and 10's reference results: top-1 points, paired by seed."""
    found = {name: _reference(name) for name in ("table9", "table10")}
    exact = {name: report.differences(*pair, metric=["top1"], exact=True) for name, pair in found.items() if pair}
    first = {name: pair[1].cells[0].dataset for name, pair in found.items() if pair}
    gained = {
        name: own[(own.table == name) & (own.dataset == first[name])].set_index("baseline") for name, own in exact.items()
    }
    columns = [
        f"{pair[1].cells[0].dataset} ({name.replace('table', 'Table ')}, {len(pair[1].seeds)} seeds)"
        for name, pair in found.items()
        if pair
    ]
    names = dict.fromkeys(row for differences in gained.values() for row in differences.index)
    rows = [(row, *(_interval(differences.loc[row]) for differences in gained.values())) for row in names]
    return markup.table(("architecture", *columns), rows)


def _interval(line: pd.Series) -> str:
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, *, decimals: int) -> str:
    one, other = (rows[rows.metric == metric].set_index("seed").value for rows in (ours, theirs))
    if one.empty:
        return "no masks"
    interval = mean_interval((one - other).dropna())
    return f"{interval.mean:+.{decimals}f} [{interval.low:+.{decimals}f}, {interval.high:+.{decimals}f}]"


def output() -> str:
    """The end of what `make table2` prints with its default seeds, which are the first ones of the reference results."""
    experiment = experiments.declare("table2", preset=PRESET)
    results = read_csv(REFERENCE / PRESET / "table2.csv")
    printed = report.text(results[results.seed.isin(experiment.seeds)], experiment)
    end = printed[printed.index("what the paper claims") :]
    return f"```text\n{end}\nwrote runs/{PRESET}/table2.ipynb and table2.csv\n```"


def bars() -> str:
    """What `make bench` found on each device of the reference results, against the bars; empty where there is none."""
    outcomes = [outcome for whose, outcome in speed.reports(REFERENCE.parent) if whose == speed.REFERENCE]
    return "\n\n".join(f"Measured on {outcome['device']}:\n\n{speed.bars(outcome)}" for outcome in outcomes if outcome["bars"])


def _reference(name: str) -> tuple[pd.DataFrame, experiments.Experiment] | None:
    """The table's reference results, and its declaration on their data sets and seeds."""
    path = REFERENCE / PRESET / f"{name}.csv"
    if not path.exists():
        return None
    results = read_csv(path)
    return results, experiments.declare_again(name, results, preset=PRESET, store=Store(REFERENCE / "store"))


BLOCKS = {"output": output, "state": state, "gains": gains, "architectures": architectures, "bars": bars}


def rendered(text: str) -> str:
    """The README's text with every block made anew. `ValueError` if a block is missing."""
    for name, make in BLOCKS.items():
        block = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text, n = re.subn(rf"<!-- {name} -->\n.*?\n<!-- /{name} -->", lambda found, block=block: block, text, flags=re.S)
        if n != 1:
            raise ValueError(f"README.md needs the block {name} once, it has it {n} times")
    return text


if __name__ == "__main__":
    write_durably(README, rendered(README.read_text(encoding="utf-8")).encode())
    print(f"wrote {README.name}", file=sys.stderr)
