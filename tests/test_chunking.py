"""Pages are cut into chunks, and nothing of their text is lost."""

import random

import pytest

from graph.knowledge.blocks import Block, Page, Parsed
from graph.knowledge.chunking import CHUNK_SIZE, OVERLAP, Chunk, cut, overlap, without_overlap

WORDS = "pump valve sensor pressure the a of is 12 bar, (see table) opens. closes; #4 ``` ---"


def make_text(seed: int, words: int = 900) -> str:
    """Words with all kinds of space between them, and a line without any."""
    chance = random.Random(seed)
    gaps = [" "] * 12 + ["\n", "\n\n", "\n# ", "\n\n## ", "  ", "\n```\n", "\n---\n", "\t"]
    text = "".join(chance.choice(WORDS.split()) + chance.choice(gaps) for _ in range(words))
    return text + "\n" + "x" * 2000 + "\n \n" + text


def page(number: int | None, text: str) -> Page:
    return Page(number, [Block("text", text)] if text else [])


def joined(chunks: list[Chunk]) -> str:
    text = chunks[0].text
    for before, chunk in zip(chunks, chunks[1:], strict=False):
        text += without_overlap(chunk.text, before.text)
    return text


def test_a_short_page_is_one_chunk() -> None:
    parsed = Parsed("application/pdf", [page(1, "The pump starts."), page(2, "It stops.")])
    assert cut(parsed) == [Chunk(0, 1, "The pump starts."), Chunk(1, 2, "It stops.")]


def test_blank_pages_give_no_chunk() -> None:
    parsed = Parsed("application/pdf", [page(1, ""), page(2, " \n\t\n"), page(3, "It stops.")])
    assert cut(parsed) == [Chunk(0, 3, "It stops.")]


@pytest.mark.parametrize("mime_type", ["text/plain", "text/markdown"])
@pytest.mark.parametrize("seed", range(5))
def test_every_word_of_a_page_is_in_some_chunk(seed: int, mime_type: str) -> None:
    text = make_text(seed)
    chunks = cut(Parsed(mime_type, [page(None, text)]))
    whole_words = {word for word in text.split() if len(word) < OVERLAP}
    assert whole_words - {word for chunk in chunks for word in chunk.text.split()} == set()
    assert "".join(joined(chunks).split()) == "".join(text.split())


@pytest.mark.parametrize("mime_type", ["text/plain", "text/markdown"])
def test_chunks_are_of_the_size_and_no_chunk_is_blank(mime_type: str) -> None:
    chunks = cut(Parsed(mime_type, [page(None, make_text(7))]))
    assert max(len(chunk.text) for chunk in chunks) <= CHUNK_SIZE
    assert [chunk for chunk in chunks if not chunk.text.strip()] == []


def test_a_chunk_begins_with_the_last_words_of_the_one_before() -> None:
    text = " ".join(f"word{number}" for number in range(400))
    first, second, *_ = cut(Parsed("text/plain", [page(None, text)]))
    shared = overlap(first.text)
    assert OVERLAP - 20 < len(shared) <= OVERLAP
    assert first.text.endswith(" " + shared)
    assert second.text.startswith(shared + " ")


def test_no_chunk_reaches_over_a_page_and_positions_run_through() -> None:
    pages = [page(number, f"p{number} " * 600) for number in (1, 2, 3)]
    chunks = cut(Parsed("application/pdf", pages))
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert [set(chunk.text.split()) for chunk in chunks] == [
        {f"p{chunk.page_number}"} for chunk in chunks
    ]


def test_markdown_is_cut_at_its_headings() -> None:
    sections = [f"## Section {number}\n\n" + f"Text {number}. " * 60 for number in (1, 2, 3)]
    chunks = cut(Parsed("text/markdown", [page(None, "\n".join(sections))]))
    added = [
        chunks[0].text,
        *(without_overlap(b.text, a.text) for a, b in zip(chunks, chunks[1:], strict=False)),
    ]
    assert [text.strip() for text in added] == [section.strip() for section in sections]


def test_words_that_happen_to_repeat_are_not_taken_for_the_overlap() -> None:
    assert without_overlap("the dog", before="x " * 500 + "cat the") == "the dog"
