"""PDF: PDFium's letters and outline into lines, and these into blocks."""

import ctypes
import math
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium_c  # type: ignore[import-untyped]

from graph.errors import UnreadableDocument
from graph.knowledge.blocks import MOST_PAGES, Block, Page
from graph.knowledge.formats.furniture import without_furniture
from graph.knowledge.formats.headings import Entry, Heading, by_outline, by_size
from graph.knowledge.formats.lines import Line, blocks, usual_step

_MOST_ENTRIES = 20_000
_DEEPEST_ENTRY = 15
_FIXED_PITCH = 1
_BOLD = 1 << 18
_BOLD_NAME = re.compile(r"bold|black|heavy|medi\b|demi", re.IGNORECASE)
_CODE_NAME = re.compile(
    r"mono|nimbusmon|cour|consol|typewriter|menlo|code|terminal|\w+tt\d*$|sltt", re.IGNORECASE
)


def read(data: bytes, name: str) -> list[Page]:
    """Read a PDF. Not for threads: PDFium must be used by one at a time."""
    try:
        with closing(pdfium.PdfDocument(data)) as document:
            if len(document) > MOST_PAGES:
                raise UnreadableDocument(_too_many(len(document), name))
            pages = [list(_lines(document, at)) for at in range(len(document))]
            entries = list(islice(_outline(document), _MOST_ENTRIES))
    except pdfium.PdfiumError as error:
        raise UnreadableDocument(_broken(error, name)) from error
    return _laid_out(pages, entries)


def _laid_out(pages: list[list[Line]], entries: list[Entry]) -> list[Page]:
    pages = without_furniture(pages)
    step = usual_step(pages)
    headings = by_outline(entries, pages) if entries else by_size(pages)
    return [
        Page(at + 1, list(_blocks(lines, headings[at], step))) for at, lines in enumerate(pages)
    ]


def _blocks(lines: list[Line], headings: list[Heading], step: float) -> Iterator[Block]:
    done = 0
    for heading in headings:
        yield from blocks(lines[done : heading.at], step)
        yield Block("heading", heading.text, heading.level)
        done = heading.at + heading.lines
    yield from blocks(lines[done:], step)


def _lines(document: pdfium.PdfDocument, at: int) -> Iterator[Line]:
    with closing(document[at]) as page, closing(page.get_textpage()) as text_page:
        start = 0
        for text in text_page.get_text_range(errors="surrogatepass").split("\r\n"):
            visible = text.strip()
            if visible:
                first = start + _units(text[: len(text) - len(text.lstrip())])
                yield _line(text_page, visible, first)
            start += _units(text) + 2


def _units(text: str) -> int:
    """Count a text's units as PDFium does: characters beyond the first plane are two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _line(page: pdfium.PdfTextPage, text: str, first: int) -> Line:
    count = _units(text)
    # PDFium makes up spaces, which have neither font nor size.
    half = text[: len(text) // 2].rstrip()
    places = (first, first + max(_units(half) - 1, 0), first + count - 1)
    begin, middle, end = (pdfium_c.FPDFText_GetCharIndexFromTextIndex(page, at) for at in places)
    fonts = [_font(page, at) for at in {begin, middle, end}]
    left, y, _ = _box(page, begin)
    _, end_y, right = _box(page, end)
    return Line(
        text=text,
        left=left,
        right=right,
        y=y,
        end_y=end_y,
        size=_size(page, middle),
        is_bold=all(_BOLD_NAME.search(name) or flags & _BOLD for name, flags in fonts),
        is_code=all(_CODE_NAME.search(name) or flags & _FIXED_PITCH for name, flags in fonts),
    )


def _box(page: pdfium.PdfTextPage, at: int) -> tuple[float, float, float]:
    """Give left, foot and right of a letter; the foot is that of the line, not of a `g`."""
    box = pdfium_c.FS_RECTF()
    pdfium_c.FPDFText_GetLooseCharBox(page, at, box)
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium_c.FPDFText_GetCharOrigin(page, at, x, y)
    return box.left, y.value, box.right


def _size(page: pdfium.PdfTextPage, at: int) -> float:
    matrix = pdfium_c.FS_MATRIX()
    pdfium_c.FPDFText_GetMatrix(page, at, matrix)
    size = pdfium_c.FPDFText_GetFontSize(page, at) * math.hypot(matrix.c, matrix.d)
    return round(size, 1) or 1.0


def _font(page: pdfium.PdfTextPage, at: int) -> tuple[str, int]:
    name, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    pdfium_c.FPDFText_GetFontInfo(page, at, name, 128, flags)
    return name.value.decode("utf-8", "replace"), flags.value


def _outline(document: pdfium.PdfDocument) -> Iterator[Entry]:
    for bookmark in document.get_toc(max_depth=_DEEPEST_ENTRY):
        target = bookmark.get_dest()
        page = target.get_index() if target else None
        if page is not None:
            yield Entry(bookmark.get_title(), bookmark.level, page, _height(target))


def _height(target: pdfium.PdfDest) -> float | None:
    mode, view = target.get_view()
    if mode == pdfium_c.PDFDEST_VIEW_XYZ and len(view) > 1 and view[1]:
        return float(view[1])
    return None


def _too_many(count: int, name: str) -> str:
    return f"{name!r} has {count} pages; a document may have {MOST_PAGES} at most. Split it."


def _broken(error: pdfium.PdfiumError, name: str) -> str:
    if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
        return f"{name!r} is protected by a password. Upload a copy without one."
    return f"{name!r} is damaged and cannot be opened as a PDF."
