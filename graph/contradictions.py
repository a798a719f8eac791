"""What in two sentences about the same thing says that they do not say the same."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from graph.words import stem

_PAIRS: Final = (
    "always/never before/after above/below more/less/fewer greater/smaller larger/smaller"
    " higher/lower maximum/minimum most/least first/last earliest/latest enable/disable"
    " allow/forbid allow/deny allow/prohibit permit/forbid permit/prohibit accept/reject"
    " include/exclude increase/decrease raise/lower start/stop open/close connect/disconnect"
    " add/remove install/uninstall lock/unlock success/failure succeed/fail true/false"
    " mandatory/optional required/optional internal/external local/remote public/private"
    " incoming/outgoing upload/download client/server primary/secondary parent/child"
    " source/target old/new longer/shorter newer/older high/low fast/slow early/late"
    " sooner/later possible/impossible safe/unsafe secure/insecure valid/invalid"
    " automatic/manual temporary/permanent synchronous/asynchronous encrypt/decrypt"
    " import/export visible/hidden same/different all/none left/right north/south east/west"
)
_OBLIGED = re.compile(
    r"\b(?:(?:must|shall)(?!\s+not\b)|required?|mandatory|ha(?:s|ve) to|needs? to)\b", re.IGNORECASE
)
_FREE = re.compile(r"\b(?:may|optional(?:ly)?|might)\b", re.I)
_ADVISED = re.compile(r"\b(?:should|recommend(?:ed)?|can|could)\b|" + _FREE.pattern, re.I)


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for pair in _PAIRS.split():
        forms = [stem(word) for word in pair.split("/")]
        for form in forms:
            others = frozenset(other for other in forms if other != form)
            found[form] = found.get(form, frozenset()) | others
    return found


_OPPOSITES: Final = _opposites()


def swapped(claim: Sequence[str], passage: Sequence[str]) -> bool:
    """Tell whether `claim` has a word in place of which `passage` has its opposite (stems)."""
    told = [form for form in claim if form in _OPPOSITES]
    if not told:
        return False
    ours, theirs = Counter(told), Counter(passage)
    return any(
        ours[form] > theirs[form] and any(ours[other] < theirs[other] for other in _OPPOSITES[form])
        for form in ours
    )


def differs_in_force(claim: str, passage: str) -> bool:
    """Tell whether one obliges where the other leaves a choice ("must" and "may")."""
    if _OBLIGED.search(claim):
        return not _OBLIGED.search(passage) and _ADVISED.search(passage) is not None
    return _FREE.search(claim) is not None and (
        _OBLIGED.search(passage) is not None and not _ADVISED.search(passage)
    )
