"""A frame that is laid out for a page keeps every cell, says once what all lines share, and keeps the line's name in place."""

from __future__ import annotations

import frames
import pandas as pd
from bs4 import BeautifulSoup

LINES = [
    ("table2", name, row, 8, value) for name in ("one", "two") for row, value in (("ViT", "33.46 ± 2.72"), ("SAR", "1.20"))
]
FRAME = pd.DataFrame(LINES, columns=["table", "dataset", "row", "n", "top1 (%)"])


def test_index_or_columns_give_the_same_table() -> None:
    by_index = FRAME.set_index(["table", "dataset", "row"])
    assert frames.laid_out(FRAME._repr_html_()) == frames.laid_out(by_index._repr_html_())


def test_what_all_lines_share_stands_above_and_data_sets_are_headings() -> None:
    page = BeautifulSoup(frames.laid_out(FRAME._repr_html_()), "html.parser")
    assert page.select_one("p.shared").text == "In every line: table table2; n 8."
    assert [one.text for one in page.select("thead th")] == ["row", "top1 (%)"]
    assert [one.text for one in page.select("th.group")] == ["one", "two"]
    assert [one.text for one in page.select("tbody th[scope=row]")] == ["ViT", "SAR", "ViT", "SAR"]
    assert [one.text for one in page.select("td.number")] == ["33.46 ± 2.72", "1.20"] * 2
    assert page.select_one(".scrolls[tabindex='0'] table") and not page.select("style")


def test_a_frame_of_data_sets_has_these_as_its_lines() -> None:
    frame = pd.DataFrame({"dataset": ["one", "two"], "top1": ["1.0", "2.0"]}).set_index("dataset")
    page = BeautifulSoup(frames.laid_out(frame._repr_html_()), "html.parser")
    assert [one.text for one in page.select("thead th")] == ["dataset", "top1"]
    assert [one.text for one in page.select("tbody th[scope=row]")] == ["one", "two"] and not page.select("th.group")


def test_sentences_wrap_and_markup_stays_text() -> None:
    frame = FRAME.assign(note="<b> is shown as it is, and this is a sentence", **{"top1 (%)": list("abcd")}).head(2)
    page = BeautifulSoup(frames.laid_out(frame._repr_html_()), "html.parser")
    assert page.select_one("td.text").text.startswith("<b> is") and not page.select("b")


def test_other_tables_stay_as_they_are() -> None:
    other = "<table><tr><td>1</td></tr></table>"
    assert frames.laid_out(other) == other
    unnamed = pd.DataFrame({"x": [1, 2, 3]})._repr_html_()
    assert [one.text for one in BeautifulSoup(frames.laid_out(unnamed), "html.parser").select("td")] == ["1", "2", "3"]
