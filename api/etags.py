"""Optimistic locking by entity tags (RFC 9110): a change names the version that it replaces."""

import re
from typing import Annotated, Any

from fastapi import Header

from api.errors import Refusal
from api.refusals import DraftingRefused

IfMatch = Annotated[
    str | None,
    Header(description='The version that is to be replaced, in quotes, as in `"0f3a…"`.'),
]
IfNoneMatch = Annotated[str | None, Header(description="Versions in quotes, or `*` for any.")]

CONDITIONS: dict[int | str, dict[str, Any]] = {
    412: {
        "description": "The text has changed meanwhile; `ETag` names its present version.",
        "model": DraftingRefused,
        "content": {"application/json": {"example": {"detail": "The text has changed: …"}}},
    },
    428: {
        "description": "Neither `If-Match` nor `If-None-Match` was sent.",
        "model": DraftingRefused,
        "content": {"application/json": {"example": {"detail": "Say which version you edit: …"}}},
    },
}
"""What OpenAPI says of a route that replaces a version."""

_TAG = re.compile(r'(W/)?"([^"]*)"')


def etag(version: str) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def names(header: str, version: str | None, *, weak: bool = False) -> bool:
    """Whether `header` names the version; `*` names any, and nothing names null.

    Weak tags count only where `weak` is true.
    """
    if version is None:
        return False
    if header.strip() == "*":
        return True
    return any(tag == version and (weak or not mark) for mark, tag in _TAG.findall(header))


def require_match(version: str | None, if_match: str | None, if_none_match: str | None) -> None:
    """Refuse a change that was not made over `version`, which is null where there is no text.

    Raises:
        Refusal: 428 without a condition; 412 where the text has changed, with its present tag.
    """
    if if_match is None and if_none_match is None:
        raise Refusal(428, "precondition_required", _CONDITION)
    if if_match is not None and not names(if_match, version):
        if version and version in if_match:
            raise Refusal(412, "changed", _NOT_STRONG, headers={"ETag": etag(version)})
        raise changed(version)
    if if_none_match is not None and names(if_none_match, version, weak=True):
        raise changed(version)


def changed(version: str | None) -> Refusal:
    """412: the text is not what the caller saw any more."""
    if version is None:
        return Refusal(412, "changed", "There is no text at this path now. Read it again.")
    sentence = f"The text has changed: its version is {version} now. Read it, and edit that."
    return Refusal(412, "changed", sentence, headers={"ETag": etag(version)})


# A proxy that compresses makes weak tags of strong ones.
_NOT_STRONG = 'If-Match must be the version in quotes and without W/, as in "0f3a…".'
_CONDITION = (
    "Say which version you edit: send its ETag as If-Match, or If-None-Match: * for a new text."
)
