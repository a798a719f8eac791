"""Word, PowerPoint and Excel files become blocks, with slides and sheets as pages."""

from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from typing import Any

import pytest
from docx import Document
from openpyxl import Workbook
from pptx import Presentation

from graph.knowledge.blocks import Block, Page, Parsed
from graph.knowledge.parsing import DOCX, PPTX, XLSX, parse


def saved(file: Any) -> bytes:
    data = BytesIO()
    file.save(data)
    return data.getvalue()


def make_docx() -> bytes:
    document = Document()
    document.add_heading("Pump manual", 0)
    document.add_heading("Start", 1)
    paragraph = document.add_paragraph("The ")
    paragraph.add_run("pump").bold = True
    paragraph.add_run(" delivers < 12 l & stops.")
    document.add_paragraph("open", style="List Bullet")
    document.add_paragraph("close", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for at, text in enumerate(["Part", "Bar", "Valve", "3"]):
        table.cell(*divmod(at, 2)).text = text
    document.add_heading("Depth", 3)
    document.sections[0].header.paragraphs[0].text = "on every page"
    return saved(document)


def make_pptx() -> bytes:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Alarm\vlevels"
    slide.placeholders[1].text = "Watch\nWarning"
    slide.placeholders[1].text_frame.paragraphs[1].level = 1
    slide.notes_slide.notes_text_frame.text = "Ask for questions."
    presentation.slides.add_slide(presentation.slide_layouts[6])
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "States"
    table = slide.shapes.add_table(2, 2, 0, 0, 100, 100).table
    for at, text in enumerate(["State", "Level", "Alarm", "4.90 m"]):
        table.cell(*divmod(at, 2)).text = text
    box = slide.shapes.add_group_shape().shapes.add_textbox(0, 0, 100, 100)
    box.text_frame.text = "Grouped text"
    return saved(presentation)


def make_xlsx() -> bytes:
    book = Workbook()
    sheet = book.active
    sheet.title = "Prices"
    sheet["B2"] = "Price list"
    sheet.append([])
    sheet.append([None, "Item", "Price", "Share", "Since", "Sold"])
    sheet.append([None, "Pump", 1234.5, 0.256, datetime(2026, 3, 1), True])
    sheet.append([None, "Valve\nDN 20", 7, 1, datetime(2026, 3, 1, 14, 30), 0.1 + 0.2])
    for row in (5, 6):
        sheet.cell(row, 3).number_format = '#,##0.00 "€"'
        sheet.cell(row, 4).number_format = "0.0%"
    book.create_sheet("Secret").append(["hidden", "row"])
    book["Secret"].sheet_state = "hidden"
    book.create_sheet("Empty")
    book.create_sheet("Names").append(["only", "one row"])
    return saved(book)


DOCUMENT = Page(
    None,
    [
        Block("heading", "Pump manual", 1),
        Block("heading", "Start", 1),
        Block("text", "The pump delivers < 12 l & stops."),
        Block("text", "- open\n- close"),
        Block("table", "| Part | Bar |\n| --- | --- |\n| Valve | 3 |"),
        Block("heading", "Depth", 3),
    ],
)
SLIDES = [
    Page(
        1,
        [
            Block("heading", "Alarm levels", 1),
            Block("text", "- Watch\n  - Warning"),
            Block("heading", "Notes", 2),
            Block("text", "Ask for questions."),
        ],
    ),
    Page(2, []),
    Page(
        3,
        [
            Block("heading", "States", 1),
            Block("table", "| State | Level |\n| --- | --- |\n| Alarm | 4.90 m |"),
            Block("text", "Grouped text"),
        ],
    ),
]
SHEETS = [
    Page(
        1,
        [
            Block("heading", "Prices", 1),
            Block("text", "Price list"),
            Block(
                "table",
                "| Item | Price | Share | Since | Sold |\n"
                "| --- | --- | --- | --- | --- |\n"
                "| Pump | 1,234.50 | 25.6% | 2026-03-01 | TRUE |\n"
                "| Valve DN 20 | 7.00 | 100.0% | 2026-03-01 14:30 | 0.3 |",
            ),
        ],
    ),
    Page(2, []),
    Page(3, []),
    Page(4, [Block("heading", "Names", 1), Block("table", "| only | one row |\n| --- | --- |")]),
]


@pytest.mark.parametrize(
    ("make", "parsed"),
    [
        (make_docx, Parsed(DOCX, [DOCUMENT])),
        (make_pptx, Parsed(PPTX, SLIDES)),
        (make_xlsx, Parsed(XLSX, SHEETS)),
    ],
)
def test_an_office_file_becomes_blocks(make: Callable[[], bytes], parsed: Parsed) -> None:
    assert parse(make(), "notes.txt") == parsed


def test_a_word_cell_that_spans_rows_stands_in_each() -> None:
    document = Document()
    table = document.add_table(rows=3, cols=2)
    for at, text in enumerate(["Plan", "Region", "Basic", "EU", "", "US"]):
        table.cell(*divmod(at, 2)).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    lines = "| Plan | Region |\n| --- | --- |\n| Basic | EU |\n| Basic | US |"
    assert parse(saved(document), "a.docx").pages == [Page(None, [Block("table", lines)])]
