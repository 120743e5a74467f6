"""Table 11 and Figures 1 and 4 as declared: what is shown to which network, and published ones where their files are."""

from __future__ import annotations

from pathlib import Path

import pytest
from voc_layout import write_year

from sarlib import experiments
from sarlib.config import ConfigError
from sarlib.experiments.presets import STYLES


@pytest.mark.parametrize("preset", ["tiny", "laptop", "gpu"])
def test_embedded_networks_see_every_style_at_their_own_size(preset: str) -> None:
    table11, table4 = (experiments.declare(name, preset=preset) for name in ("table11", "table4"))
    trained = {cell.run for cell in table4.cells}
    assert {cell.run for cell in table11.cells} == trained
    assert {cell.measurement.data.name for cell in table11.cells} == set(STYLES)
    assert {cell.measurement.data.image_size for cell in table11.cells} == {run.data.image_size for run in trained}


def test_photographs_are_shown_to_imagenettes_networks_as_much_larger_as_vocs_are(image_folder: Path) -> None:
    """224 -> 480 px is 14 -> 30 tokens a side; here 4 -> 9 tokens of 8 px."""
    write_year(image_folder / "street" / "VOCdevkit" / "VOC2012")
    with pytest.raises(ConfigError, match="street/voc2012-masks is shown to networks that were trained on imagenette"):
        experiments.declare("table11", preset="tiny", data=image_folder)
    (image_folder / "pets").rename(image_folder / "imagenette")
    table11 = experiments.declare("table11", preset="tiny", data=image_folder)
    name = "street/voc2012-masks, trained on imagenette"
    real = [cell for cell in table11.cells if cell.dataset == name]
    assert {cell.run.data.name for cell in real} == {"imagenette"} and table11.real == {name}
    assert {(cell.measurement.data.image_size, bool(cell.measurement.data.fingerprint)) for cell in real} == {(72, True)}
    (test,) = table11.tests
    assert test.datasets == (*STYLES, name) and [each.dataset for each in test.requires] == [*STYLES, name]
    assert {(each.metric, each.terms[0][2]) for each in test.requires} == {("jaccard_gain", "ViT")}


def test_figure_1_has_a_network_without_labels_between_its_two() -> None:
    figure1, hosts, figure4 = (experiments.declare(name, preset="tiny") for name in ("figure1", "self_supervised", "figure4"))
    assert [cell.row for cell in figure1.drawn] == ["ViT", "DINO", "ViT + SAR"]
    assert figure1.drawn[1].run in {cell.run for cell in hosts.cells}
    assert [cell.row for cell in figure4.drawn] == ["ViT", "ViT + SAR"]
    assert len({cell.measurement for cell in (*figure1.drawn, *figure4.drawn)}) == 1, "the same images, measured once"


def test_published_networks_join_at_paper_where_their_files_are(paper_sets: Path) -> None:
    def rows(name: str) -> list[str]:
        declared = experiments.declare(name, preset="paper", data=paper_sets)
        return [cell.row for cell in declared.drawn or declared.cells]

    before = {name: rows(name) for name in ("table11", "figure1", "figure4")}
    (paper_sets / "published").mkdir()
    (paper_sets / "published" / "deit_small_patch16_224.fb_in1k.pth").write_bytes(b"weights")
    new = "DeiT-S/16, published"
    assert rows("table11") == [*before["table11"], new]
    assert rows("figure1") == rows("figure4") == ["ViT", new, "ViT + SAR"] == [before["figure1"][0], new, before["figure1"][1]]
    table11 = experiments.declare("table11", preset="paper", data=paper_sets)
    run = next(cell.run for cell in table11.cells if cell.row == new)
    assert (run.recipe.epochs, run.model.variant, run.regularizers) == (0, "A", ())
    assert run.pretrained.name == "timm/deit_small_patch16_224.fb_in1k"
    assert {(cell.measurement.data.name, cell.measurement.data.image_size) for cell in table11.cells} == {
        ("voc2012-masks", 480)
    }
