"""The terms of a text, as the full-text index counts them and questions ask for them.

Words are stemmed. What hangs together (`ups.conf`, `--with-drvpath`, `2.8.0`) is a term as a whole
and in its parts, so that it is found by either.
"""

import re

from graph.nfkc import nfkc
from graph.words import stem

LONGEST = 64

_WORD = re.compile(r"\w(?:[\w.\-/+:@]*\w)?")
_PART = re.compile(r"[^\W_]+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]{2,}")
_CONTRACTION = re.compile(r"(?i)\b(\w+?)(?:n['’]t|['’](?:ll|ve|re|d|s|m))\b")
_COMMON = frozenset(re.findall(r"\w+", """
    a about am an and any are as at be been being but by can could did do does doing for from
    get had has have having he her here hers him his how i if in into is it its just may me
    might must my no nor not of on or our ours shall she should so some such than that the
    their theirs them then there these they this those to too us very was we were what when
    where which while who whom whose why will with would you your yours
"""))  # fmt: skip


def words(text: str) -> list[str]:
    """The words of `text` in lower case, in order, without those that every text has."""
    plain = without_contractions(nfkc(text)).casefold()
    return [word for found in _WORD.findall(plain) for word in _whole_and_parts(found)]


def without_contractions(text: str) -> str:
    """`I'll` as `I`, `doesn't` as `does`: what is left out is common."""
    return _CONTRACTION.sub(r"\1", text) if "'" in text or "’" in text else text


def terms(text: str) -> list[str]:
    """The stems of `words(text)`, in the same order."""
    return [stem(word) for word in words(text)]


def _whole_and_parts(found: str) -> list[str]:
    parts = [pair for part in _PART.findall(found) for pair in _pairs(part)]
    whole = [found] if len(parts) > 1 and not _UNSPACED.search(found) else []
    return [word for word in (*whole, *parts) if word not in _COMMON and len(word) <= LONGEST]


def _pairs(part: str) -> list[str]:
    """Chinese and Japanese have no spaces: two neighbouring characters count as a word."""
    if not _UNSPACED.fullmatch(part):
        return [part]
    return [part[at : at + 2] for at in range(len(part) - 1)]
