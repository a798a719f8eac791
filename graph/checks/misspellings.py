"""The ways in which a term is likely to be written wrongly."""

from collections.abc import Iterable, Iterator

from graph.checks.phrases import word_set, words_of

_VOWELS = "aeiou"
_SHORTEST, _LONG = 6, 8
# Words of their own that are a letter away from likely terms.
_WORDS = word_set(
    "adaption angel angle casual causal compliant complaint contact contract contest context"
    " construct constrict desert dessert diary dairy form from later latter loose lose marital"
    " martial perspective persecute personal personnel planed planned prescription proscription"
    " quiet quite stationary stationery staffing stuffing trail trial united untied"
)


def misspellings(terms: Iterable[str]) -> dict[str, str]:
    """Wrong spelling, in lower case, to the term that is meant, as the domain language has it."""
    wrong: dict[str, str] = {}
    for term in terms:
        words = words_of(term)
        if len(words) > 1:
            wrong.setdefault("".join(word.form for word in words), term)
        for word in words:
            for variant in _variants(word.form, alone=len(words) == 1):
                wrong.setdefault(variant, term)
    return {variant: term for variant, term in wrong.items() if variant not in _WORDS}


def _variants(word: str, *, alone: bool) -> Iterator[str]:
    """The first letter and the last two stay: there a change makes another word."""
    if not _SHORTEST <= len(word) <= 30 or not word.isalpha():
        return
    for at in range(1, len(word) - 1):
        head, tail = word[:at], word[at + 1 :]
        if word[at] != word[at + 1]:
            yield f"{head}{word[at + 1]}{word[at]}{word[at + 2 :]}"
        elif alone:
            yield head + tail
        if not alone or at > len(word) - 3:
            continue
        yield f"{head}{word[at]}{word[at]}{tail}"
        if len(word) >= _LONG:
            yield head + tail
            if word[at] in _VOWELS:
                yield from (f"{head}{vowel}{tail}" for vowel in _VOWELS if vowel != word[at])
