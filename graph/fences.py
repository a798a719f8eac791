"""Delimiters that the text between them cannot close, so that data stays data."""

import hmac
import secrets

from graph.sanitizing import one_line

_HARMLESS = str.maketrans('"<>', "'()")
# Small models count digits up, or take them for the answer. Eight consonants are no word either.
CONSONANTS = "bdfghjklmnprstvz"
_CONSONANTS_OF_HEX = str.maketrans("0123456789abcdef", CONSONANTS)


class Fences:
    """Wraps texts of documents, people and the web.

    A delimiter carries a keyed hash of the text that it encloses: whoever writes the text cannot
    know it, and the same text gets the same delimiter, so that a provider's prompt cache holds.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def wrap(self, kind: str, text: str, **attributes: str | int | None) -> str:
        """`text` between `<kind-hash attribute="...">` and `</kind-hash>`; null attributes go."""
        digest = hmac.digest(self._key, text.encode(), "sha256").hex()[:8]
        tag = f"{kind}-{digest.translate(_CONSONANTS_OF_HEX)}"
        shown = "".join(
            f' {name}="{_attribute(value)}"'
            for name, value in attributes.items()
            if value is not None
        )
        return f"<{tag}{shown}>\n{text}\n</{tag}>"


def _attribute(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return one_line(value, 200).translate(_HARMLESS)
