"""Makes the page of all claims: a forest plot, a table to sort and to filter, and what cannot be tested."""

from __future__ import annotations

import html
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import findings
import pandas as pd
import pictures
import synthesis
from results import Found

from sarlib.experiments import claims
from sarlib.experiments.claims import Claim, ClaimTest
from sarlib.report.judgement import CONTRADICTED, SUPPORTED, UNTESTABLE, VERDICTS, Judgement, decisive, judge
from sarlib.report.notation import bounds
from sarlib.report.statistics import Interval
from sarlib.tasks import metrics

HEAD = ("claim", "where", "verdict", "difference, 95 %", "seeds", "sets: above 0, below, open", "p", "p after Holm")
HEAD += ("mean over sets, 95 %", "a new set, 95 %", "results", "command")

#: Of claims that the paper makes at none of its tables or figures, which of ours tests them.
ELSEWHERE = {"ssl": "self_supervised", "multilabel": "multilabel", "few-labels": "headline"}


@dataclass(frozen=True)
class Line:
    """One claim as one table of results judges it."""

    found: Found
    test: ClaimTest
    judgement: Judgement
    p: float
    sets: dict[str, Interval]

    @property
    def claim(self) -> Claim:
        return self.test.claim

    @property
    def note(self) -> str:
        """Which contrast the verdict hangs on, why, and what the declaration adds."""
        label = self.test.contrasts[self.judgement.carrying].label if self.test.contrasts else ""
        return "; ".join(filter(None, (label, self.judgement.reason, self.test.dose, self.test.note)))

    @property
    def metric(self) -> str:
        return self.test.contrasts[self.judgement.carrying].metric if self.test.contrasts else "top1"


def lines(everything: Sequence[Found]) -> list[Line]:
    """In the order of the paper's claims."""
    made = []
    for found in everything:
        for whole in found.declared.tests:
            test = decisive(whole, found.declared)
            judgement = judge(test, found.results)
            p, sets = math.nan, {}
            if judgement.verdict != UNTESTABLE:
                p = synthesis.p_value(judgement.intervals, judgement.verdict, rule=test.rule)
                sets = {name: one for name in whole.datasets if (one := _on_set(whole, name, found))}
            made.append(Line(found, test, judgement, p, sets))
    order = list(claims.load())
    return sorted(made, key=lambda line: order.index(line.claim.id))


def _on_set(test: ClaimTest, dataset: str, found: Found) -> Interval | None:
    """The interval that carries the claim on one data set; None where it cannot be tested there."""
    judgement = judge(test.on([dataset]), found.results)
    return None if judgement.verdict == UNTESTABLE else judgement.intervals[judgement.carrying]


def page(
    everything: Sequence[Found], refused: Sequence[str], *, out: Path, pages: Sequence[str], earlier: Container[str] = ()
) -> dict[str, str]:
    """What fills the chapter's marks. `pages`: files that a line can lead to; `earlier`: tables with results of an earlier
    declaration, by which no claim is judged."""
    made = lines(everything)
    tested = [line for line in made if line.judgement.verdict != UNTESTABLE]
    marks = {"summary": _summary(tested), "forest": _forest(tested, out), "table": _table(tested, pages)}
    reasons = [f":::{{warning}}\nNot read: {'; '.join(refused)}.\n:::"] if refused else []
    return marks | {"untestable": "\n\n".join([*reasons, _untestable(made, earlier)])}


def _summary(tested: Sequence[Line]) -> str:
    if not tested:
        return "There are no results yet that a claim could be judged by."
    counts = {verdict: sum(line.judgement.verdict == verdict for line in tested) for verdict in VERDICTS}
    listed = ", ".join(f"**{count} {verdict}**" for verdict, count in counts.items() if count)
    corrected = synthesis.holm([line.p for line in tested])
    decided = [p for line, p in zip(tested, corrected, strict=True) if line.judgement.verdict in (SUPPORTED, CONTRADICTED)]
    stays = sum(p < 0.05 for p in decided)
    ids = {line.claim.id for line in tested}
    return (
        f"{len(ids)} of the {len(claims.load())} claims are judged here, {len(tested)} times in all: {listed}. Of the "
        f"{len(decided)} that are supported or contradicted, {stays} stay so after Holm's correction for all of them together."
    )


def _forest(tested: Sequence[Line], out: Path) -> str:
    drawn = []
    for line in tested:
        known = metrics.metric(line.metric)
        unit = "points of " + line.metric if known.unit == "%" else f"{line.metric} ({known.unit})"
        for dataset, interval in (line.sets or {"": line.judgement.intervals[line.judgement.carrying]}).items():
            one = {"id": line.test.name, "dataset": dataset, "unit": unit, "verdict": line.judgement.verdict}
            one |= {"mean": interval.mean, "low": interval.low, "high": interval.high}
            drawn.append(one | {"real": dataset in line.found.declared.real})
    shown = pd.DataFrame(drawn).dropna() if drawn else pd.DataFrame()
    if shown.empty:
        return "Nothing to draw yet."
    path = out / "_figures" / "forest.png"
    return pictures.directive(path, pictures.forest(shown, path))


def _table(tested: Sequence[Line], pages: Sequence[str]) -> str:
    """As HTML: numbers carry what they are sorted by."""
    if not tested:
        return "Nothing to list yet."
    corrected = synthesis.holm([line.p for line in tested])
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    body = "".join(_row(line, p, pages) for line, p in zip(tested, corrected, strict=True))
    options = "".join(f'<option value="{verdict}">{verdict}</option>' for verdict in VERDICTS if verdict != UNTESTABLE)
    return "\n".join(
        [
            "```{raw} html",
            '<p id="claims-filter" hidden><label>show <select><option value="">every verdict</option>'
            f"{options}</select></label> <output></output></p>",
            '<div class="scrolls" tabindex="0" role="region" aria-label="table of all claims, scrolls sideways">',
            '<table id="claims-table" class="dataframe laid-out">',
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
            "```",
        ]
    )


def _row(line: Line, corrected: float, pages: Sequence[str]) -> str:
    claim, found, interval = line.claim, line.found, line.judgement.intervals[line.judgement.carrying]
    over = synthesis.random_effects(list(line.sets.values()))
    dose = f" ({line.test.dose})" if line.test.dose else ""
    what = html.escape(claim.claim + (f", against {claim.reference}" if claim.reference else "") + dose)
    link = f'<a href="{found.file}.html#{found.file}-verdicts">{what}</a>' if found.file in pages else what
    verdict = line.judgement.verdict
    signs = [sum(side(each) for each in line.sets.values()) for side in (lambda one: one.low > 0, lambda one: one.high < 0)]
    signs.append(sum(each.contains(0) for each in line.sets.values()))
    cells = [
        (claim.where, claim.where),
        (f'<span class="verdict" data-verdict="{verdict}" title="{html.escape(line.note)}">{verdict}</span>', verdict),
        (findings.difference(interval, line.metric), interval.mean),
        (interval.n, interval.n),
        (", ".join(map(str, signs)) if line.sets else "–", signs[0] - signs[1]),
        (_p(line.p), line.p),
        (_p(corrected), corrected),
        (findings.difference(over.mean, line.metric) if over else "–", over.mean.mean if over else -1e9),
        (bounds(over.new, line.metric) if over else "–", over.new.low if over else -1e9),
        (f"{found.whose}, {found.preset}", found.whose),
        (f"<code>{found.again}</code>", found.again),
    ]
    shown = "".join(f'<td data-sort="{html.escape(str(key))}">{text}</td>' for text, key in cells)
    return f'<tr data-verdict="{verdict}"><th scope="row">{link}</th>{shown}</tr>'


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _untestable(made: Sequence[Line], earlier: Container[str]) -> str:
    """Claims that no results here judge, each with its reason."""
    judged = {line.claim.id for line in made if line.judgement.verdict != UNTESTABLE}
    reasons: dict[str, list[str]] = {}
    for line in made:
        if line.judgement.verdict == UNTESTABLE and line.claim.id not in judged:
            why = f"{line.found.whose} results at {line.found.preset}: {line.judgement.reason}"
            reasons.setdefault(line.claim.id, []).append(why)
    said = []
    for claim in claims.load().values():
        if claim.id not in judged:
            why = "; ".join(reasons.get(claim.id, [])) or _no_results(claim, earlier)
            said.append(f"- **{claim.claim}** ({claim.where}): {why}.")
    return "\n".join(said) or "Every claim of the paper is judged above."


def _no_results(claim: Claim, earlier: Container[str]) -> str:
    if claim.metric == "training time":
        return "measured by `make bench`, see {doc}`speed`"
    name = ELSEWHERE.get(claim.id) or claim.where.lower().replace(" ", "").rstrip("abcdef")
    return f"{'results of an earlier declaration only' if name in earlier else 'no results yet'}: `make {name}`"
