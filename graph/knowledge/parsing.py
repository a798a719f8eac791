"""Turns a file's bytes into pages of clean text, or says why that cannot be done."""

import codecs
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath
from threading import Lock

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium_c  # type: ignore[import-untyped]
from charset_normalizer import CharsetMatch, from_bytes

from graph.errors import PipelineError
from graph.sanitizing import clean

PDF = "application/pdf"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"

_PDF_MARK_WITHIN = 1024
_MARKDOWN_NAMES = {".md", ".markdown"}
_WESTERN = "cp1252"
# Without this list, short texts are taken for EBCDIC or for UTF-16 without a byte order mark.
_LEGACY_ENCODINGS = [
    _WESTERN,
    *("cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_ENDS = re.compile("\r\n|[\r\f\v\x85]")
# PDFium is not thread-safe, not even between documents.
_ONE_IN_PDFIUM = Lock()


class UnsupportedDocument(PipelineError):
    """The file's content is none of the formats that are read."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is not a PDF, a Markdown or a plain text file.")


class UnreadableDocument(PipelineError):
    """The file has a known format, but no text can be got out of it."""


@dataclass(frozen=True)
class Page:
    """`number` counts from 1 and is null where the format has no pages; `text` may be empty."""

    number: int | None
    text: str


@dataclass(frozen=True)
class Parsed:
    """A file's MIME type and all its pages in order, the empty ones too."""

    mime_type: str
    pages: list[Page]


def recognise(data: bytes, name: str) -> str:
    """Give the MIME type, by content; the name only tells Markdown from plain text.

    Costs some 10 ms for 10 MB of UTF-8, 0.3 s where the encoding has to be guessed.
    Raises UnsupportedDocument. What passes here is never refused as such by `parse`.
    """
    if b"%PDF-" in data[:_PDF_MARK_WITHIN]:
        return PDF
    _decode(data, name)
    return MARKDOWN if PurePath(name).suffix.lower() in _MARKDOWN_NAMES else PLAIN


def parse(data: bytes, name: str) -> Parsed:
    """Read the whole file; blocks, so call it in a thread.

    Raises UnsupportedDocument, and UnreadableDocument for a file that is broken, encrypted
    or without text.
    """
    mime_type = recognise(data, name)
    pages = _read_pdf(data, name) if mime_type == PDF else _read_text(data, name)
    if not any(page.text.strip() for page in pages):
        raise UnreadableDocument(_no_text(mime_type, name))
    return Parsed(mime_type, pages)


def _read_text(data: bytes, name: str) -> list[Page]:
    return [Page(None, _tidy(_decode(data, name)))]


def _decode(data: bytes, name: str) -> str:
    try:
        text = _decode_strictly(data)
    except UnicodeDecodeError:
        raise UnsupportedDocument(name) from None
    if text is None or "\0" in text:
        raise UnsupportedDocument(name)
    return text


def _decode_strictly(data: bytes) -> str | None:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        guess = _guess_encoding(data)
        return data.decode(guess) if guess else None


def _guess_encoding(data: bytes) -> str | None:
    """Take the likeliest legacy encoding, and the Western one where it is as likely."""
    guesses = from_bytes(data, cp_isolation=_LEGACY_ENCODINGS)
    best = guesses.best()
    if best is None:
        return None
    as_likely = (one for one in guesses if _mess(one) <= _mess(best))
    if any(_WESTERN in one.could_be_from_charset for one in as_likely):
        return _WESTERN
    return best.encoding


def _mess(guess: CharsetMatch) -> tuple[float, float]:
    return guess.chaos, -guess.coherence


def _read_pdf(data: bytes, name: str) -> list[Page]:
    try:
        with _ONE_IN_PDFIUM, closing(pdfium.PdfDocument(data)) as document:
            return [Page(at + 1, _read_page(document, at)) for at in range(len(document))]
    except pdfium.PdfiumError as error:
        raise UnreadableDocument(_broken(error, name)) from error


def _read_page(document: pdfium.PdfDocument, at: int) -> str:
    # Closed by hand: a page left to the garbage collector is closed without the lock.
    with closing(document[at]) as page, closing(page.get_textpage()) as text_page:
        text: str = text_page.get_text_bounded()
    # Where a line ends in a hyphen, PDFium joins the word with U+0002, which is tidied away.
    return _tidy(text)


def _tidy(text: str) -> str:
    # What `clean` would take out without leaving a space.
    return clean(_LINE_ENDS.sub("\n", text))


def _broken(error: pdfium.PdfiumError, name: str) -> str:
    if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
        return f"{name!r} is protected by a password. Upload a copy without one."
    return f"{name!r} is damaged and cannot be opened as a PDF."


def _no_text(mime_type: str, name: str) -> str:
    if mime_type == PDF:
        return f"{name!r} has no text in it, only images perhaps. Upload a copy with text (OCR)."
    return f"{name!r} has no text in it."
