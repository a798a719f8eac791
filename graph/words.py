"""The words of a sentence, in the form in which sentences are compared."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from Stemmer import Stemmer


class Word(NamedTuple):
    """A word that carries meaning.

    `form` is a stem, a number, a unit or an identifier in lower case. An `exact` word has no
    synonym: a sentence without it says something else. A `name` begins with a capital in the
    midst of a sentence. `negated` words follow "not", "never" or the like in the same clause,
    or stand before one that ends it ("but the crew must not").
    """

    form: str
    exact: bool
    negated: bool
    name: bool = False


_TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)"
    r"|(?<!\w)-{1,2}\w[\w-]*"  # options, negative numbers
    r"|~?/?\w+(?:[./:@+='’-]+\w+)*"  # words, paths, versions
    r"|[%°€$£]|[,;:.!?()\[\]]"
)
# What must not stand before a match is asked for behind its first character: like this, a search
# skips to the next character with which one may begin.
_GLUED = re.compile(
    r"(\d(?<![\w.,-].)\d*(?:[.,]\d+)*)-?"
    r"(?=(?:[kKMGT]i?[Bb]|[kKMG]?Hz|ms|[smhdVAW]|[mck]m|bit|byte|second|minute|hour|day|week"
    r"|month|year)s?\b)"
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_PLAIN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_PARTS = re.compile(r"[^\W_][\w-]*")
_PLURAL_ACRONYM = re.compile(r"[A-Z]{2,}s")

_OFTEN = re.compile(r"\b(?:once|twice)\b(?=\s+(?:an?|per|every|each)\b)", re.IGNORECASE)
_LONGEST_WORD = 64
_START = "."
_OPENS = frozenset([_START, "!", "?", ":"])

_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen twenty"
)
_NUMBERS = {word: str(number) for number, word in enumerate(_TO_TWENTY.split())}
_NUMBERS |= {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"}
_UNITS = (
    "millisecond second sec minute min hour hr day week month year decade percent bit byte"
    " kilobyte megabyte gigabyte terabyte kb mb gb tb kib mib gib ms hz khz mhz ghz metre meter"
    " kilometre kilometer centimetre centimeter millimetre millimeter mm cm km kg kilogram gram"
    " tonne volt ampere amp watt kw mw s m h d v a w b % ° € $ £ celsius fahrenheit euro dollar"
)
_DAYS_AND_MONTHS = (
    "january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday"
)
_UNIT_NAMES = (
    "meter m metre m kilometer km kilometre km centimeter cm centimetre cm millimeter mm"
    " millimetre mm second s sec s minute min hour h hr h day d volt v ampere a amp a watt w"
    " percent % kilobyte kb megabyte mb gigabyte gb terabyte tb kilogram kg millisecond ms"
    " euro € dollar $"
)
_NEGATIONS = "not no never neither nor none nothing nobody nowhere without cannot unless except"
# In lower case.
_NEGATION = re.compile(
    "|".join(rf"{word[0]}(?<!\w.){word[1:]}\b" for word in _NEGATIONS.split())
    + r"|n(?<=\w.)['’]t\b"
)
_NO_FIRST = re.compile(r"\W*no\b\s*[,;:.!–—-]", re.IGNORECASE)
_OR_NOT = re.compile(r"\bor not\b", re.IGNORECASE)
_CLAUSE_ENDS = "but if when because while although though whereas , ; : . ! ? ( ) [ ]"
_REACH = 4
_STOP_WORDS = (
    "a an the this that these those it its they them their there here he she his her we us our"
    " you your i me my one ones who whom whose which what where when why how and or but if then"
    " than so as at by for from in into of off on onto out over to up with within be is are was"
    " were been being am do does did done doing has have had having will would shall should can"
    " could may might must also just very too any some each both either such same other only even"
    " ever yes because while although though whereas unless until about via let lets e.g i.e eg ie"
    " etc"
)

_CALENDAR = frozenset(_DAYS_AND_MONTHS.split())
_MEASURES = frozenset(_UNITS.split())
_SHORT_FOR = dict(zip(_UNIT_NAMES.split()[::2], _UNIT_NAMES.split()[1::2], strict=True))
_NOT = frozenset(_NEGATIONS.split())
_ENDS_CLAUSE = frozenset(_CLAUSE_ENDS.split())
_LEFT_OUT = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[Word]:
    """The words of a sentence that carry meaning, in order; "the" and its like are left out."""
    found: list[Word] = []
    clause, reach, after_number, before = 0, 0, False, _START
    for part in _tokens(text):
        token = _token(part, after_number)
        if token.ends_clause:
            _end_clause(found, clause, before)
            clause, reach, after_number = len(found), 0, False
        elif token.negates:
            reach = _REACH
        else:
            is_name = token.is_capital and before not in _OPENS
            for word in token.words:
                plain = reach <= 0 and not is_name
                found.append(word if plain else Word(word.form, word.exact, reach > 0, is_name))
                reach -= 1
            after_number = token.is_number
        before = part
    _end_clause(found, clause, before)
    return found


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of an English word in lower case."""
    # A stemmer of its own for each word that is new, since threads must not share one.
    return str(Stemmer("english").stemWord(word[:_LONGEST_WORD]))


def negations(text: str) -> int:
    """How often `text` says "not"; "or not" and the "No," that begins an answer don't count."""
    return len(_NEGATION.findall(_without_no_negation(text).lower()))


def is_number(word: Word) -> bool:
    """Tell whether the word is a number."""
    return word.exact and _NUMBER.fullmatch(word.form) is not None


def is_amount(word: Word) -> bool:
    """Tell whether the word is a number or a unit."""
    return is_number(word) or word.form in _MEASURES


def parts(form: str) -> list[str]:
    """What a path, address or assignment is made of; nothing for options and numbers."""
    if form.isalnum() or form.startswith("-"):
        return []
    return [part for part in _PARTS.findall(form) if part != form and not part.isdigit()]


class _Token(NamedTuple):
    """What a token says by itself, with the words that it is in a plain sentence."""

    ends_clause: bool
    negates: bool
    is_number: bool
    is_capital: bool
    words: Sequence[Word]


def _without_no_negation(text: str) -> str:
    if found := _NO_FIRST.match(text):
        text = text[found.end() :]
    return _OR_NOT.sub("", text) if "or not" in text.lower() else text


def _tokens(text: str) -> list[str]:
    text = _without_no_negation(text)
    if "once" in (low := text.lower()) or "twice" in low:
        text = _OFTEN.sub(_as_number, text)
    return [token for piece in text.split() for token in _tokens_of(piece)]


# Some 4 MB. No token has white space in it, and most pieces are a word that came before.
@lru_cache(maxsize=20_000)
def _tokens_of(piece: str) -> list[str]:
    return _TOKEN.findall(_GLUED.sub(_apart, piece))


def _apart(found: re.Match[str]) -> str:
    return f"{found[1]} "


def _as_number(found: re.Match[str]) -> str:
    return {"once": "1 times", "twice": "2 times"}[found[0].lower()]


def _end_clause(found: list[Word], first: int, last_token: str) -> None:
    """Negate the words from `first` on if the clause ends in "not"."""
    # "The keeper may do it, but the crew must not": the crew is what is negated.
    if _is_negation(last_token.lower()):
        found[first:] = [word._replace(negated=True) for word in found[first:]]


def _is_negation(word: str) -> bool:
    return word in _NOT or word.endswith("n't")


# Some 8 MB.
@lru_cache(maxsize=20_000)
def _token(text: str, after_number: bool) -> _Token:
    low = text.lower().replace("’", "'")
    return _Token(
        ends_clause=low in _ENDS_CLAUSE,
        negates=_is_negation(low),
        is_number=low in _NUMBERS or _NUMBER.fullmatch(text) is not None,
        is_capital=text[0].isupper(),
        words=[Word(form, exact, False) for form, exact in _forms(text, low, after_number)],
    )


def _forms(token: str, low: str, after_number: bool) -> Iterator[tuple[str, bool]]:
    unit = low if low == "s" else low.removesuffix("s")
    if unit in _MEASURES and (after_number or len(unit) > 2):
        yield _SHORT_FOR.get(unit, unit), after_number
    elif low in _CALENDAR and token[0].isupper():
        yield low, True
    elif low in _LEFT_OUT or not (low[-1].isalnum() or low in _MEASURES):
        return
    elif low in _NUMBERS:
        yield _NUMBERS[low], True
    elif _NUMBER.fullmatch(low):
        yield _plain_number(low), True
    elif not _PLAIN.fullmatch(token):
        yield low, True
    else:
        for part in re.split("['’-]", token):
            if len(part) > 1 and part.lower() not in _LEFT_OUT:
                yield _plain(part)


def _plain(word: str) -> tuple[str, bool]:
    """The word's stem; acronyms and names such as MaxConcurrentChecks are exact."""
    word = word[:-1] if _PLURAL_ACRONYM.fullmatch(word) else word
    return stem(word.lower()), sum(map(str.isupper, word)) > 1


def _plain_number(text: str) -> str:
    whole, dot, rest = text.replace(",", "").partition(".")
    rest = rest.rstrip("0")
    return f"{whole}.{rest}" if rest else whole
