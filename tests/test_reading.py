"""A document is read in a process of its own, which no document can turn against the service."""

import asyncio
import json
import signal
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO

import psutil
import pytest
from openpyxl import Workbook
from test_office import make_docx, make_pptx, make_xlsx

from graph.errors import DocumentTooLarge, PipelineError, UnreadableDocument
from graph.knowledge.chunking import cut
from graph.knowledge.confinement import Crashed, OutOfRoom, confined
from graph.knowledge.parsing import parse
from graph.knowledge.reading import LIMITS, Reading, read

LAUGHS = (
    f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "{"ha " * 3_000}">'
    + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 20}">'
        for before, name in zip("abcd", "bcdj", strict=True)
    )
    + "]>"
)
SECRET = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>'


def changed(data: bytes, name: str, change: Callable[[str], str]) -> bytes:
    """An Office file of which one member is changed."""
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(file, "w", 8) as new:
        assert name in old.namelist()
        for member in old.namelist():
            text = old.read(member)
            new.writestr(member, change(text.decode()) if member == name else text)
    return file.getvalue()


def with_entity(head: str, at: str) -> Callable[[str], str]:
    """Declare entities in XML, and use the last of them where `at` stands."""

    def change(xml: str) -> str:
        body = xml[xml.index("?>") + 2 :] if xml.startswith("<?xml") else xml
        assert at in body
        return head + body.replace(at, "&j;")

    return change


def lying_about_sizes(data: bytes) -> bytes:
    """A zip file whose directory says that each member has ten bytes."""
    lying, at = bytearray(data), -1
    while (at := lying.find(b"PK\x01\x02", at + 1)) >= 0:
        lying[at + 24 : at + 28] = (10).to_bytes(4, "little")
    return bytes(lying)


def endless_xlsx() -> bytes:
    """A sheet that takes longer to read than anybody waits."""
    book = Workbook()
    book.active.append(["a", "b"])
    file = BytesIO()
    book.save(file)
    far = '<row r="999999999"><c r="A999999999"><v>1</v></c></row></sheetData>'
    return changed(
        file.getvalue(), "xl/worksheets/sheet1.xml", lambda xml: xml.replace("</sheetData>", far)
    )


async def outcome(data: bytes, name: str) -> str:
    try:
        reading = await read(data, name)
    except PipelineError as error:
        return f"{type(error).__name__}: {error}"
    return " / ".join(chunk.text for chunk in reading.chunks)[:80]


def parsed_or_refused(data: bytes) -> str:
    try:
        return parse(data, "a").pages[0].blocks[-1].text
    except PipelineError as error:
        return f"{type(error).__name__}: {error}"


@asynccontextmanager
async def while_reading(data: bytes) -> AsyncIterator[tuple[asyncio.Task[str], psutil.Process]]:
    """The task that reads, and its process."""
    before = set(psutil.Process().children())
    task = asyncio.create_task(outcome(data, "a.xlsx"))
    try:
        for _ in range(200):
            new = [one for one in psutil.Process().children() if one not in before]
            # It has its own program and limits once it is nice.
            if new and new[0].nice() == 10:
                break
            await asyncio.sleep(0.05)
        yield task, new[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_document_is_read_as_it_is_parsed_and_cut() -> None:
    data = b"# Pump\n\nIt starts.\n\n" + b"word " * 1000
    assert asyncio.run(read(data, "pump.md")) == Reading(
        "text/markdown", None, cut(parse(data, "pump.md"))
    )


def test_the_pages_are_counted() -> None:
    reading = asyncio.run(read(make_pptx(), "slides.pptx"))
    assert (reading.page_count, {chunk.page_number for chunk in reading.chunks}) == (3, {1, 3})


def test_bad_files_end_in_a_sentence_or_in_what_can_be_read() -> None:
    docx, pptx, xlsx = make_docx(), make_pptx(), make_xlsx()
    text = "word/document.xml"
    broken = "UnreadableDocument: 'a' is damaged and cannot be opened as "
    cases = {
        lying_about_sizes(docx): f"{broken}a Word file.",
        docx[: len(docx) // 2]: f"{broken}a Word file.",
        changed(docx, text, lambda xml: xml[:-40]): f"{broken}a Word file.",
        changed(docx, text, with_entity(LAUGHS, "pump")): f"{broken}a Word file.",
        changed(docx, text, with_entity(SECRET, "pump")): f"{broken}a Word file.",
        changed(docx, text, lambda _: "<w>" * 50_000 + "</w>" * 50_000): f"{broken}a Word file.",
        changed(pptx, "ppt/slides/slide1.xml", with_entity(LAUGHS, "Watch")): (
            f"{broken}a PowerPoint file."
        ),
        changed(xlsx, "xl/worksheets/sheet1.xml", with_entity(LAUGHS, "Pump")): (
            f"{broken}an Excel file."
        ),
        b"%PDF-1.7\n%%EOF": f"{broken}a PDF.",
        b"<html>" + b"<div>" * 100_000 + b"deep": "deep",
        b"<html><b>" + b"<table><tr><td>" * 10_000 + b"deep": "deep",
        b"text\0text": "UnsupportedDocument: 'a' is not a PDF, a Word, PowerPoint or Excel file, ",
    }

    found = [parsed_or_refused(data)[: len(expected)] for data, expected in cases.items()]
    assert found == list(cases.values())


@pytest.mark.parametrize(
    "text",
    ["[" * 5_000, ">" * 5_000 + "x", "*a_ " * 5_000, "- " * 2_000 + "x", "`" * 9_000 + "x" * 9],
    ids=["brackets", "quotes", "emphasis", "lists", "backticks"],
)
def test_markdown_may_be_pathological(text: str) -> None:
    assert parse(b"# Title\n\n" + text.encode(), "a.md").pages[0].blocks[0].text == "Title"


def test_the_process_has_no_secrets_and_narrow_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")

    async def scenario() -> tuple[object, ...]:
        async with while_reading(endless_xlsx()) as (_, process):
            kinds = (psutil.RLIMIT_DATA, psutil.RLIMIT_CPU, psutil.RLIMIT_CORE)
            return process.environ(), [process.rlimit(kind)[1] for kind in kinds]

    assert asyncio.run(scenario()) == (
        {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
        [LIMITS.memory, 26, 0],
    )


def test_the_process_ends_with_the_one_who_waits() -> None:
    async def scenario() -> psutil.Process:
        async with while_reading(endless_xlsx()) as (_, process):
            return process

    assert not asyncio.run(scenario()).is_running()


def test_a_process_that_dies_gives_a_sentence() -> None:
    async def scenario() -> list[str]:
        found = []
        for number in (signal.SIGSEGV, signal.SIGKILL):
            async with while_reading(endless_xlsx()) as (task, process):
                process.send_signal(number)
                found.append(await task)
        return found

    assert asyncio.run(scenario()) == [
        "UnreadableDocument: 'a.xlsx' is damaged and cannot be read.",
        "DocumentTooLarge: 'a.xlsx' needs more memory than a document may have. Split it.",
    ]


def test_a_document_that_takes_too_long_gives_a_sentence() -> None:
    limits = replace(LIMITS, seconds=2)
    with pytest.raises(UnreadableDocument) as caught:
        asyncio.run(read(endless_xlsx(), "a.xlsx", limits))
    assert str(caught.value) == "'a.xlsx' takes longer to read than a document may. Split it."


def test_a_document_that_takes_too_much_memory_gives_a_sentence() -> None:
    bomb = changed(make_docx(), "word/document.xml", lambda xml: xml.replace("pump", "x" * 90**4))
    with pytest.raises(DocumentTooLarge) as caught:
        asyncio.run(read(bomb, "a.docx", replace(LIMITS, memory=60_000_000, seconds=100)))
    assert str(caught.value) == ("'a.docx' needs more memory than a document may have. Split it.")


def test_output_without_end_is_not_waited_for() -> None:
    async def scenario() -> bytes:
        limits = replace(LIMITS, output=100)
        async with confined("graph.knowledge.reading", "a.txt", b"word " * 999, limits) as lines:
            return b"".join([line async for line in lines])

    with pytest.raises(OutOfRoom):
        asyncio.run(scenario())


def test_a_program_that_fails_is_told_from_one_that_has_nothing_to_say() -> None:
    async def scenario(module: str) -> list[bytes]:
        async with confined(module, "a.txt", b"", LIMITS) as lines:
            return [json.loads(line) async for line in lines]

    with pytest.raises(Crashed):
        asyncio.run(scenario("graph.knowledge.nothing"))
    assert asyncio.run(scenario("graph.knowledge.blocks")) == []
