"""Which sentences claim something that a source could bear out."""

import re

_ASKS = re.compile(r"[?？][\"'”’)*_\s]*\Z")
_SPEAKS = re.compile(
    r"\b(?:I|I['’](?:m|ll|ve|d)|[Ll]et me know|[Ff]eel free|[Hh]ope (?:this|that)|[Ww]ould you like"
    r"|[Hh]appy to)\b"
)
_LEADS_IN = re.compile(
    r"\W*(?:[Hh]ere(?: is| are|['’]s)|[Bb]elow (?:is|are)"
    r"|[Ii]f you (?:have|need|want|would like)"
    r" (?:any |more |further |other |additional )*(?:questions?|information|details?|help))\b"
)
_POINTS = re.compile(
    r"\W*(?:according to|as \w+ (?:in|by)|see(?: also)?|per|cf|sources?|references?|in|from|by)?"
    r"\W*\Z",
    re.IGNORECASE,
)
_MATERIAL = (
    r"(?:sources?|documents?|documentation|passages?|context|excerpts?|material|texts?|information)"
)
_TELL = (
    r"(?:say|tell|mention|specif|stat(?:e|ed|ing)\b|contain|cover|address|provid|describ|discuss"
    r"|give|gave|includ|explain|answer|indicat|detail|list|refer|have\b|has\b|know|found|find)"
)
_NOT = r"(?:not|n['’]t|no|none|nothing|neither|nowhere|cannot|lacks?|insufficient|without)"
_THE = r"(?:(?:the|these|any|your|this|provided|given|available) )*"
_SAYS_NOTHING = (
    # "The documents do not say", "Nothing is said in the documents", "None of the sources tells".
    rf"{_MATERIAL}\b.{{0,60}}?(?:\b|(?<=[a-z])){_NOT}\b.{{0,60}}\b{_TELL}",
    rf"{_NOT}\b.{{0,40}}\b{_TELL}.{{0,60}}\b(?:in|by|from|within) {_THE}{_MATERIAL}\b",
    rf"(?:none|nothing|neither) (?:of|in) {_THE}.{{0,30}}\b{_MATERIAL}\b",
    rf"not (?:in|among) {_THE}{_MATERIAL}\b",
    r"there (?:is|are) no (?:\w+ )?(?:information|mention|details?|indication)\b",
    r"(?:is|are) (?:unknown|unclear|unspecified)\b",
    r"(?:is|are) not (?:\w+ )?(?:known|mentioned|specified|stated|documented|covered)\b",
)
_UNKNOWN = re.compile(rf"\b(?:{'|'.join(_SAYS_NOTHING)})", re.IGNORECASE | re.DOTALL)
_LEADS = (
    r"in (?:short|summary|other words|brief|general|addition|conclusion),?",
    r"(?:thus|therefore|hence|so|however|overall|also|additionally|moreover|furthermore|finally),?",
    r"(?:for (?:example|instance)|yes|basically|essentially|specifically|note that),?",
    r"according to [^,]{1,80},",
    rf"(?:the|this) (?:\w+ )?(?:{_MATERIAL}|handbook|manual|guide|page|section|standard)s?"
    r" (?:says?|states?|notes?|mentions?|explains?)(?: that)?\b",
)
_LEAD = re.compile(rf"\W*(?:{'|'.join(_LEADS)})\s*", re.IGNORECASE)


def without_lead(sentence: str) -> str:
    """`sentence` without the words that only lead to what it claims ("In short, ")."""
    lead = _LEAD.match(sentence)
    return sentence[lead.end() :] if lead else sentence


def is_claim(sentence: str) -> bool:
    """Tell whether `sentence` states something about the matter.

    A question does not, nor does what is said to the reader ("Let me know") or points to a source
    ("According to"), nor a sentence that says only that nothing is known ("The documents do not
    say").
    """
    return not (
        _ASKS.search(sentence)
        or _SPEAKS.search(sentence)
        or _LEADS_IN.match(sentence)
        or _POINTS.match(sentence)
        or _UNKNOWN.search(sentence)
    )
