"""The paper's claims (`claims.yml`), and how a table declares the test of one: contrasts between its cells, above 0 where the claim holds."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import yaml

from sarlib.config import ConfigError

#: How the contrasts of a claim go together: every one of them is above 0, or at least one is.
RULES = ("all", "any")

#: One cell of a linear combination: coefficient, table, row, data set.
Term = tuple[float, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper. `delta` is SAR minus `reference` in the unit of `metric` (points for top1); `sign` is what
    the text says where it gives no figure; `value` is a figure of its own."""

    id: str
    where: str
    claim: str
    metric: str | None = None
    reference: str | None = None
    delta: float | None = None
    sign: str | None = None
    value: float | str | None = None

    @property
    def stated(self) -> str:
        """The magnitude as the paper gives it, empty where it gives none."""
        if self.delta is not None:
            return f"{self.delta:+g}"
        return self.sign or ("" if self.value is None else str(self.value))


@functools.cache
def load() -> dict[str, Claim]:
    """Every claim of `claims.yml` by its id, in the order of the paper."""
    entries = yaml.safe_load(Path(__file__).with_name("claims.yml").read_text(encoding="utf-8"))
    claims = [Claim(**entry) for entry in entries]
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise ConfigError(
            f"claims.yml: each id may stand once, got {', '.join(sorted({name for name in ids if ids.count(name) > 1}))} twice"
        )
    return dict(zip(ids, claims, strict=True))


@dataclass(frozen=True)
class Contrast:
    """A linear combination of cells, evaluated per paired seed: a difference has two terms, a difference of differences four.

    `terms` are (coefficient, table, row, data set). The sign is chosen so that the claim says "above 0".
    """

    label: str
    terms: tuple[Term, ...]
    metric: str = "top1"

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError(f"contrast {self.label!r} has no terms: give (coefficient, table, row, data set)")


@dataclass(frozen=True)
class ClaimTest:
    """How a table tests a claim. `untestable` is the reason why it cannot be tested at this preset, where that is so;
    contrasts are then not evaluated."""

    claim_id: str
    contrasts: tuple[Contrast, ...] = ()
    rule: str = "all"
    note: str = ""
    untestable: str = ""

    def __post_init__(self) -> None:
        if self.claim_id not in load():
            raise ConfigError(f"unknown claim {self.claim_id!r}: claims.yml has {', '.join(load())}")
        if self.rule not in RULES:
            raise ConfigError(f"unknown rule {self.rule!r} for claim {self.claim_id}; choose from {', '.join(RULES)}")
        if not self.contrasts and not self.untestable:
            raise ConfigError(f"claim {self.claim_id} needs either contrasts or the reason why it is untestable")

    @property
    def claim(self) -> Claim:
        return load()[self.claim_id]
