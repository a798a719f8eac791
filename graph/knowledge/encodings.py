"""Bytes into text, whatever the encoding."""

import codecs
import importlib
import re
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

_WESTERN = "cp1252"
# Without this list, short texts are taken for EBCDIC or for UTF-16 without a byte order mark.
_LEGACY = [
    _WESTERN,
    *("cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)
_DECLARED_WITHIN = 4096


def decode(data: bytes) -> str | None:
    """Give the text, or None when the bytes are no text: NUL bytes, or no encoding fits.

    Lone surrogates, as some programs write them in UTF-8, are left out. Some 10 ms for 10 MB of
    UTF-8, 0.3 s where the encoding has to be guessed.
    """
    try:
        text = _decode(data)
    except (UnicodeDecodeError, LookupError):
        return None
    return None if text is None or "\0" in text else text


def decoded(data: bytes) -> str:
    """Give the text; raises ValueError when the bytes are no text."""
    text = decode(data)
    if text is None:
        raise ValueError("no encoding fits")
    return text


def _decode(data: bytes) -> str | None:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _SURROGATES.sub("", data.decode(encoding, "surrogatepass"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return _SURROGATES.sub("", data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return _declared(data) or _guessed(data)


def _declared(data: bytes) -> str | None:
    """Take the encoding that an HTML file names itself."""
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    if not match:
        return None
    try:
        return data.decode(match[1].decode("ascii"))
    except (UnicodeDecodeError, LookupError, ValueError):
        return None


def _guessed(data: bytes) -> str | None:
    """Take the likeliest legacy encoding, and the Western one where it is as likely."""
    if b"\0" in data:
        return None
    guesses = _charset_normalizer().from_bytes(data, cp_isolation=_LEGACY)
    best = guesses.best()
    if best is None:
        return None
    as_likely = (one for one in guesses if _mess(one) <= _mess(best))
    if any(_WESTERN in one.could_be_from_charset for one in as_likely):
        return data.decode(_WESTERN)
    return data.decode(best.encoding)


def _charset_normalizer() -> ModuleType:
    """Import it when it is needed, which is seldom: each document is read by a new process."""
    return importlib.import_module("charset_normalizer")


def _mess(guess: "CharsetMatch") -> tuple[float, float]:
    return guess.chaos, -guess.coherence
