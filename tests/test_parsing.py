"""Files become pages, and what cannot be read is refused with a reason."""

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from io import BytesIO

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

import graph.knowledge.parsing as parsing_module
from graph.knowledge.parsing import (
    Page,
    Parsed,
    UnreadableDocument,
    UnsupportedDocument,
    parse,
    recognise,
)


def make_pdf(*pages: list[str], encrypt: StandardEncryption | None = None) -> bytes:
    """A PDF with the lines of each page."""
    file = BytesIO()
    canvas = Canvas(file, encrypt=encrypt)
    for lines in pages:
        for at, line in enumerate(lines):
            canvas.drawString(72, 720 - 14 * at, line)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def make_zip() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return file.getvalue()


def refusal(call: Callable[[bytes, str], object], data: bytes, name: str) -> str:
    with pytest.raises((UnsupportedDocument, UnreadableDocument)) as caught:
        call(data, name)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_pages_of_a_pdf_are_counted_from_one_and_blank_ones_stay() -> None:
    data = make_pdf(["The pump starts.", "It stops."], [], ["Valve 3 opens."])
    assert parse(data, "pump.pdf") == Parsed(
        "application/pdf",
        [Page(1, "The pump starts.\nIt stops."), Page(2, ""), Page(3, "Valve 3 opens.")],
    )


def test_a_word_hyphenated_at_the_line_end_is_one_word_again() -> None:
    assert parse(make_pdf(["reintroduc-", "ing the pump"]), "a.pdf").pages == [
        Page(1, "reintroducing the pump")
    ]


def test_a_pdf_is_known_by_its_content_whatever_its_name_and_its_first_bytes() -> None:
    assert recognise(b"\n" * 900 + make_pdf(["x"]), "notes.md") == "application/pdf"


@pytest.mark.parametrize("name", ["guide.md", "GUIDE.MARKDOWN", "docs/guide.Md"])
def test_markdown_is_known_by_its_name(name: str) -> None:
    assert parse(b"# Pump\n", name) == Parsed("text/markdown", [Page(None, "# Pump\n")])


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe – 5 °C, naïve\n", "utf-8"),
        ("Größe – 5 °C, naïve\n", "utf-8-sig"),
        ("Größe – 5 °C, naïve\n", "utf-16"),
        ("\ufeffGröße\n", "utf-16-be"),
        ("Größe – 5 °C, naïve\n", "cp1252"),
        ("plain words and a single 5 °C\n", "cp1252"),
        ("café", "cp1252"),
        ("Zażółć gęślą jaźń. Proszę przeczytać instrukcję obsługi urządzenia. " * 4, "cp1250"),
        ("Привет мир, это проверка кодировки текста.", "cp1251"),
        ("これは日本語の文書です。圧力センサーの説明。", "cp932"),
    ],
)
def test_text_is_decoded_whatever_its_encoding(text: str, encoding: str) -> None:
    assert parse(text.encode(encoding), "notes.txt") == Parsed(
        "text/plain", [Page(None, text.lstrip("\ufeff"))]
    )


def test_line_ends_become_newlines() -> None:
    assert parse(b"one\r\ntwo\rthree\ffour\vfive\xc2\x85six\n", "a.txt").pages == [
        Page(None, "one\ntwo\nthree\nfour\nfive\nsix\n")
    ]


@pytest.mark.parametrize(
    "data",
    [make_zip(), b"text\0text", "Größe".encode("utf-16-le"), b"\xff\xfeodd", bytes(range(1, 256))],
    ids=["zip", "nul", "utf-16 without mark", "broken utf-16", "no encoding"],
)
def test_what_is_not_text_is_refused_before_it_is_parsed(data: bytes) -> None:
    message = "UnsupportedDocument: 'a.txt' is not a PDF, a Markdown or a plain text file."
    assert [refusal(recognise, data, "a.txt"), refusal(parse, data, "a.txt")] == [message] * 2


def test_control_characters_are_taken_out() -> None:
    data = "a\x01b\x1b[0m\U000e0041".encode()
    assert parse(data, "a.txt").pages == [Page(None, "ab[0m")]


def test_a_damaged_pdf_says_that_it_is_damaged() -> None:
    message = "UnreadableDocument: 'a.pdf' is damaged and cannot be opened as a PDF."
    assert refusal(parse, make_pdf(["x"])[:300], "a.pdf") == message


def test_an_encrypted_pdf_says_that_it_wants_a_password() -> None:
    data = make_pdf(["secret"], encrypt=StandardEncryption("pass"))
    message = "'a.pdf' is protected by a password. Upload a copy without one."
    assert refusal(parse, data, "a.pdf") == f"UnreadableDocument: {message}"


def test_a_pdf_that_only_forbids_printing_is_read() -> None:
    data = make_pdf(["open"], encrypt=StandardEncryption("", "owner", canPrint=0))
    assert parse(data, "a.pdf").pages == [Page(1, "open")]


def test_a_pdf_without_text_points_to_ocr() -> None:
    message = "'a.pdf' has no text in it, only images perhaps. Upload a copy with text (OCR)."
    assert refusal(parse, make_pdf([], []), "a.pdf") == f"UnreadableDocument: {message}"


@pytest.mark.parametrize("data", [b"", b" \n\t", b"\xef\xbb\xbf"])
def test_a_blank_text_is_refused(data: bytes) -> None:
    assert refusal(parse, data, "a.txt") == "UnreadableDocument: 'a.txt' has no text in it."


def test_pdfs_are_read_one_at_a_time() -> None:
    data = make_pdf(["The pump starts."])
    with ThreadPoolExecutor(1) as threads:
        with parsing_module._ONE_IN_PDFIUM:
            reading = threads.submit(parse, data, "a.pdf")
            with pytest.raises(TimeoutError):
                reading.result(timeout=0.2)
        assert reading.result(timeout=10).pages == [Page(1, "The pump starts.")]


def test_many_threads_get_the_same_pages() -> None:
    data = make_pdf(*[[f"page {number}"] * 40 for number in range(30)])
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: parse(data, "a.pdf"), range(16)))
    assert results == [parse(data, "a.pdf")] * 16
