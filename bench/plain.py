"""The plain means that everybody begins with: load, split, embed, put into Chroma; or BM25.

They stand beside the service in `bench/retrieval.py` and `bench/ingestion.py`.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import bm25s
import chromadb
import pypdf
from langchain_text_splitters import RecursiveCharacterTextSplitter

from graph.knowledge.static_model import Matrix

Embed = Callable[[list[str]], Matrix]

SIZE, OVERLAP = 1000, 150


@dataclass(frozen=True)
class Piece:
    """A part of a document with its page, if it has one."""

    document: str
    page: int | None
    text: str


def pieces_of(paths: Sequence[Path]) -> list[Piece]:
    """Load with pypdf, take tags out of HTML, split by length."""
    splitter = RecursiveCharacterTextSplitter(chunk_size=SIZE, chunk_overlap=OVERLAP)
    return [
        Piece(path.name, number, text)
        for path in paths
        for number, page in pages_of(path)
        for text in splitter.split_text(page)
    ]


def pages_of(path: Path) -> list[tuple[int | None, str]]:
    """The file's pages; one without a number where the format has none."""
    if path.suffix == ".pdf":
        reader = pypdf.PdfReader(io.BytesIO(path.read_bytes()))
        return [(number, page.extract_text()) for number, page in enumerate(reader.pages, 1)]
    text = path.read_text(encoding="utf-8", errors="replace")
    return [(None, re.sub(r"<[^>]*>", " ", text) if path.suffix == ".html" else text)]


class PlainBM25:
    """BM25 as the package `bm25s` does it by default, English stop words left out."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._index = bm25s.BM25()
        texts = [piece.text for piece in pieces]
        self._index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), False)

    def search(self, question: str, limit: int) -> list[Piece]:
        """The best pieces, best first."""
        asked = bm25s.tokenize(question, stopwords="en", show_progress=False)
        found, _ = self._index.retrieve(asked, k=limit, show_progress=False)
        return [self._pieces[at] for at in found[0]]


class PlainChroma:
    """A collection with Chroma's own settings, and the texts in it."""

    def __init__(self, pieces: Sequence[Piece], embed: Embed) -> None:
        self._pieces = pieces
        self._embed = embed
        client = chromadb.EphemeralClient()
        self._collection = client.create_collection(f"c{uuid4()}", embedding_function=None)
        for start in range(0, len(pieces), 256):
            texts = [piece.text for piece in pieces[start : start + 256]]
            ids = [str(start + at) for at in range(len(texts))]
            self._collection.add(ids=ids, embeddings=embed(texts), documents=texts)

    def search(self, question: str, limit: int) -> list[Piece]:
        """The nearest pieces, best first."""
        found = self._collection.query(self._embed([question]), n_results=limit, include=[])
        return [self._pieces[int(one)] for one in found["ids"][0]]
