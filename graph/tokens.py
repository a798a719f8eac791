"""How many tokens a text is: at most, by any usual tokenizer, or exactly, by the model's own."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from graph.errors import ModelError
from graph.knowledge.minilm import load_tokenizer

Count = Callable[[str], int]

MOST_CHARACTERS = 8
"""So many characters a token is the most that `most_tokens` finds in any text."""

_BYTES = 4
_PIECE = 4_000
_MARGIN = 1.1
# What vocabularies differ in most: other scripts and repeated characters, counted as bytes, than
# which no token is smaller; and rules, which all of them know but BERT's.
_SPECIAL = re.compile(r"[^\x00-\x7f]+|([^\s\-=*#])\1{3,}|(?P<rule>[-=*#])(?P=rule){15,}")
_IN_ITS_PLACE = "."
# Below it, asking takes longer than the difference is worth.
_WORTH_ASKING = 400


def byte_count(text: str) -> int:
    """The size of `text` in UTF-8, and one more: the most tokens that it can be. 1 GB/s."""
    return len(text.encode("utf-8", "ignore")) + 1


def guessed_tokens(text: str) -> int:
    """About how many tokens `text` is, four bytes each; for accounts that nobody else keeps."""
    return ceil(len(text.encode("utf-8", "ignore")) / _BYTES)


def most_tokens(text: str) -> int:
    """How many tokens `text` is at most, by any usual tokenizer. Linear, some 1.5 MB/s a core.

    The larger count of two small vocabularies, Llama 2's of many languages and BERT's of English,
    and a tenth more: a larger vocabulary needs fewer tokens. English prose comes out a tenth above
    the worst of the tokenizers that it was held against, and a third above OpenAI's.
    """
    special = sum(map(_most_of_special, _SPECIAL.finditer(text)))
    rest = _SPECIAL.sub(_IN_ITS_PLACE, text)
    pieces = [rest[at : at + _PIECE] for at in range(0, len(rest), _PIECE)]
    counts = (_lengths(vocabulary, pieces) for vocabulary in _vocabularies())
    counted: int = ceil(_MARGIN * sum(map(max, *counts))) + special + 1
    return min(byte_count(text), max(counted, len(text) // MOST_CHARACTERS))


class Asked:
    """Counts by asking the model's endpoint, from a thread beside the event loop.

    Short texts are not worth it; once an answer fails to come, none are asked any more.
    """

    def __init__(
        self, ask: Callable[[str], Coroutine[Any, Any, int]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._ask = ask
        self._loop = loop
        self._answers = True

    def __call__(self, text: str) -> int:
        """The number of tokens of `text`, `most_tokens` where the endpoint does not tell."""
        if len(text) >= _WORTH_ASKING and self._answers:
            try:
                return asyncio.run_coroutine_threadsafe(self._ask(text), self._loop).result()
            except (ModelError, CancelledError):
                self._answers = False
        return most_tokens(text)


def _most_of_special(match: re.Match[str]) -> int:
    if match["rule"]:
        return len(match[0]) // 8 + 2
    return len(match[0].encode("utf-8", "ignore"))


def _lengths(vocabulary: Tokenizer, pieces: list[str]) -> list[int]:
    return list(map(len, vocabulary.encode_batch_fast(pieces, add_special_tokens=False)))


@cache
def _vocabularies() -> tuple[Tokenizer, ...]:
    """Take them from packages that are there for their vectors; loading takes 0.15 s."""
    vocabularies = (Tokenizer.from_file(str(_wordllama())), load_tokenizer())
    for vocabulary in vocabularies:
        vocabulary.no_truncation()
        vocabulary.no_padding()
    return vocabularies


def _wordllama() -> Path:
    # Not imported: see static_model.py.
    package = find_spec("wordllama")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"
