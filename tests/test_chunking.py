"""Documents are cut along their sections, and nothing of their text is lost."""

import random

import pytest

from graph.knowledge.blocks import Block, Kind, Page, Parsed
from graph.knowledge.chunking import CHUNK_SIZE, WHOLE_SIZE, Chunk, cut

LONG = " ".join(f"Sentence number {number} tells of valve {number}." for number in range(60))


def pdf(*pages: list[Block]) -> Parsed:
    return Parsed("application/pdf", [Page(number, page) for number, page in enumerate(pages, 1)])


def text(words: str) -> Block:
    return Block("text", words)


def heading(words: str, level: int = 1) -> Block:
    return Block("heading", words, level)


def test_a_short_page_is_one_chunk_and_blank_ones_are_none() -> None:
    assert cut(pdf([text("The pump starts.")], [], [text("It stops.")])) == [
        Chunk(0, 1, "", "The pump starts."),
        Chunk(1, 3, "", "It stops."),
    ]


def test_headings_are_the_path_of_what_stands_under_them_on_later_pages_too() -> None:
    filler = text("word " * 50)
    chunks = cut(
        pdf(
            [heading("Pumps"), heading("Start", 2), filler, heading("Stop", 2), filler],
            [text("Continued."), heading("Valves"), text("They open.")],
        )
    )
    assert [(chunk.page_number, chunk.heading) for chunk in chunks] == [
        (1, "Pumps"),
        (1, "Pumps › Stop"),
        (2, "Pumps › Stop"),
    ]
    assert chunks[2].text == "Continued.\n\nValves\n\nThey open."
    assert chunks[1].searchable.startswith("Pumps › Stop\nStop\n\nword")


def test_a_heading_that_is_too_long_is_text_of_the_section_before() -> None:
    page = [heading("Pumps"), heading("Valves " * 1000, 2), text("They open.")]
    chunks = cut(pdf(page))
    assert {chunk.heading for chunk in chunks} == {"Pumps"}
    assert max(len(chunk.searchable) for chunk in chunks) <= CHUNK_SIZE + len("Pumps\nPumps\n\n")
    assert " ".join(chunk.text for chunk in chunks).split() == [
        *["Pumps", *["Valves"] * 1000, "They", "open."]
    ]


def test_of_a_long_path_the_inner_headings_are_kept() -> None:
    [first, second, third] = (heading(f"{level} " * 70, level) for level in (1, 2, 3))
    filler = text("word " * 50)
    chunks = cut(pdf([first, second, filler, third, filler, second, filler]))
    assert [chunk.heading for chunk in chunks[1:]] == [
        f"{second.text} › {third.text}",
        f"{first.text} › {second.text}",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_word_is_in_some_chunk_in_order(seed: int) -> None:
    chance = random.Random(seed)
    kinds: list[Kind] = ["heading", "text", "text", "table", "code"]

    def block() -> Block:
        words = [f"w{chance.randrange(999)}" + chance.choice(" .:\n") for _ in range(300)]
        kind = chance.choice(kinds)
        size = 4 if kind == "heading" else chance.randrange(300)
        return Block(kind, " ".join(words[:size]).strip() or "x", 2 if kind == "heading" else 0)

    page = [block() for _ in range(40)]
    # A table's header stands above each of its pieces.
    page = [b for b in page if b.kind != "table" or len(b.text) <= CHUNK_SIZE]
    chunks = cut(pdf(page))
    written = " ".join(block.text for block in page).split()
    assert " ".join(chunk.text for chunk in chunks).split() == written
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))


def test_long_text_is_cut_at_sentences() -> None:
    chunks = cut(pdf([text(LONG)]))
    assert [chunk.text[-1] for chunk in chunks] == ["."] * len(chunks)
    assert [chunk.text[:15] for chunk in chunks] == ["Sentence number"] * len(chunks)
    assert max(len(chunk.text) for chunk in chunks) <= CHUNK_SIZE


def test_a_line_without_a_gap_is_cut_all_the_same() -> None:
    chunks = cut(pdf([text("x" * 2500)]))
    assert [len(chunk.text) for chunk in chunks] == [1000, 1000, 500]


def test_code_stays_whole() -> None:
    code = "\n".join(f"call({number})" for number in range(150))
    assert CHUNK_SIZE < len(code) < WHOLE_SIZE
    chunks = cut(pdf([text("Before. " * 40), Block("code", code), text("After.")]))
    assert [chunk.text for chunk in chunks if "call(0)" in chunk.text] == [code]


def test_each_piece_of_a_long_table_has_its_header() -> None:
    rows = [f"| pump {number} | {number} bar |" for number in range(100)]
    chunks = cut(pdf([Block("table", "\n".join(["| Pump | Pressure |", *rows]))]))
    assert {chunk.text.split("\n")[0] for chunk in chunks} == {"| Pump | Pressure |"}
    assert [line for chunk in chunks for line in chunk.text.split("\n")[1:]] == rows


def test_a_very_long_text_is_cut_in_time_that_grows_with_its_length() -> None:
    assert len(cut(pdf([text("word and word. " * 200_000)]))) > 3000
