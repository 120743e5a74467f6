"""Lays the frames of an executed notebook out for a page: what all lines share above them, data sets as headings, and the row's
name in place while the numbers scroll beside it. Cells keep their text."""

from __future__ import annotations

import html
import re

from bs4 import BeautifulSoup, Tag

#: A line's name, by the first of these columns that the frame has.
NAMES = ("row", "contrast", "claim", "id", "dataset")
#: What groups lines, from the outside in.
GROUPS = ("table", "dataset")
LONGEST = 28  # characters of a cell; longer ones are sentences, which wrap
FEWEST_LINES = 3  # fewer share everything by chance


def laid_out(page: str) -> str:
    """The HTML of an output with its frames laid out anew. What is no frame of ours stays as it is."""
    soup = BeautifulSoup(page, "html.parser")
    for frame in soup.find_all("table", class_="dataframe"):
        head, lines = _read(frame)
        if head and lines and any(name in head for name in NAMES):
            frame.replace_with(BeautifulSoup(_written(head, lines), "html.parser"))
    for style in soup.find_all("style"):  # pandas' own: it has no say here
        style.decompose()
    return str(soup)


def _read(frame: Tag) -> tuple[list[str], list[list[str]]]:
    """Column names and lines of text; names of the index's levels count as columns, an unnamed index does not."""
    heads = [[cell.get_text(strip=True) for cell in line.find_all("th")] for line in frame.select("thead tr")]
    if not heads or frame.select("thead th[colspan]"):
        return [], []
    head = heads[0] if len(heads) == 1 else [first or second for first, second in zip(heads[0], heads[1], strict=False)]
    lines: list[list[str]] = []
    open_cells: dict[int, tuple[int, str]] = {}  # of an index that spans lines: column, how many lines are left, text
    for tr in frame.select("tbody tr"):
        line, cells = [], list(tr.find_all(["th", "td"]))
        while len(line) < len(head):
            left, text = open_cells.get(len(line), (0, ""))
            if left:
                open_cells[len(line)] = (left - 1, text)
            elif cells:
                cell = cells.pop(0)
                text = cell.get_text(strip=True)
                open_cells[len(line)] = (int(cell.get("rowspan", 1)) - 1, text)
            else:
                return [], []
            line.append(text)
        lines.append(line)
    if head and not head[0]:
        head, lines = head[1:], [line[1:] for line in lines]
    return head, lines


def _written(head: list[str], lines: list[list[str]]) -> str:
    name = next(column for column in NAMES if column in head)
    columns = {column: [line[head.index(column)] for line in lines] for column in head}
    shared = {}
    if len(lines) >= FEWEST_LINES:
        shared = {column: own[0] for column, own in columns.items() if column != name and len(set(own)) == 1 and own[0]}
    grouped = [column for column in GROUPS if column in head and column not in (name, *shared)]
    shown = [column for column in head if column not in (name, *shared, *grouped)]
    body, last = [], None
    for index in range(len(lines)):
        place = tuple(columns[column][index] for column in grouped)
        if grouped and place != last:
            span = f'<th class="group" scope="rowgroup" colspan="{len(shown) + 1}"><span>{_text(" · ".join(place))}</span></th>'
            body.append(f"<tr>{span}</tr>")
            last = place
        cells = "".join(_cell(columns[column][index]) for column in shown)
        body.append(f'<tr><th scope="row">{_text(columns[name][index])}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{_text(column)}</th>' for column in (name, *shown))
    caption = ""
    if shared:
        listed = "; ".join(f"{_text(column)} {_text(value)}" for column, value in shared.items())
        caption = f'<p class="shared">In every line: {listed}.</p>'
    table = f'<table class="dataframe laid-out"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'{caption}<div class="scrolls" tabindex="0" role="region" aria-label="table, scrolls sideways">{table}</div>'


def _cell(text: str) -> str:
    if len(text) > LONGEST:
        return f'<td class="text">{_text(text)}</td>'
    number = re.fullmatch(r"[-+−]?[\d.,]+(e-?\d+)?( ± [\d.]+)?( %)?( \(n=\d+\))?", text)
    return f'<td class="number">{_text(text)}</td>' if number else f"<td>{_text(text)}</td>"


def _text(text: str) -> str:
    return html.escape(text, quote=False)
