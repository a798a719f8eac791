"""Where sentences end, in prose as documents and answers write it."""

import re
from collections.abc import Iterator

LONGEST = 300
"""Characters that a sentence of a document has at most; what runs on is cut at a pause."""

# Before a full stop that ends no sentence.
_SHORT = (
    "e.g i.e eg ie etc vs cf al viz dr mr mrs ms prof st jr sr inc ltd co nr fig figs sec ch vol"
    " pp p ed eds approx resp incl excl ca jan feb mar apr jun jul aug sep sept oct nov dec"
)
_ABBREVIATIONS = frozenset(_SHORT.split())
# From its end, since a search for what ends a text tries each place.
_LAST_WORD_BACKWARDS = re.compile(r"[\w.]*")
# "J. Brook", but not "at 12 V."
_INITIAL = re.compile(r"(?<!\d)(?<!\d )\b[A-Z]\Z")
_TAIL = 32
_FULL_LINE = 0.75

_BREAK = re.compile(
    r"(?:\A|\n)[ \t]*(?:`{3,}|~{3,})[^\n]*(?:\n|\Z)"
    r"|\n[ \t]*\n\s*"
    r"|\n(?=[ \t>]*(?:[-*+•◦▪|]|\d{1,3}[.)]|#{1,6})\s)"
    r"|(?<=[.!?…])([\"'”’)\]*_`]*)\s+"
    r"|(?<=[。！？])"
    r"|(?P<line>\n)(?=[ \t]*[A-Z0-9])"
)
_PAUSES = ("; ", ": ", ", ", " ", "\n")


def ends_sentence(text: str) -> bool:
    """Tell whether the mark at the end of `text` ends a sentence, if white space follows it.

    An abbreviation's full stop does not, nor an initial's, an item number's, or three dots.
    """
    if text[-1] != ".":
        return True
    before = text[-_TAIL:-1]
    last = (_LAST_WORD_BACKWARDS.match(before[::-1]) or [""])[0][::-1].lower()
    if before.endswith(".") or last.lstrip(".") in _ABBREVIATIONS:
        return False
    return not (_INITIAL.match(before, len(before) - 1) or before.strip().isdigit())


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The places (start, end) of the sentences, items, headings and rows of `text`, in order.

    A line that is shorter than its neighbours is a row of a table, or a heading.
    """
    start = 0
    longest = max(map(len, text.split("\n")))
    for gap in _BREAK.finditer(text):
        if gap["line"] and gap.start() - text.rfind("\n", 0, gap.start()) > _FULL_LINE * longest:
            continue
        is_mark = gap[1] is not None
        if not is_mark or ends_sentence(text[max(start, gap.start() - _TAIL) : gap.start()]):
            yield from _pieces(text, start, gap.end(1) if is_mark else gap.start())
            start = gap.end()
    yield from _pieces(text, start, len(text))


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """`start` to `end` without the white space around it, in parts of at most `LONGEST`."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        if end - start <= LONGEST:
            break
        cut = _pause(text, start)
        yield start, cut
        start = cut
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end


def _pause(text: str, start: int) -> int:
    for pause in _PAUSES:
        at = text.rfind(pause, start + LONGEST // 2, start + LONGEST)
        if at >= 0:
            return at + 1 if pause.strip() else at
    return start + LONGEST
