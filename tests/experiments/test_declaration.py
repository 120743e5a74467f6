"""What a declared table asks for: its runs after those that they start from, its measurements, and itself as a frame."""

from __future__ import annotations

import dataclasses

import pytest

from sarlib.config import ConfigError
from sarlib.experiments.declaration import Cell, Experiment, Setting
from sarlib.run import Measurement, Run
from sarlib.trainer.recipes import DRLOC


@pytest.fixture
def setting(smallest_run: Run) -> Setting:
    baseline = dataclasses.replace(smallest_run, model=dataclasses.replace(smallest_run.model, variant="A"), regularizers=())
    return Setting(dataset="shapes", baseline=baseline, regularizer=smallest_run.regularizers[0], drloc=DRLOC["vit"])


def experiment(*cells: Cell, drawn: tuple[Cell, ...] = ()) -> Experiment:
    return Experiment(name="t", title="a table", preset="tiny", cells=cells, drawn=drawn, seeds=(0, 1))


def test_the_first_row_is_the_baseline_of_the_others(setting: Setting) -> None:
    cells = setting.cells("t", {"plain": setting.row("A"), "block": setting.row("C"), "SAR": setting.row("F")}, epoch=2)
    assert [(cell.row, cell.baseline) for cell in cells] == [("plain", None), ("block", "plain"), ("SAR", "plain")]
    assert {(cell.table, cell.dataset, cell.epoch) for cell in cells} == {("t", "shapes", 2)}


def test_row_f_is_row_c_under_sars_loss(setting: Setting) -> None:
    assert setting.row("F") == setting.regularized(setting.regularizer) != setting.row("C") == setting.regularized()
    assert setting.row("E") == dataclasses.replace(setting.row("A"), regularizers=(setting.regularizer,))


def test_another_architecture_has_its_own_weight_of_drloc(setting: Setting) -> None:
    t2t = dataclasses.replace(setting.baseline.model, name="t2t")
    other = setting.with_model(t2t)
    assert (other.baseline.model, other.drloc.weight, setting.drloc.weight) == (t2t, 0.1, 0.5)
    assert dataclasses.replace(other.baseline, model=setting.baseline.model) == setting.baseline


def test_runs_come_after_those_that_they_start_from_with_the_same_seed(setting: Setting) -> None:
    parent = setting.row("F")
    child = dataclasses.replace(setting.row("A"), pretrained=parent)
    runs = list(experiment(*setting.cells("t", {"child": child})).runs())
    assert runs == [parent, child, parent.with_seed(1), child.with_seed(1)]


def test_measurements_are_of_every_seed_and_those_that_are_drawn_of_the_first(setting: Setting) -> None:
    run = setting.row("A")
    table, figure = (Measurement(name=name, data=run.data, images=4) for name in ("collapse", "maps"))
    shown, drawn = (Cell(table="t", row="ViT", dataset="shapes", run=run, measurement=one) for one in (table, figure))
    plain = Cell(table="t", row="trained", dataset="shapes", run=run)
    declared = experiment(plain, shown, drawn=(drawn,))
    assert list(declared.measurements()) == [(run, table), (run.with_seed(1), table), (run, figure)]
    assert {one.key for one in declared.runs()} == {run.key, run.with_seed(1).key}
    assert declared.frame()["measured"].tolist() == ["–", "collapse"]
    assert "measured" not in experiment(plain).frame()


def test_a_restricted_table_is_restricted_everywhere(setting: Setting) -> None:
    cells = setting.cells("t", {"A": setting.row("A")})
    elsewhere = [dataclasses.replace(cell, dataset="digits") for cell in cells]
    whole = experiment(*cells, *elsewhere, drawn=(*cells, *elsewhere))
    assert whole.only(["digits"]) == experiment(*elsewhere, drawn=tuple(elsewhere))
    with pytest.raises(ConfigError, match="^t at preset tiny has no data set flowers, mnist; it has shapes; digits$"):
        whole.only(["mnist", "digits", "flowers"])
