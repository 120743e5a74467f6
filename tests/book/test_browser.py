"""Every page in a browser, opened from disk with all other machines out of reach: nothing is asked for, nothing is cut off, and
what can be touched can be used from the keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import browser
import pdf
import pytest
import results as tables
import torch

import sarlib

pytestmark = [
    pytest.mark.xdist_group("book"),
    pytest.mark.skipif(pdf.browser() is None, reason=f"needs one of {', '.join(pdf.BROWSERS)}"),
]

#: What the theme says of itself.
THEME = re.compile(r"\[PST\]: (Changed to|Scrolled|Set focus)|\[togglebutton\]")

#: Elements that reach beyond the window and are in no box that scrolls.
CUT = """(() => {
  const width = document.documentElement.clientWidth, cut = [];
  for (const one of document.querySelectorAll(".bd-article *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || (box.right <= width + 1 && box.left >= -1)) continue;
    let parent = one.parentElement, scrolls = false;
    while (parent && parent !== document.body && !scrolls) {
      scrolls = ["auto", "scroll"].includes(getComputedStyle(parent).overflowX) || parent.tagName === "svg";
      parent = parent.parentElement;
    }
    if (!scrolls) cut.push(one.tagName + " " + one.className);
  }
  for (const svg of document.querySelectorAll(".bd-article div.math svg"))
    if (svg.getBoundingClientRect().left < svg.closest("div.math").getBoundingClientRect().left - 1)
      cut.push("the left end of an equation");
  if (document.documentElement.scrollWidth > width) cut.push("the page is " + document.documentElement.scrollWidth);
  return cut;
})()"""


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Browser]:
    with browser.opened() as page:
        yield page


@pytest.fixture(scope="session")
def judging(runs: Path) -> bool:
    """Whether the committed results are of today's declaration, so that claims are judged by them."""
    return any(found.declared.tests for found in tables.telling(tables.collect(runs)[0]))


EARLIER = "the committed results that this book is built from are of an earlier declaration: no claim is judged by them"


def test_every_page_asks_for_nothing_says_nothing_and_fits(book: Path, page: browser.Browser) -> None:
    names = sorted(path.name for path in book.glob("*.html") if path.name != "index.html")  # which leads to the first page
    assert {"intro.html", "claims.html", "attention.html", "table9.html"} <= set(names)
    for name in names:
        for dark in (False, True):
            page.open(book / name, width=390 if dark else 1280, dark=dark)
            asked = [address for address in page.requests if not address.startswith(("file:", "data:"))]
            said = [message for message in page.messages if not THEME.match(message)]
            assert (asked, said) == ([], []), name
            assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light"), name
            assert page.run(CUT) == [], f"{name} at {390 if dark else 1280} px"


def test_figures_say_what_they_show(book: Path, page: browser.Browser, judging: bool) -> None:
    for name in ("intro", "table9", "appendix", "attention", *["claims"] * judging):
        page.open(book / f"{name}.html", width=1280)
        texts = page.run("Array.from(document.querySelectorAll('.bd-article img:not(button img)')).map(one => one.alt)")
        assert texts, name
        for text in texts:
            assert len(text.split()) > 6 and "_build" not in text and ".png" not in text, f"{name}: {text!r}"


def test_a_map_is_drawn_from_the_keyboard(book: Path, page: browser.Browser) -> None:
    page.open(book / "method.html", width=390)
    read = "Number(document.getElementById('sar-draw').dataset.entropy)"
    page.run("Array.from(document.querySelectorAll('#sar-draw button')).find(one => one.textContent === 'empty').focus()")
    page.press("Enter")
    assert page.run(read) == 0
    page.run("document.querySelector('#sar-draw svg').focus()")
    page.press(" ", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", " ", " ")
    maps = torch.zeros(14, 14, dtype=torch.float64)
    maps[0, 0], maps[2, 2] = 0.34, 0.68
    assert page.run(read) == pytest.approx(float(sarlib.spatial_entropy(maps[None, None])), abs=1e-12)
    assert page.run("document.querySelector('#sar-draw [role=status]').textContent").startswith("2 components")


def test_attention_is_seen_from_the_keyboard(book: Path, page: browser.Browser) -> None:
    page.open(book / "attention.html", width=390, dark=True)
    masked = "document.querySelectorAll('#attention-viewer .sar-inside').length"
    before, first = page.run(masked), page.run("document.querySelector('#attention-viewer [role=status]').textContent")
    page.run("document.querySelector('#attention-viewer input[type=range]').focus()")
    page.press("ArrowRight", "ArrowRight")
    assert page.run(masked) > before > 0, "a larger share of the attention takes more tokens"
    page.run("document.querySelector('#attention-viewer [role=radio][aria-checked=true]').focus()")
    page.press("ArrowRight")
    assert page.run("document.getElementById('attention-viewer').dataset.image") == "1"
    assert page.run("document.querySelector('#attention-viewer [role=status]').textContent") != first


def test_the_number_of_seeds_moves_the_interval_from_the_keyboard(book: Path, page: browser.Browser, judging: bool) -> None:
    if not judging:
        pytest.skip(EARLIER)
    page.open(book / "small_machine.html", width=1280)
    width = "['x2', 'x1'].map(end => Number(document.querySelector('.sar-interval').getAttribute(end))).reduce((b, a) => b - a)"
    shown = "document.querySelector('#seeds-slider [role=status]').textContent"
    page.run("document.querySelector('#seeds-slider input[type=range]').focus()")
    all_seeds, text = page.run(width), page.run(shown)
    page.press(*["ArrowLeft"] * 5)
    assert text.startswith("8 seeds") and page.run(shown).startswith("3 seeds")
    assert page.run(width) != all_seeds and page.run("document.getElementById('seeds-slider').dataset.verdict")


def test_claims_are_sorted_and_filtered_from_the_keyboard(book: Path, page: browser.Browser, judging: bool) -> None:
    if not judging:
        pytest.skip(EARLIER)
    page.open(book / "claims.html", width=1280)
    rows = "Array.from(document.querySelectorAll('#claims-table tbody tr')).filter(one => !one.hidden)"
    verdicts = f"{rows}.map(one => one.dataset.verdict)"
    there = page.run(verdicts)
    assert there
    page.run("document.querySelectorAll('#claims-table thead button')[3].focus()")
    page.press("Enter")
    values = page.run(f"{rows}.map(one => Number(one.cells[3].dataset.sort))")
    assert values == sorted(values)
    page.run(
        f"(s => {{ s.value = {there[0]!r}; s.dispatchEvent(new Event('change')); "
        f"}})(document.querySelector('#claims-filter select'))"
    )
    assert set(page.run(verdicts)) == {there[0]}
