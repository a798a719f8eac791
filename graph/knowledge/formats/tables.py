"""Rows of cells into tables of pipes, each of which can be read without the others."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest

from graph.knowledge.blocks import Block

_ROWS_A_TABLE = 40


def tables(rows: Iterable[Sequence[str]]) -> Iterator[Block]:
    """Give tables of 40 rows at most under the first row, which is repeated as their header.

    Empty rows are left out, and columns that are empty in a table. Rows are taken as needed.
    """
    filled = (row for row in map(_tidy, rows) if row)
    header = next(filled, None)
    if header is None:
        return
    body = list(islice(filled, _ROWS_A_TABLE))
    yield Block("table", _piped(header, body))
    while body := list(islice(filled, _ROWS_A_TABLE)):
        yield Block("table", _piped(header, body))


def _tidy(row: Sequence[str]) -> list[str]:
    cells = [" ".join(cell.split()) for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _piped(header: list[str], body: list[list[str]]) -> str:
    columns = [cells for cells in zip_longest(header, *body, fillvalue="") if any(cells)]
    first, *others = zip(*columns, strict=True)
    lines = [first, ["---"] * len(columns), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
