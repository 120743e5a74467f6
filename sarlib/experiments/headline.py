"""The headline experiment: SAR's block and its loss on few real photographs, registered before its first run.

Two sets, Imagenette and CIFAR-10, 500 training images each, all of their test images; rows A, C and F of Table 1c and F at the
matched dose; 24 seeds from 200 on, which no other table uses. The endpoint is top-1; entropy and components stand beside it.
What the text says of scarce labels is judged by it, on both sets.
Pilots on other seeds went before: the setting is theirs, and the matched dose is found by the entropy alone on seeds of its own
(`dose.py`). Nobody looks at a result before all seeds are there.
"""

from __future__ import annotations

from sarlib.config import require
from sarlib.experiments.claims import MATCHED, ClaimTest, Contrast, difference, differences
from sarlib.experiments.declaration import Setting, Table, trained
from sarlib.experiments.settings import Sets
from sarlib.run import Run

REAL = ("imagenette", "cifar10")
FIRST_SEED, SEEDS = 200, 24
VIT, BLOCK, SAR = "ViT", "SAR's block", "ViT + SAR"


def declare(sets: Sets) -> Table:
    """On the smallest subset of both sets below DATA; where neither is there, a rehearsal on what stands in for IN-100.

    `ConfigError` if only one of the two is there.
    """
    real = {each.baseline.data.name: each for each, *_ in sets.real() if each.baseline.data.name in REAL}
    absent = ", ".join(name for name in REAL if name not in real)
    require(not real or not absent, f"the headline experiment is on {' and '.join(REAL)}: {absent} is not below DATA")
    settings = [real[name] for name in REAL if name in real] or [sets.setting(sets.preset.in100)]
    rows = {setting.dataset: _rows(setting) for setting in settings}
    gains = differences(SAR, VIT, datasets=list(rows), table="headline") if real else ()
    rehearsal = "" if real else f"a rehearsal: the claim is judged on {' and '.join(REAL)}, below DATA"
    return trained(
        "headline",
        title="The headline: SAR's block and its loss on few real photographs",
        cells=[cell for setting in settings for cell in setting.cells("headline", rows[setting.dataset])],
        tests=[ClaimTest("few-labels", gains, untestable=rehearsal)],
        contrasts=tuple(contrast for setting in settings for contrast in _contrasts(setting.dataset, rows[setting.dataset])),
        first_seed=FIRST_SEED,
    )


def _rows(setting: Setting) -> dict[str, Run]:
    return {VIT: setting.row("A"), BLOCK: setting.row("C")} | setting.sar(SAR)


def _contrasts(dataset: str, rows: dict[str, Run]) -> list[Contrast]:
    """What SAR does as a whole, what its block does, and what the loss does on it."""
    full = [row for row in (SAR, SAR + MATCHED) if row in rows]
    pairs = [*((row, VIT) for row in full), (BLOCK, VIT), *((row, BLOCK) for row in full)]
    return [difference(row, than, table="headline", dataset=dataset) for row, than in pairs]
