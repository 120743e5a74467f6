"""The claim of section 5.2 that training with SAR takes 2.9 % longer on average, judged from what `make bench` measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from sarlib.experiments.claims import load
from sarlib.report.judgement import COLUMNS, CONTRADICTED, SUPPORTED, UNDECIDED
from sarlib.report.notation import GAP

#: How `make bench` calls the measurement, and the two sides of its ratio.
MEASURED, SAR, NONE = "training step with each regulariser", "SAR", "none"


def overhead(benchmarks: Path) -> pd.DataFrame:
    """A line for each device in the folder, with the columns of `verdicts`; `n` counts architectures.

    The claim is read as "no more than that": supported where the interval of the mean over the architectures lies below the
    paper's figure plus the smallest effect of interest, contradicted where it lies above. It is the interval of a mean of
    independent measurements.
    """
    claim, lines = load()["overhead"], []
    most = float(str(claim.value).strip("+ %")) + claim.smallest
    for file in sorted(Path(benchmarks).glob("*.json")):
        outcome = json.loads(file.read_text(encoding="utf-8"))
        found = [
            [100 * (ratio[end] - 1) for end in ("value", "low", "high")]
            for each in outcome["measurements"]
            for ratio in each["ratios"]
            if (each["name"], ratio["side"], ratio["over"]) == (MEASURED, SAR, NONE)
        ]
        if found:
            n, mean = len(found), sum(value for value, *_ in found) / len(found)
            half = math.sqrt(sum(((high - low) / 2) ** 2 for _, low, high in found)) / n
            verdict = SUPPORTED if mean + half < most else CONTRADICTED if mean - half > most else UNDECIDED
            line = {"id": claim.id, "claim": claim.claim, "where": claim.where, "paper": claim.stated, "ours": f"{mean:+.1f} %"}
            line |= {"interval": f"[{mean - half:+.1f}, {mean + half:+.1f}]", "n": n, "verdict": verdict, "magnitude": GAP}
            note = f"mean over {n} architectures; read as no more than that, up to the smallest effect of interest, "
            note += f"{claim.smallest:g} {claim.unit}"
            lines.append(line | {"judged on": outcome["device"], "note": note, "each set": ""})
    return pd.DataFrame(lines, columns=COLUMNS).set_index("id")
