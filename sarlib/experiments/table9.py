"""Table 9: four architectures on IN-100, without SAR and with it, all under one recipe."""

from __future__ import annotations

from collections.abc import Iterable

from sarlib.experiments.claims import ClaimTest, Contrast, difference
from sarlib.experiments.declaration import Setting, Table, trained
from sarlib.experiments.settings import Sets


def declare(sets: Sets) -> Table:
    """The smallest subset of each real set joins."""
    settings = [sets.setting(sets.preset.in100), *(subsets[0] for subsets in reversed(sets.real()))]
    models = [by_architecture(sets, each) for each in settings]
    return compared("table9", models, claim="t9", title="Other architectures on few images")


def by_architecture(sets: Sets, setting: Setting) -> dict[str, Setting]:
    """The setting for each architecture, by its name."""
    models = sets.preset.architectures(setting.baseline.model.patch_size)
    return {name: setting.with_model(model) for name, model in models.items()}


def compared(
    table: str, settings: list[dict[str, Setting]], *, claim: str, title: str, note: str = "", also: Iterable[Contrast] = ()
) -> Table:
    """Each architecture without SAR and with it, on every data set; the claim is about the gains, and `also` about these.

    Beside accuracy stand millions of parameters, and the speed at which the machine trained.
    """
    rows = [(name, f"{name} + SAR", each) for models in settings for name, each in models.items()]
    gains = [difference(sar, name, table=table, dataset=each.dataset) for name, sar, each in rows]
    return trained(
        table,
        title=title,
        cells=[cell for name, sar, each in rows for cell in each.cells(table, {name: each.row("A")} | each.sar(sar))],
        tests=[ClaimTest(claim, (*gains, *also), note=note)],
        shown=("parameters", "images_per_second"),
    )
