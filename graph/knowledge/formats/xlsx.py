"""Excel files: each visible sheet's rows as tables, the values about as Excel shows them."""

import re
import warnings
from collections.abc import Iterator
from datetime import datetime, time
from functools import lru_cache
from io import BytesIO
from itertools import chain

from openpyxl import load_workbook  # type: ignore[import-untyped]
from openpyxl.cell.read_only import ReadOnlyCell  # type: ignore[import-untyped]
from openpyxl.worksheet._read_only import ReadOnlyWorksheet  # type: ignore[import-untyped]

from graph.knowledge.blocks import Block, Page
from graph.knowledge.formats.tables import tables

_LITERALS = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_DECIMALS = re.compile(r"0\.(0+)")


def read(data: bytes, name: str) -> Iterator[Page]:
    """Read the sheets in order: a formula gives the value that was stored with it."""
    with warnings.catch_warnings(action="ignore"):
        book = load_workbook(BytesIO(data), read_only=True, data_only=True, keep_links=False)
        for number, sheet in enumerate(book.worksheets, 1):
            sheet.reset_dimensions()
            is_seen = sheet.sheet_state == "visible"
            yield Page(number, _sheet(sheet.title, _rows(sheet)) if is_seen else [])


def _sheet(title: str, rows: Iterator[list[str]]) -> list[Block]:
    """The lines above the table, each of one cell, are text."""
    found = [Block("heading", title, 1)]
    for row in rows:
        if sum(map(bool, row)) > 1:
            found += tables(chain([row], rows))
        else:
            found.append(Block("text", "".join(row)))
    return found if len(found) > 1 else []


def _rows(sheet: ReadOnlyWorksheet) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        texts = [_shown(cell) for cell in row]
        if any(texts):
            yield texts


def _shown(cell: ReadOnlyCell) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, cell.number_format)
    if isinstance(value, datetime):
        return _moment(value)
    return str(value).strip()


def _moment(value: datetime) -> str:
    if value.time() == time():
        return value.date().isoformat()
    return value.isoformat(" ", "seconds" if value.second else "minutes")


def _number(value: float, form: str) -> str:
    shown = _format_of(form)
    if shown is None:
        return f"{value:.15g}"
    is_percentage, specification = shown
    return f"{100 * value:{specification}}%" if is_percentage else f"{value:{specification}}"


@lru_cache(maxsize=256)
def _format_of(form: str) -> tuple[bool, str] | None:
    """Give whether an Excel format is a percentage, and what is nearest to it in Python.

    None is for formats that show a number as it is, as a fraction or in powers of ten.
    """
    positive = _LITERALS.sub("", form.split(";")[0])
    if not re.search("[0#]", positive) or re.search("E[+-]|/", positive):
        return None
    decimals = _DECIMALS.search(positive)
    thousands = "," if re.search("[#0],[#0]", positive) else ""
    return "%" in positive, f"{thousands}.{len(decimals[1]) if decimals else 0}f"
