"""Table 9: four architectures on IN-100, without SAR and with it, all under one recipe."""

from __future__ import annotations

from sarlib.experiments.claims import ClaimTest, difference
from sarlib.experiments.declaration import Setting, Table
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


def compared(table: str, settings: list[dict[str, Setting]], *, claim: str, title: str, note: str = "") -> Table:
    """Each architecture without SAR and with it, on every data set; the claim is about the gains on the first.

    Beside accuracy stand millions of parameters, and the speed at which the machine trained.
    """
    rows = [(name, f"{name} + SAR", each) for models in settings for name, each in models.items()]
    gains = [difference(sar, name, table=table, dataset=each.dataset) for name, sar, each in rows]
    return Table(
        title=title,
        cells=tuple(cell for name, sar, each in rows for cell in each.cells(table, {name: each.row("A"), sar: each.row("F")})),
        tests=(ClaimTest(claim, tuple(gains[: len(settings[0])]), note=note),),
        shown=("parameters", "images_per_second"),
    )
