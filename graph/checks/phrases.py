"""Finds names and phrases among the words of a text, in time linear in the text."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_WORD = re.compile(r"[^\W_]+(?:\+\+|#(?!\w))?")
_END = re.compile(r"[.!?](?=[\s\"”')\]*]|\Z)|\n[ \t]*\n")
_QUOTES = "\"'“”‘’„«»`\ufffc"
_LONGEST = 5


class Word(NamedTuple):
    """A word in a text: as it stands, in lower case and singular, and where it stands."""

    text: str
    form: str
    start: int
    end: int


class Match(NamedTuple, Generic[T]):
    """A phrase that was found: from word `first` up to, not including, word `last`."""

    first: int
    last: int
    value: T


class Phrases(Generic[T]):
    """Phrases of at most five words, each with a value. The first of equal phrases counts."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], T] = {}
        self._lengths: dict[str, list[int]] = {}

    def add(self, phrase: str, value: T) -> None:
        """Add a phrase; one of no words, or of too many, is left out."""
        forms = tuple(word.form for word in words_of(phrase))
        if 0 < len(forms) <= _LONGEST and forms not in self._values:
            self._values[forms] = value
            lengths = {*self._lengths.get(forms[0], []), len(forms)}
            self._lengths[forms[0]] = sorted(lengths, reverse=True)

    def __contains__(self, phrase: str) -> bool:
        return tuple(word.form for word in words_of(phrase)) in self._values

    def find(self, words: Sequence[Word]) -> Iterator[Match[T]]:
        """The longest phrase at each place, without overlaps, whatever stands between words."""
        at = 0
        while at < len(words):
            found = self._at(words, at)
            if found:
                yield found
            at = found.last if found else at + 1

    def _at(self, words: Sequence[Word], at: int) -> Match[T] | None:
        for length in self._lengths.get(words[at].form, ()):
            forms = tuple(word.form for word in words[at : at + length])
            if len(forms) == length and forms in self._values:
                return Match(at, at + length, self._values[forms])
        return None


def words_of(text: str) -> list[Word]:
    """The words of a text in order; "C++" and "C#" are words too."""
    return [
        Word(found[0], _singular(found[0].casefold()), found.start(), found.end())
        for found in _WORD.finditer(text)
    ]


def word_set(words: str) -> frozenset[str]:
    """The words of a list with spaces."""
    return frozenset(words.split())


def _singular(word: str) -> str:
    """An English noun without the ending of its plural."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes")):
        return word[:-2]
    return word[:-1]


class Signs:
    """Which sentences of a text hold a sign, read once for all places of the text."""

    def __init__(self, text: str, sign: re.Pattern[str]) -> None:
        self._ends = [found.end() for found in _END.finditer(text)]
        self._places = [found.start() for found in sign.finditer(text)]

    def near(self, place: int) -> bool:
        """Whether the sentence in which `place` stands holds the sign."""
        at = bisect_right(self._ends, place)
        start = self._ends[at - 1] if at else 0
        first = bisect_left(self._places, start)
        return first < len(self._places) and (
            at == len(self._ends) or self._places[first] < self._ends[at]
        )


def first_sentence(text: str, start: int) -> str:
    """The sentence that begins at `start`."""
    end = _END.search(text, start)
    return text[start : end.start() if end else len(text)]


def is_name_of_code(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` is part of an identifier, a path, an address or a variable."""
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    if before[-1:] and before[-1] in "_/\\@#$&=" or after[:1] and after[0] in "_/\\@=(":
        return True
    joins_before = before[-1:] in (".", ":") and before[:1].isalnum() and len(before) == 2
    joins_after = after[:1] in (".", ":") and after[1:].isalnum()
    return joins_before or joins_after


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` alone stands between quotation marks."""
    return text[start - 1 : start] != "" and (
        text[start - 1] in _QUOTES and text[end : end + 1] != "" and text[end] in _QUOTES
    )
