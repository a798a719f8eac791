"""Tells whether an avoided word is used as the name of a thing of the domain.

Most words to avoid are ordinary English ("lost", "request", "box"): as a verb, or where they
name a thing of computing, they are no slip. Of two readings the harmless one counts.
"""

import re
from collections.abc import Sequence
from typing import Any

from graph.checks.outline import MASK, Prose
from graph.checks.phrases import Match, Signs, Word, is_name_of_code, is_quoted, word_set
from graph.checks.technologies import technologies_in

_LEADS = word_set(
    "a an the this that these those each every any some no one two three his her its their our"
    " your my all both another which what many few several more most such"
)
_PREPOSITIONS = word_set(
    "of for with in on by from into as between without after before at via per about than"
)
_OBJECTS = word_set(
    "a an the this that these those it them him her us me you his its their our your my"
)
_BEFORE_VERBS = word_set(
    "to can could may might must shall should will would do does did not never cannot is are was"
    " were be been being has have had who that which they we you he she it i staff people and or"
    " then also only always"
)
_PARTICIPLES = word_set("lost sent held kept made done gone found built bought sold paid")

_COMPUTING = word_set(
    "request response message event record object user client server session account table field"
    " file job task list page form key value token delivery service process resource model"
    " view type class package queue log command query call state status entry element link note"
    " container image build branch release version role group job batch run test"
)
_COMPUTING_SIGNS = re.compile(
    r"\b(?:https?|apis?|rest|json|endpoints?|headers?|body|bodies|[1-5]\d\d|timeouts?|latency"
    r"|throughput|per second|servers?|proxy|middleware|tokens?|payloads?|(?-i:GET|POST|PUT|PATCH)"
    r"|(?-i:DELETE)|pipelines?|deploy\w*|rollback|css|dom|pixels?|px|layout|margin|padding|borders?"
    r"|broker|queue|webhooks?|retr(?:y|ies)|idempoten\w*|urls?|browsers?|sign-on|log(?:s|ged)?"
    r"|schema|sql|review(?:s|ed|er|ers)?|merg\w+|commits?|continuous|software)\b",
    re.IGNORECASE,
)
_COMPUTING_TYPES = word_set(
    "API_INTERFACE_CONTRACT DEPLOYMENT_INFRASTRUCTURE CI_CD_PIPELINE CONTRIBUTING RULES AGENTS"
    " SECURITY_THREAT_MODEL TECH_STACK TECH_STACK_DECISION PROJECT_STRUCTURE_MAP"
)
# A cell has at most so many characters beside the word that it holds.
_MARKUP = 10
_COMPOUNDS = {
    "request": "pull merge feature change web access",
    "box": "text check list combo dialog search bounding black model shadow",
    "delivery": "continuous software email message event project date plan",
    "book": "run log address cook",
    "batch": "job process processing size",
    "game": "client console design engine server",
    "order": "in alphabetical sort right wrong reverse ascending descending",
}


class Nouns:
    """Judges the words of one text, in a document of the type `kind`."""

    def __init__(self, prose: Prose, words: Sequence[Word], kind: str) -> None:
        self._prose = prose
        self._words = words
        self._signs = Signs(prose.text, _COMPUTING_SIGNS)
        self._technologies = {named.end for named in technologies_in(prose)}
        titles = [prose.column, *prose.headings[1:]]
        self._of_computing = kind in _COMPUTING_TYPES or any(
            _COMPUTING_SIGNS.search(title) for title in titles
        )

    def names_a_thing(self, match: Match[Any]) -> bool:
        """Whether the words of `match` name a thing of the domain."""
        words, text = self._words, self._prose.text
        start, end = words[match.first].start, words[match.last - 1].end
        if is_name_of_code(text, start, end) or is_quoted(text, start, end):
            return False
        if text[start - 1 : start] == "-" or text[end : end + 1] == "-":
            return False
        if match.last - match.first > 1:
            return True
        word = words[match.first]
        is_alone = end - start > len(text) - _MARKUP and text.strip(f" *_.:{MASK}") == word.text
        return not self._is_of_computing(match.first) and (
            is_alone or _is_noun(text, words, match.first)
        )

    def _is_of_computing(self, at: int) -> bool:
        word = self._words[at]
        around = {one.form for one in self._words[max(at - 1, 0) : at + 2]}
        if [one.form for one in self._words[max(at - 3, 0) : at]] == ["out", "of", "the"]:
            return True
        if around & set(_COMPOUNDS.get(word.form, "").split()):
            return True
        return word.form in _COMPUTING and (
            self._of_computing or self._signs.near(word.start) or self._is_of_technology(word)
        )

    def _is_of_technology(self, word: Word) -> bool:
        """As in "a React 19 client"."""
        before = self._prose.text[max(word.start - 12, 0) : word.start]
        return word.start - len(before) + len(before.rstrip(" .*_0123456789")) in self._technologies


def _is_noun(text: str, words: Sequence[Word], at: int) -> bool:
    word, before, after = words[at], _beside(text, words, at, -1), _beside(text, words, at, 1)
    participle = word.form in _PARTICIPLES or word.form.endswith("ed")
    if before and word.text[0].isupper() and not word.text.isupper():
        return not (after and after[:1].isupper())
    before, after = before.casefold(), after.casefold()
    if participle:
        return before in _LEADS and bool(after) and after not in _PREPOSITIONS
    if before in _LEADS or before in _PREPOSITIONS or before.isdigit() or before == "s":
        return after not in _OBJECTS
    if after in _OBJECTS or before in _BEFORE_VERBS:
        return False
    plural = word.text.casefold() != word.form
    if not before:
        return plural
    second = _beside(text, words, at - 1, -1).casefold()
    return second in _LEADS or second in _PREPOSITIONS or second.isdigit() or second == "s"


def _beside(text: str, words: Sequence[Word], at: int, step: int) -> str:
    """The word before or after, if only spaces and emphasis stand between; else ""."""
    other = at + step
    if not 0 <= other < len(words) or not 0 <= at < len(words):
        return ""
    first, second = sorted((words[at], words[other]), key=lambda word: word.start)
    between = text[first.end : second.start]
    return words[other].text if not between.strip(" \n*_'’") else ""
