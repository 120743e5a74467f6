"""The paper's claims (`claims.yml`), and how a table tests one: contrasts between its cells, above 0 where the claim holds."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sarlib.config import require

#: How the contrasts of a claim go together: every one of them is above 0, or at least one is.
RULES = ("all", "any")

#: How the row of a table is called that has SAR's loss at the matched dose, after the row at the paper's weight.
MATCHED = ", matched dose"

#: One cell of a linear combination: coefficient, table, row, data set.
Term = tuple[float, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper."""

    id: str
    where: str
    claim: str
    smallest: float  # the smallest effect of interest, in `unit`
    unit: str
    metric: str | None = None
    reference: str | None = None
    delta: float | None = None  # SAR minus the reference, in the unit of the metric (points for top1)
    sign: str | None = None  # what the text says where it gives no figure
    value: float | str | None = None  # a figure of its own

    @property
    def stated(self) -> str:
        """The magnitude as the paper gives it, empty where it gives none."""
        if self.delta is not None:
            return f"{self.delta:+g}"
        return self.sign or ("" if self.value is None else str(self.value))

    @property
    def interest(self) -> str:
        """The smallest effect of interest with its unit, as "0.5 points of top-1"; exactly 1 is one point."""
        return f"{self.smallest:g} {self.unit.replace('points', 'point') if self.smallest == 1 else self.unit}"


@functools.cache
def load() -> dict[str, Claim]:
    """Every claim of `claims.yml` by its id, in the order of the paper."""
    entries = yaml.safe_load(Path(__file__).with_name("claims.yml").read_text(encoding="utf-8"))
    twice = sorted(name for name, times in Counter(entry["id"] for entry in entries).items() if times > 1)
    require(not twice, f"claims.yml: each id may stand once, got {', '.join(twice)} twice")
    return {entry["id"]: Claim(**entry) for entry in entries}


@dataclass(frozen=True)
class Contrast:
    """A linear combination of cells, evaluated per paired seed: a difference has two terms, a difference of differences four.

    `terms` are (coefficient, table, row, data set). The sign is chosen so that the claim says "above 0"; where it says "not
    worse", the value is above -`margin`.
    """

    label: str
    terms: tuple[Term, ...]
    metric: str = "top1"
    margin: float = 0.0

    def __post_init__(self) -> None:
        require(bool(self.terms), f"contrast {self.label!r} has no terms: give (coefficient, table, row, data set)")

    @property
    def dataset(self) -> str:
        """The data set that it is about: the first, where several are compared."""
        return self.terms[0][3]


def difference(
    row: str, than: str, *, table: str, dataset: str, label: str = "", note: str = "", metric: str = "top1", margin: float = 0.0
) -> Contrast:
    """`row` minus `than` on one data set, called "row - than" unless it has a `label`, followed by the `note`.

    Where less of the `metric` is better, `row` is the reference and `than` what should have less of it.
    """
    label = label or (f"{row} - ({than})" if "+" in than else f"{row} - {than}")
    return Contrast(label + note, ((1, table, row, dataset), (-1, table, than, dataset)), metric, margin)


def differences(row: str, than: str, *, datasets: Iterable[str], **rest: Any) -> tuple[Contrast, ...]:
    """The same on each of several data sets, which stand in the labels."""
    return tuple(difference(row, than, dataset=each, note=f", {each}", **rest) for each in datasets)


@dataclass(frozen=True)
class ClaimTest:
    """How a table tests a claim. `untestable` is the reason why it cannot be tested at this preset, where that is so;
    contrasts are then not evaluated. `requires` are preconditions without which the claim says nothing, as that pre-training
    helps at all: each has to lie above 0 at 95 %, else the claim cannot be tested. `dose` says at which weight of SAR's loss,
    where a claim is tested at several."""

    claim_id: str
    contrasts: tuple[Contrast, ...] = ()
    rule: str = "all"
    note: str = ""
    untestable: str = ""
    requires: tuple[Contrast, ...] = ()
    dose: str = ""

    def __post_init__(self) -> None:
        known, tested = self.claim_id in load(), self.contrasts or self.untestable
        require(known, f"unknown claim {self.claim_id!r}: claims.yml has {', '.join(load())}")
        require(self.rule in RULES, f"unknown rule {self.rule!r} for claim {self.claim_id}; choose from {', '.join(RULES)}")
        require(bool(tested), f"claim {self.claim_id} needs either contrasts or the reason why it is untestable")

    @property
    def claim(self) -> Claim:
        return load()[self.claim_id]

    @property
    def name(self) -> str:
        """The claim's id, with the dose where it is tested at several."""
        return ", ".join(filter(None, (self.claim_id, self.dose)))

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(contrast.dataset for contrast in self.contrasts))

    def smallest(self, contrast: Contrast) -> float:
        """The smallest effect of interest in the unit of this contrast; 0 where it has another metric than the first, or the
        margin of a claim that something is not worse."""
        return 0.0 if contrast.margin or contrast.metric != self.contrasts[0].metric else self.claim.smallest

    def on(self, datasets: Collection[str]) -> ClaimTest:
        """The test on these of its data sets; preconditions on sets that it has no contrasts on stay."""
        other = set(self.datasets).difference(datasets)
        contrasts, requires = (tuple(one for one in own if one.dataset not in other) for own in (self.contrasts, self.requires))
        return replace(self, contrasts=contrasts, requires=requires)
