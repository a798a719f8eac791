"""Files are recognised by their content, and what cannot be read is refused with a reason."""

import itertools
import zipfile
from collections.abc import Callable
from io import BytesIO

import pytest

from graph.errors import UnreadableDocument, UnsupportedDocument
from graph.knowledge.blocks import Block, Page, Parsed
from graph.knowledge.parsing import parse, recognise

OFFICE = "application/vnd.openxmlformats-officedocument"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
FORMATS = "a PDF, a Word, PowerPoint or Excel file, HTML, Markdown or plain text"


def make_zip(*names: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def refusal(call: Callable[[bytes, str], object], data: bytes, name: str) -> str:
    with pytest.raises((UnsupportedDocument, UnreadableDocument)) as caught:
        call(data, name)
    return f"{type(caught.value).__name__}: {caught.value}"


def text_of(data: bytes, name: str) -> list[str]:
    return [block.text for page in parse(data, name).pages for block in page.blocks]


@pytest.mark.parametrize(
    ("data", "name", "mime_type"),
    [
        (b"\n" * 900 + b"%PDF-1.7", "notes.md", "application/pdf"),
        (make_zip("[Content_Types].xml", "word/document2.xml"), "a.pdf", "wordprocessingml"),
        (make_zip("[Content_Types].xml", "ppt/slides/slide1.xml"), "a.txt", "presentationml"),
        (make_zip("xl/workbook.xml", "[Content_Types].xml"), "a.docx", "spreadsheetml"),
        (make_zip("word/document.xml")[:60], "cut-off.docx", "wordprocessingml"),
        (b"<!DOCTYPE html><p>x", "a.txt", "text/html"),
        (b"\xef\xbb\xbf <!-- no --> <HTML lang=de>", "a.md", "text/html"),
        (b'<?xml version="1.0"?><html xmlns="x">', "a", "text/html"),
        (b"<h1>Pump</h1>", "a.txt", "text/html"),
        (b"<h1 align=center>Pump</h1>", "README.md", "text/markdown"),
        (b"<svg><p>", "a.svg", "text/plain"),
        (b"x < y, <b>", "a.html", "text/plain"),
        (b"# Pump", "GUIDE.MARKDOWN", "text/markdown"),
        (b"# Pump", "docs/guide.Md", "text/markdown"),
        (b"# Pump", "guide", "text/plain"),
        (b"", "a.docx", "text/plain"),
    ],
    # An archive holds the time at which it was made, which differs from process to process.
    ids=itertools.count(),
)
def test_the_content_tells_the_format_and_the_name_only_markdown_from_text(
    data: bytes, name: str, mime_type: str
) -> None:
    ending = {"w": "document", "p": "presentation", "s": "sheet"}.get(mime_type[0])
    long = f"{OFFICE}.{mime_type}.{ending}" if mime_type.endswith("ml") and ending else mime_type
    assert recognise(data, name) == long


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe – 5 °C, naïve", "utf-8"),
        ("Größe – 5 °C, naïve", "utf-8-sig"),
        ("Größe – 5 °C, naïve", "utf-16"),
        ("\ufeffGröße", "utf-16-be"),
        ("Größe – 5 °C, naïve", "cp1252"),
        ("plain words and a single 5 °C", "cp1252"),
        ("café", "cp1252"),
        ("Zażółć gęślą jaźń. Proszę przeczytać instrukcję obsługi urządzenia. " * 4, "cp1250"),
        ("Привет мир, это проверка кодировки текста.", "cp1251"),
        ("これは日本語の文書です。圧力センサーの説明。", "cp932"),
    ],
)
def test_text_is_decoded_whatever_its_encoding(text: str, encoding: str) -> None:
    assert parse(text.encode(encoding), "notes.txt") == Parsed(
        "text/plain", [Page(None, [Block("text", text.lstrip("\ufeff"))])]
    )


def test_html_is_decoded_as_it_says_itself() -> None:
    page = '<html><meta charset="iso-8859-7"><p>Αντλία'
    assert text_of(page.encode("iso-8859-7"), "a.html") == ["Αντλία"]


def test_lone_surrogates_are_left_out() -> None:
    utf_16 = b"\xff\xfe" + "ab".encode("utf-16-le") + b"\x00\xd8" + "c".encode("utf-16-le")
    assert [text_of(data, "a.txt") for data in (b"caf\xed\xa0\x80e", utf_16)] == [["cafe"], ["abc"]]


def test_paragraphs_of_plain_text_are_blocks_whose_lines_stay() -> None:
    data = b"one\r\ntwo\rthree\n\n \t\nfour\x0cfive\xc2\x85six\n"
    assert text_of(data, "a.txt") == ["one\ntwo\nthree", "four\nfive\nsix"]


def test_what_is_not_seen_is_taken_out() -> None:
    data = "a\x01b\x1b[0m\U000e0041 soft\u00adhyphen zero\u200bwidth".encode()
    assert text_of(data, "a.txt") == ["ab[0m softhyphen zerowidth"]


@pytest.mark.parametrize(
    "data",
    [b"text\0text", "Größe".encode("utf-16-le"), b"\xff\xfeodd", bytes(range(1, 256)), b"{\\rtf1}"],
    ids=["nul", "utf-16 without mark", "broken utf-16", "no encoding", "rtf"],
)
def test_what_is_not_text_is_refused_before_it_is_parsed(data: bytes) -> None:
    message = f"UnsupportedDocument: 'a.txt' is not {FORMATS}. Save it in UTF-8."
    assert [refusal(recognise, data, "a.txt"), refusal(parse, data, "a.txt")] == [message] * 2
    other = f"UnsupportedDocument: 'a.bin' is not {FORMATS}."
    assert refusal(recognise, data, "a.bin") == other


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_zip("notes.txt"), f"is an archive, not {FORMATS}."),
        (make_zip(), f"is an archive, not {FORMATS}."),
        (make_zip("reword/document.xml"), f"is an archive, not {FORMATS}."),
        (OLE, "is in an old format of Office. Save it as .docx, .pptx or .xlsx."),
        (
            OLE + "EncryptedPackage".encode("utf-16-le"),
            "is protected by a password. Upload a copy without one.",
        ),
    ],
)
def test_a_file_that_only_looks_like_office_is_refused_at_once(data: bytes, reason: str) -> None:
    assert refusal(recognise, data, "a.docx") == f"UnsupportedDocument: 'a.docx' {reason}"


@pytest.mark.parametrize("data", [b"", b" \n\t", b"\xef\xbb\xbf"])
def test_a_blank_text_is_refused(data: bytes) -> None:
    assert refusal(parse, data, "a.txt") == "UnreadableDocument: 'a.txt' has no text in it."


@pytest.mark.parametrize(
    ("folder", "kind"), [("word", "a Word"), ("ppt", "a PowerPoint"), ("xl", "an Excel")]
)
def test_a_damaged_office_file_says_so(folder: str, kind: str) -> None:
    message = f"'a.bin' is damaged and cannot be opened as {kind} file."
    assert refusal(parse, make_zip(f"{folder}/x.xml"), "a.bin") == f"UnreadableDocument: {message}"


def test_more_text_than_a_document_may_have_is_refused() -> None:
    message = "has more than 20 million characters, the most that a document may have. Split it."
    assert refusal(parse, b"x" * 20_000_001, "a.txt") == f"UnreadableDocument: 'a.txt' {message}"
