"""HTML: its elements, as libxml2 reports them one after another, into blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree  # type: ignore[import-untyped]

from graph.knowledge.blocks import Block, Page
from graph.knowledge.encodings import decoded
from graph.knowledge.formats.flow import Flow
from graph.knowledge.formats.tables import tables

_PIECE = 65_536
_PARAGRAPHS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details"),
    *("dialog", "div", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup"),
    *("hr", "legend", "main", "p", "section", "summary"),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = {"ul", "ol", "dl", "menu", "dir"}
# `title` is not looked for: a page that matters says the same in a heading.
UNSEEN = {
    *("head", "title", "script", "style", "template", "noscript", "noframes", "iframe", "object"),
    *("svg", "annotation", "canvas", "audio", "video", "nav", "button", "select", "textarea"),
}
_UNSEEN_NAMES = {"toc", "linenos", "headerlink", "table-of-contents", "sphinxsidebar"}
_UNSEEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
# What links beside a heading show in place of words.
_ANCHORS = {"¶", "#", "§", "🔗", "∞"}
# A table with longer cells only lays the page out.
_LONGEST_CELL = 2000
_MOST_COLUMNS = 100
_MOST_ROWS = 1000
# A longer cell is told once, not in each of the rows that it spans.
_LONGEST_REPEATED = 200


def read(data: bytes, name: str) -> list[Page]:
    """Read an HTML file."""
    text = decoded(data)
    return [Page(None, blocks(text))]


def blocks(html: str) -> list[Block]:
    """Give what a reader of the page sees, without menus, in blocks.

    Takes time and memory in proportion to the length, however deep the elements are nested.
    """
    parser = etree.HTMLParser(target=_Target(), huge_tree=True)
    # libxml2 refuses a page without an element.
    parser.feed("<html>")
    for start in range(0, len(html), _PIECE):
        parser.feed(html[start : start + _PIECE])
    found: list[Block] = parser.close()
    return found


class _Target:
    """What libxml2 calls for each element and each piece of text; each start has its end."""

    def __init__(self) -> None:
        self._page = _Page()
        self._unseen = 0
        self._link: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._unseen or _is_unseen(tag, attributes):
            self._unseen += 1
            return
        self._end_link()
        if tag == "a":
            self._link = []
        else:
            self._page.open(tag, attributes)

    def end(self, tag: str) -> None:
        if self._unseen:
            self._unseen -= 1
            return
        self._end_link()
        self._page.close(tag)

    def data(self, text: str) -> None:
        if self._unseen:
            return
        if self._link is None:
            self._page.flow.write(text)
        else:
            self._link.append(text)

    def close(self) -> list[Block]:
        self._end_link()
        return self._page.finish()

    def _end_link(self) -> None:
        if self._link is None:
            return
        text = "".join(self._link)
        self._link = None
        if text.strip() not in _ANCHORS:
            self._page.flow.write(text)


def _is_unseen(tag: str, attributes: dict[str, str]) -> bool:
    return tag in UNSEEN or bool(
        attributes
        and (
            "hidden" in attributes
            or attributes.get("aria-hidden") == "true"
            or attributes.get("role") == "navigation"
            or not _UNSEEN_NAMES.isdisjoint(attributes.get("class", "").split())
            or attributes.get("id") in _UNSEEN_NAMES
            or _UNSEEN_STYLE.search(attributes.get("style", ""))
        )
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """What is in a cell, and how many columns and rows it spans."""

    blocks: list[Block]
    columns: int
    rows: int

    @property
    def text(self) -> str:
        return " ".join(block.text for block in self.blocks)


class _Table:
    """A table's rows, and the flow that it stands in."""

    def __init__(self, outer: Flow) -> None:
        self.outer = outer
        self.rows: list[list[_Cell]] = []
        self.open: tuple[int, int] | None = None

    def blocks(self) -> list[Block]:
        """Give the table, or what is in its cells where it only lays the page out."""
        cells = [cell for row in self.rows for cell in row]
        places = sum(cell.columns for cell in cells)
        if len(self.rows) > 1 and places > len(self.rows) and all(map(_is_cell, cells)):
            return list(tables(_texts(self.rows)))
        return [block for cell in cells for block in cell.blocks]


def _texts(rows: list[list[_Cell]]) -> Iterator[list[str]]:
    """The text of each place: empty where a cell spans columns, the same in rows that it spans."""
    spans: dict[int, tuple[str, int]] = {}
    for cells in rows:
        line = {column: text for column, (text, _) in spans.items()} if cells else {}
        spans = {column: (text, left - 1) for column, (text, left) in spans.items() if left > 1}
        column = 0
        for cell in cells:
            while column in line:
                column += 1
            for offset in range(cell.columns):
                text = "" if offset else cell.text
                line[column + offset] = text
                if cell.rows > 1:
                    repeated = text if len(text) <= _LONGEST_REPEATED else ""
                    spans[column + offset] = repeated, cell.rows - 1
        yield [line.get(column, "") for column in range(max(line, default=-1) + 1)]


def _is_cell(cell: _Cell) -> bool:
    plain = all(block.kind in ("text", "code") for block in cell.blocks)
    return plain and sum(len(block.text) for block in cell.blocks) <= _LONGEST_CELL


class _Page:
    """Elements into the flow of the page, or of the cell that is being read."""

    def __init__(self) -> None:
        self.flow = Flow()
        self._tables: list[_Table] = []

    def open(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        if tag == "br":
            self.flow.break_line()
        elif tag in _LISTS:
            self.flow.open_list(_number(attributes.get("start"), 1) if tag == "ol" else None)
        elif tag in ("li", "dt"):
            self.flow.open_item()
        elif tag == "pre":
            self.flow.open_code()
        elif tag in _HEADINGS:
            self.flow.open_heading(_HEADINGS[tag])
        elif tag in _PARAGRAPHS:
            self.flow.end_paragraph()
        elif tag == "table":
            self.flow.end_block()
            self._tables.append(_Table(self.flow))
        elif self._tables and tag in ("tr", "td", "th"):
            self._open_in_table(self._tables[-1], tag, attributes)

    def close(self, tag: str) -> None:
        """An element ends."""
        if tag in _LISTS:
            self.flow.close_list()
        elif tag == "dt":
            self.flow.end_term()
        elif tag == "pre":
            self.flow.close_code()
        elif tag in _HEADINGS:
            self.flow.close_heading()
        elif tag in _PARAGRAPHS or tag == "li":
            self.flow.end_paragraph()
        elif self._tables and tag in ("td", "th"):
            self._close_cell(self._tables[-1])
        elif self._tables and tag == "table":
            self._close_table()

    def finish(self) -> list[Block]:
        """Give all blocks."""
        while self._tables:
            self._close_table()
        return self.flow.finish()

    def _open_in_table(self, table: _Table, tag: str, attributes: dict[str, str]) -> None:
        self._close_cell(table)
        if tag == "tr" or not table.rows:
            table.rows.append([])
        if tag != "tr":
            columns, rows = (_number(attributes.get(span), 1) for span in ("colspan", "rowspan"))
            # No rows: all that are left.
            table.open = min(columns or 1, _MOST_COLUMNS), min(rows or _MOST_ROWS, _MOST_ROWS)
            self.flow = Flow()

    def _close_cell(self, table: _Table) -> None:
        if table.open:
            table.rows[-1].append(_Cell(self.flow.finish(), *table.open))
            table.open = None
            self.flow = table.outer

    def _close_table(self) -> None:
        table = self._tables.pop()
        self._close_cell(table)
        self.flow.add(table.blocks())


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else otherwise
