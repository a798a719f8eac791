"""Which format a file has, and its bytes into pages of clean blocks."""

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from graph.errors import PipelineError, UnreadableDocument, UnsupportedDocument
from graph.knowledge.blocks import MOST_CHARACTERS, MOST_PAGES, Block, Page, Parsed
from graph.knowledge.encodings import decode
from graph.sanitizing import clean

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
HTML = "text/html"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"

_MODULES = {
    PDF: "graph.knowledge.formats.pdf",
    DOCX: "graph.knowledge.formats.docx",
    PPTX: "graph.knowledge.formats.pptx",
    XLSX: "graph.knowledge.formats.xlsx",
    HTML: "graph.knowledge.formats.html",
    MARKDOWN: "graph.knowledge.formats.markdown",
    PLAIN: "graph.knowledge.formats.plain",
}
_TITLES = {
    PDF: "a PDF",
    DOCX: "a Word file",
    PPTX: "a PowerPoint file",
    XLSX: "an Excel file",
    HTML: "HTML",
    MARKDOWN: "Markdown",
    PLAIN: "text",
}
_PDF_MARK_WITHIN = 1024
_ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")
_END_OF_ZIP = b"PK\x05\x06"
# An entry of a zip file's directory, and a file in it, in a folder as Office files have them.
_OFFICE_ENTRY = re.compile(rb"PK\x01\x02.{42}(word|ppt|xl)/", re.DOTALL)
_OFFICE_FILE = re.compile(rb"PK\x03\x04.{26}(word|ppt|xl)/", re.DOTALL)
_OFFICE_FOLDERS = {b"word": DOCX, b"ppt": PPTX, b"xl": XLSX}
_OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_LOCKED = "EncryptedPackage".encode("utf-16-le")
_MARKDOWN_NAMES = {".md", ".markdown"}
_TEXT_NAMES = {*_MARKDOWN_NAMES, ".txt", ".csv", ".html", ".htm"}
_BEFORE_HTML = re.compile(r"\ufeff?(?:\s+|<\?xml[^>]{0,200}>|<!--.{0,20000}?-->)*", re.DOTALL)
_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
# Markdown may begin so too.
_PART_OF_HTML = re.compile(
    r"<(?:h[1-6]|p|div|table|ul|ol|dl|title|meta|style|script|section|article|main|nav)\b[^<]*>",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\ufffe\uffff]")
_READ_FORMATS = "a PDF, a Word, PowerPoint or Excel file, HTML, Markdown or plain text"


def recognise(data: bytes, name: str) -> str:
    """Give the MIME type, by content; the name only tells Markdown from plain text.

    Costs some 10 ms for 10 MB of UTF-8, 0.3 s where the encoding has to be guessed.
    Raises UnsupportedDocument. What passes here is never refused as such by `parse`.
    """
    if b"%PDF-" in data[:_PDF_MARK_WITHIN]:
        return PDF
    if data.startswith(_ZIP_MARKS):
        return _recognise_zip(data, name)
    if data.startswith(_OLE_MARK):
        raise UnsupportedDocument(_old_office(data, name))
    text = decode(data)
    if text is None or text.startswith("{\\rtf"):
        raise UnsupportedDocument(_unknown(name))
    return _recognise_text(text, name)


def parse(data: bytes, name: str) -> Parsed:
    """Read the whole file. It may be made to do harm: see `reading.read`.

    Raises UnsupportedDocument, UnreadableDocument for a file that is broken, encrypted, too large
    or without text, and MemoryError.
    """
    mime_type = recognise(data, name)
    read = importlib.import_module(_MODULES[mime_type]).read
    try:
        pages = list(_bounded(read(data, name), name))
    except (PipelineError, MemoryError):
        raise
    except Exception as error:
        # Parsers raise whatever they stumble over.
        raise UnreadableDocument(_damaged(mime_type, name)) from error
    if not any(page.blocks for page in pages):
        raise UnreadableDocument(_no_text(mime_type, name))
    return Parsed(mime_type, pages)


def _recognise_zip(data: bytes, name: str) -> str:
    """Look into the zip file's directory, which comes last, without unpacking anything.

    A file that was cut off has none: then the first file in it counts.
    """
    end = data.rfind(_END_OF_ZIP)
    length = int.from_bytes(data[end + 12 : end + 16], "little")
    if end < 0:
        entry = _OFFICE_FILE.search(data)
    else:
        entry = _OFFICE_ENTRY.search(data, max(end - length, 0))
    if entry is None:
        raise UnsupportedDocument(f"{name!r} is an archive, not {_READ_FORMATS}.")
    return _OFFICE_FOLDERS[entry[1]]


def _old_office(data: bytes, name: str) -> str:
    if _OLE_LOCKED in data:
        return f"{name!r} is protected by a password. Upload a copy without one."
    return f"{name!r} is in an old format of Office. Save it as .docx, .pptx or .xlsx."


def _unknown(name: str) -> str:
    is_called_text = PurePath(name).suffix.lower() in _TEXT_NAMES
    return f"{name!r} is not {_READ_FORMATS}.{' Save it in UTF-8.' if is_called_text else ''}"


def _recognise_text(text: str, name: str) -> str:
    start = _BEFORE_HTML.match(text)
    at = start.end() if start else 0
    if _HTML.match(text, at):
        return HTML
    if PurePath(name).suffix.lower() in _MARKDOWN_NAMES:
        return MARKDOWN
    return HTML if _PART_OF_HTML.match(text, at) else PLAIN


def _bounded(pages: Iterable[Page], name: str) -> Iterator[Page]:
    characters = 0
    for count, page in enumerate(pages, 1):
        blocks = [block for block in map(_clean, page.blocks) if block.text.strip()]
        characters += sum(len(block.text) for block in blocks)
        if count > MOST_PAGES:
            raise UnreadableDocument(
                f"{name!r} has more than {MOST_PAGES} pages, the most that a document may have. "
                "Split it."
            )
        if characters > MOST_CHARACTERS:
            raise UnreadableDocument(
                f"{name!r} has more than {MOST_CHARACTERS // 1_000_000} million characters, the "
                "most that a document may have. Split it."
            )
        yield Page(page.number, blocks)


def _clean(block: Block) -> Block:
    return Block(block.kind, clean(_INVISIBLE.sub("", block.text)), block.level)


def _damaged(mime_type: str, name: str) -> str:
    return f"{name!r} is damaged and cannot be opened as {_TITLES[mime_type]}."


def _no_text(mime_type: str, name: str) -> str:
    if mime_type == PDF:
        return f"{name!r} has no text in it, only images perhaps. Upload a copy with text (OCR)."
    return f"{name!r} has no text in it."
