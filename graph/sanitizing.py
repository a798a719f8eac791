"""Takes out of every text what no text may hold: control characters and their like."""

import re

_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\U000e0000-\U000e007f]")

# They turn the order of letters around, so that a name looks like another one.
_TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` without control characters (tab and newline stay), lone surrogates and tag characters.

    CR is a control character: CRLF becomes LF.
    """
    return _UNWANTED.sub("", text)


def one_way(text: str) -> str:
    """`text` without characters that turn the order of its letters around."""
    return _TURNS.sub("", text)


def one_line(text: str, limit: int) -> str:
    """`text`, cleaned, with each run of white space as one space; at most `limit` characters."""
    return " ".join(clean(text).split())[:limit].rstrip()
