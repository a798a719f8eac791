"""A PDF's lines become paragraphs, lists and code under its headings, without running heads."""

from io import BytesIO

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption  # type: ignore[import-untyped]
from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

from graph.errors import UnreadableDocument
from graph.knowledge.blocks import Block, Page, Parsed
from graph.knowledge.formats.lines import Line, blocks
from graph.knowledge.parsing import parse

BODY = ("Helvetica", 10)
BOLD = ("Helvetica-Bold", 10)
LARGE = ("Helvetica-Bold", 16)
CODE = ("Courier", 10)

# A line: its distance from the line above in points, the left edge, the font, the text.
Drawn = tuple[float, float, tuple[str, int], str]


def make_pdf(
    *pages: list[Drawn],
    outline: dict[int, list[tuple[str, int]]] | None = None,
    encrypt: StandardEncryption | None = None,
) -> bytes:
    """A PDF of these lines; `outline` has titles and levels for the tops of pages."""
    file = BytesIO()
    canvas = Canvas(file, encrypt=encrypt, pageCompression=0)
    for at, lines in enumerate(pages):
        for title, level in (outline or {}).get(at, []):
            canvas.bookmarkPage(title)
            canvas.addOutlineEntry(title, title, level)
        y = 780.0
        for down, left, font, text in lines:
            y -= down
            canvas.setFont(*font)
            canvas.drawString(left, y, text)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def plain(*texts: str) -> list[Drawn]:
    return [(12, 72, BODY, text) for text in texts]


def pages_of(data: bytes) -> list[Page]:
    return parse(data, "a.pdf").pages


def test_pages_are_counted_from_one_and_blank_ones_stay() -> None:
    data = make_pdf(plain("The pump starts."), [], plain("Valve 3 opens."))
    assert parse(data, "notes.md") == Parsed(
        "application/pdf",
        [
            Page(1, [Block("text", "The pump starts.")]),
            Page(2, []),
            Page(3, [Block("text", "Valve 3 opens.")]),
        ],
    )


def test_lines_become_paragraphs_lists_and_code() -> None:
    lines: list[Drawn] = [
        *plain("The pump delivers twelve litres of water a minute, and the valve is re-"),
        *plain("leased when the pressure rises."),
        (20, 72, BODY, "Another paragraph, which begins after a gap and goes on"),
        (12, 72, BODY, "in a second line:"),
        (20, 84, BODY, "\u2022 open the valve,"),
        (12, 94, BODY, "slowly"),
        (12, 84, BODY, "\u2022 close it"),
        (12, 100, BODY, "\u2022 wholly"),
        (20, 72, BODY, "Then type:"),
        (14, 84, CODE, "valve open {"),
        (12, 96, CODE, "bar 3"),
        (12, 84, CODE, "}"),
        (20, 72, BODY, "The end."),
    ]
    assert pages_of(make_pdf(lines)) == [
        Page(
            1,
            [
                Block(
                    "text",
                    "The pump delivers twelve litres of water a minute, and the valve is released "
                    "when the pressure rises.",
                ),
                Block(
                    "text",
                    "Another paragraph, which begins after a gap and goes on in a second line:",
                ),
                Block("text", "- open the valve, slowly\n- close it\n  - wholly"),
                Block("text", "Then type:"),
                Block("code", "valve open {\n  bar 3\n}"),
                Block("text", "The end."),
            ],
        )
    ]


def test_the_outline_gives_the_headings_and_their_levels() -> None:
    page: list[Drawn] = [
        *plain("1.2 Valves"),
        *plain("They open."),
        (30, 72, BODY, "PUMPS AND"),
        (12, 72, BODY, "HOSES"),
        (20, 72, BODY, "They start."),
    ]
    outline = {0: [("Handbook", 0), ("Valves", 1), ("Pumps and hoses", 0)]}
    assert pages_of(make_pdf(page, outline=outline)) == [
        Page(
            1,
            [
                Block("heading", "Handbook", 1),
                Block("heading", "1.2 Valves", 2),
                Block("text", "They open."),
                Block("heading", "Pumps and hoses", 1),
                Block("text", "They start."),
            ],
        )
    ]


def test_without_an_outline_large_and_bold_lines_are_headings() -> None:
    page: list[Drawn] = [
        (0, 72, LARGE, "Handbook of"),
        (18, 72, LARGE, "the pump"),
        (30, 72, BOLD, "1.1 Start"),
        (14, 72, BODY, "The pump starts when the pressure falls below three bar."),
        (20, 72, BODY, "It stops by itself."),
    ]
    assert pages_of(make_pdf(page)) == [
        Page(
            1,
            [
                Block("heading", "Handbook of the pump", 1),
                Block("heading", "1.1 Start", 2),
                Block("text", "The pump starts when the pressure falls below three bar."),
                Block("text", "It stops by itself."),
            ],
        )
    ]


def test_running_heads_page_numbers_and_contents_are_left_out() -> None:
    contents = [f"Chapter {number} {'. ' * 20}{number}" for number in range(1, 7)]
    pages = [
        [
            (0, 72, BODY, f"Handbook {number + 4}"),
            (40, 72, LARGE, f"{number} Chapter"),
            (20, 72, BODY, f"Text {number * 7} of the chapter."),
            (600, 300, BODY, f"- {number} of 5 -"),
        ]
        for number in range(1, 6)
    ]
    assert pages_of(make_pdf(plain("Contents", *contents), *pages)) == [
        Page(1, [Block("text", "Contents")]),
        *(
            Page(
                number + 1,
                [
                    Block("heading", f"{number} Chapter", 1),
                    Block("text", f"Text {number * 7} of the chapter."),
                ],
            )
            for number in range(1, 6)
        ),
    ]


def test_a_sentence_goes_on_in_the_next_column() -> None:
    left = [Line(f"words {at}", 50, 250, 700 - 12 * at, 700 - 12 * at, 10) for at in range(20)]
    right = Line("and the end.", 300, 500, 700, 700, 10)
    [block] = blocks([*left, right], 1.2)
    assert block.text.endswith("words 19 and the end.")


def test_a_damaged_pdf_says_that_it_is_damaged() -> None:
    with pytest.raises(UnreadableDocument) as caught:
        parse(make_pdf(plain("x"))[:300], "a.pdf")
    assert str(caught.value) == "'a.pdf' is damaged and cannot be opened as a PDF."


def test_an_encrypted_pdf_says_that_it_wants_a_password() -> None:
    with pytest.raises(UnreadableDocument) as caught:
        parse(make_pdf(plain("secret"), encrypt=StandardEncryption("pass")), "a.pdf")
    assert str(caught.value) == "'a.pdf' is protected by a password. Upload a copy without one."


def test_a_pdf_that_only_forbids_printing_is_read() -> None:
    data = make_pdf(plain("open"), encrypt=StandardEncryption("", "owner", canPrint=0))
    assert pages_of(data) == [Page(1, [Block("text", "open")])]


def test_a_pdf_without_text_points_to_ocr() -> None:
    with pytest.raises(UnreadableDocument) as caught:
        parse(make_pdf([], []), "a.pdf")
    assert str(caught.value) == (
        "'a.pdf' has no text in it, only images perhaps. Upload a copy with text (OCR)."
    )


def test_a_pdf_of_too_many_pages_is_refused() -> None:
    with pytest.raises(UnreadableDocument) as caught:
        parse(make_pdf(*[[]] * 5001), "a.pdf")
    assert str(caught.value) == (
        "'a.pdf' has 5001 pages; a document may have 5000 at most. Split it."
    )
