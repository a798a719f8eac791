"""Checks that a draft uses the names of the domain language, and as they are defined there."""

import re
from collections.abc import Iterator, Sequence

from graph.checks.findings import Finding, gathered
from graph.checks.language import Definition, Language, definitions_in, is_definition, language_of
from graph.checks.nouns import Nouns
from graph.checks.outline import Outline, Prose
from graph.checks.phrases import Match, Word, is_name_of_code, is_quoted, word_set, words_of
from graph.sanitizing import one_line
from graph.words import is_number, words

# The first is what the language is drawn from, in the words of those who asked for the project.
_FREE_TYPES = frozenset(["PROJECT_MANIFESTO", "DOMAIN_LANGUAGE"])
_GLOSSARY = re.compile(
    r"\b(?:glossary|terms?|terminology|definitions?|vocabulary|language)\b", re.I
)
_DEFINES = re.compile(
    r"[*_\"”]{0,4}[ \t]{0,3}(:|[–—][ ]|means\b|is defined as\b|denotes\b|stands for\b)[*_]{0,3}"
    r"\s{0,3}([^\n][^\0]{0,300})"
)
_FUNCTION_WORDS = word_set(
    "is are was were be has have had must may can will shall should does do of for to and or in on"
    " at by with from that which who when if as than not but so while until before after"
)
_AMOUNT = re.compile(r"(?<![\w.,-])(\d[\d.,]*\d|\d)[ %]{1,2}([a-z]+)", re.IGNORECASE)
_SAME = 0.2
_FEWEST_WORDS = 3


def domain_language_findings(outline: Outline, kind: str, language_text: str) -> list[Finding]:
    """Words to avoid, terms defined otherwise, and terms written wrongly, in a draft of a type."""
    if kind in _FREE_TYPES:
        return []
    language = language_of(language_text)
    found = [*_redefined_in_tables(outline, language)]
    for prose in outline.prose:
        in_prose = words_of(prose.text)
        terms = list(language.terms.find(in_prose))
        found += _avoided(prose, in_prose, terms, language, kind)
        found += _redefined(prose, in_prose, terms)
        found += _hyphenated(prose, in_prose, terms)
        found += _misspelt(prose, in_prose, language)
    return gathered(found)


def _avoided(
    prose: Prose,
    in_prose: Sequence[Word],
    terms: Sequence[Match[Definition]],
    language: Language,
    kind: str,
) -> Iterator[Finding]:
    found = list(language.avoided.find(in_prose))
    if not found or is_definition(prose.column):
        return
    of_terms = {at for match in terms for at in range(match.first, match.last)}
    nouns = Nouns(prose, in_prose, kind)
    for match in found:
        if match.first in of_terms or not nouns.names_a_thing(match):
            continue
        word, instead = match.value
        message = (
            f"The domain language avoids {_lowered(word)!r}: write {_lowered(instead)!r} instead."
        )
        yield Finding("avoided_word", message, prose.line_at(in_prose[match.first].start))


def _redefined_in_tables(outline: Outline, language: Language) -> Iterator[Finding]:
    for here in definitions_in(outline):
        for match in language.terms.find(words_of(here.term)):
            whole = match.last - match.first == len(words_of(here.term))
            if whole and _differ(match.value, here.meaning, _SAME):
                yield _redefinition(match.value, here.line)


def _redefined(
    prose: Prose, in_prose: Sequence[Word], terms: Sequence[Match[Definition]]
) -> Iterator[Finding]:
    if prose.kind == "cell":
        return
    for match in terms:
        start, end = in_prose[match.first].start, in_prose[match.last - 1].end
        defined = _DEFINES.match(prose.text, end)
        before = prose.text[max(start - 8, 0) : start]
        if defined is None or not _begins(before, sentence=defined[1][0].isalpha()):
            continue
        same = _least_share(prose, defined, before)
        if same and _differ(match.value, defined[2], same):
            yield _redefinition(match.value, prose.line_at(start))


def _least_share(prose: Prose, defined: re.Match[str], before: str) -> float:
    """How much a definition must have in common with ours; 0 where the text defines nothing."""
    if defined[1][0].isalpha() or (prose.headings and _GLOSSARY.search(prose.headings[-1])):
        return _SAME
    in_bold = before.endswith(("**", "__"))
    says_what = defined[2].casefold().startswith(("a ", "an ", "one ", "any "))
    return 0.01 if in_bold and says_what else 0


def _begins(before: str, *, sentence: bool) -> bool:
    words_before = before.casefold().replace("*", "").replace("_", "").strip(' \n"“')
    if words_before in ("", "a", "an", "the"):
        return True
    return sentence and words_before.removesuffix(" a").removesuffix(" the").endswith((".", ":"))


def _differ(ours: Definition, theirs: str, same: float) -> bool:
    """Whether `theirs` has little in common with our definition, or other amounts."""
    theirs = theirs.split("\n\n", 1)[0]
    own = {word.form for word in words(ours.term)}
    one = {word.form for word in words(ours.meaning)} - own
    other = {word.form for word in words(theirs)} - own
    if len(other) < _FEWEST_WORDS or not one:
        return False
    if len(one & other) / min(len(one), len(other)) < same:
        return True
    amounts, others = _amounts(ours.meaning), _amounts(theirs)
    return any(others[unit].isdisjoint(amounts[unit]) for unit in amounts.keys() & others.keys())


def _amounts(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for number, unit in _AMOUNT.findall(text):
        forms = [word.form for word in words(unit) if not is_number(word)]
        for form in forms:
            found.setdefault(form, set()).add(number)
    return found


def _redefinition(ours: Definition, line: int) -> Finding:
    message = (
        f"{ours.term!r} is defined otherwise in the domain language:"
        f" {one_line(ours.meaning, 200).rstrip('.')}. Use that definition, or change it there."
    )
    return Finding("redefined_term", message, line)


def _hyphenated(
    prose: Prose, in_prose: Sequence[Word], terms: Sequence[Match[Definition]]
) -> Iterator[Finding]:
    for match in terms:
        found = in_prose[match.first : match.last]
        start, end = found[0].start, found[-1].end
        shown = prose.text[start:end]
        if "-" not in shown or "-" in match.value.term or is_name_of_code(prose.text, start, end):
            continue
        if prose.text[start - 1 : start] == "-" or prose.text[end : end + 1] == "-":
            continue
        plural = found[-1].text.casefold() != found[-1].form
        if plural or not _before_a_noun(prose, in_prose, match.last):
            yield _misspelling(shown, match.value.term, prose.line_at(start))


def _before_a_noun(prose: Prose, in_prose: Sequence[Word], after: int) -> bool:
    """As in "a pick-list page", where the hyphen is good English."""
    if after == len(in_prose) or in_prose[after].text.casefold() in _FUNCTION_WORDS:
        return False
    return not prose.text[in_prose[after - 1].end : in_prose[after].start].strip(" \n*_")


def _misspelt(prose: Prose, in_prose: Sequence[Word], language: Language) -> Iterator[Finding]:
    for word in in_prose:
        if word.form not in language.misspelt or word.text.casefold() in language.words:
            continue
        camel = not word.text.isupper() and not word.text[1:].islower()
        if camel or is_name_of_code(prose.text, word.start, word.end):
            continue
        if not is_quoted(prose.text, word.start, word.end):
            yield _misspelling(word.text, language.misspelt[word.form], prose.line_at(word.start))


def _misspelling(shown: str, term: str, line: int) -> Finding:
    message = (
        f"{_lowered(shown)!r} is written {_lowered(term)!r} in the domain language; write it so."
    )
    return Finding("misspelt_term", message, line)


def _lowered(text: str) -> str:
    """`text` with its first letter small, unless the first word is an abbreviation."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
