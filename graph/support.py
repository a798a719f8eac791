"""Whether a source bears out what a sentence says, told by its words; no model is asked."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from graph.claims import is_claim, without_lead
from graph.contradictions import differs_in_force, swapped
from graph.sentences import LONGEST
from graph.source_text import SourceText, read_source
from graph.state import Source
from graph.words import Word, is_amount, is_number, negations, parts, words

PLAIN = 0.7
"""The share of a sentence's words, by weight, that a source must have to be cited unasked."""
BORNE_OUT = 0.55
"""The share that it must have to bear out a sentence that the model cites it for."""

_FEWEST_WORDS = 3
_FEWEST_NAMED = 2
_ANSWERS = 1 / 3
_WIDEST = 3
_WIDEST_UNASKED = 2
_WORDS_FOR_A_MISSING_ONE = 4
_COST_OF_WIDTH = 0.03


@dataclass(frozen=True, slots=True)
class Finding:
    """What the source with the number `index` (from 1) says to a claim.

    `quote`: its nearest words, word for word, `LONGEST` characters at most; "" for none.
    `share`: how much of the claim's words they hold, by weight, from 0 to 1.
    """

    index: int
    quote: str = ""
    supported: bool = False
    share: float = 0.0


class _Window(NamedTuple):
    """Adjacent sentences of a source (from 0); the best has the highest `value`."""

    source: int
    first: int
    last: int
    mask: int
    value: float

    @property
    def sentences(self) -> range:
        """Their numbers."""
        return range(self.first, self.last + 1)


class _Known(NamedTuple):
    """What a word is to the sources: `places` are the sentences of each that have it."""

    places: Mapping[int, Sequence[int]]
    weight: float
    is_amount: bool
    is_number: bool


class _Claim:
    """A claim's words, each once; bit n of a mask stands for word n.

    `held` tells which of the words each source has.
    """

    def __init__(self, text: str, known: Callable[[Word], _Known], source_count: int) -> None:
        self.text = without_lead(text)
        self._said = words(self.text)
        self.words = list({word.form: word for word in reversed(self._said)}.values())
        self.exact = self.amounts = self.numbers = 0
        self.held = [0] * source_count
        self._known = [(1 << at, known(word)) for at, word in enumerate(self.words)]
        self._masks: dict[int, dict[int, int]] = {}
        self._shares: dict[int, float] = {}
        self._weight = sum(word.weight for _, word in self._known)
        for word, (bit, told) in zip(self.words, self._known, strict=True):
            if word.exact:
                self.exact |= bit
                self.numbers |= bit * told.is_number
            if told.is_amount:
                self.amounts |= bit
            for source in told.places:
                self.held[source] |= bit

    @cached_property
    def negations(self) -> int:
        """How often it says "not"."""
        return negations(self.text)

    @property
    def forms(self) -> list[str]:
        """The forms of all its words, in order."""
        return [word.form for word in self._said]

    @property
    def is_short(self) -> bool:
        """Whether it says too little to be recognised without its question, such as "5 days"."""
        named = len(self.words) - self.amounts.bit_count()
        return len(self.words) < _FEWEST_WORDS or named < _FEWEST_NAMED

    def masks(self, source: int) -> dict[int, int]:
        """Which words the sentences of a source have, those that have any."""
        if source not in self._masks:
            masks = self._masks[source] = {}
            for bit, word in self._known:
                for at in word.places.get(source, ()):
                    masks[at] = masks.get(at, 0) | bit
        return self._masks[source]

    def share(self, mask: int) -> float:
        """How much of the claim the words in `mask` are, by weight."""
        if mask not in self._shares:
            held = sum(word.weight for bit, word in self._known if mask & bit)
            self._shares[mask] = held / self._weight
        return self._shares[mask]

    def misses_few(self, mask: int) -> bool:
        """Whether less than one word in four is missing in `mask`."""
        missing = len(self.words) - mask.bit_count()
        return missing * _WORDS_FOR_A_MISSING_ONE < len(self.words)

    def has_exact(self, mask: int) -> bool:
        """Whether no exact word is missing in `mask`."""
        return not self.exact & ~mask


class Evidence:
    """The sources of a turn; what was read lately is not read again."""

    def __init__(self, sources: Sequence[Source], question: str = "") -> None:
        """`question` is what the sentences to come answer. Blocks as `read_source` does."""
        self._sources = sources
        self._question = question
        self._texts = [read_source(source["text"]) for source in sources]
        self._total = sum(len(text.sentences) for text in self._texts)
        self._known: dict[tuple[str, bool], _Known] = {}

    def bearing_out(self, sentence: str) -> Finding | None:
        """The source that plainly bears out `sentence`; null if none does, or it is no claim.

        A sentence of few words ("5 days.") must answer the question from the place in the
        sources that is nearest to it.
        """
        if not self._total or not is_claim(sentence):
            return None
        claim = self._claim(sentence)
        if not any(claim.held):
            return None
        if claim.is_short:
            windows = [
                _Window(source, at, at, claim.masks(source).get(at, 0), 0)
                for source, at in self._asked
            ]
            least = 1.0
        else:
            windows = self._windows(claim)
            least = PLAIN
        found = (window for window in windows if self._supports(claim, window, least))
        return next((self._finding(claim, window, supported=True) for window in found), None)

    def judge(self, sentence: str, index: int) -> Finding:
        """What the source `index` says to `sentence`; what claims nothing counts as borne out."""
        if not is_claim(sentence) or not (claim := self._claim(sentence)).words:
            return Finding(index, supported=True)
        window = self._best(claim, index - 1, _WIDEST)
        if window is None:
            return Finding(index)
        return self._finding(claim, window, supported=self._supports(claim, window, BORNE_OUT))

    @cached_property
    def _asked(self) -> list[tuple[int, int]]:
        """The sentences that have most of the question, if that is a third of it or more."""
        asked = self._claim(self._question)
        shares = {
            (source, at): asked.share(mask)
            for source in range(len(self._texts))
            for at, mask in asked.masks(source).items()
        }
        least = max([_ANSWERS, *shares.values()])
        return sorted(place for place, share in shares.items() if share >= least)

    @cached_property
    def _given(self) -> list[frozenset[str]]:
        """The words of each source's title and of the question."""
        return [
            frozenset(
                word.form for word in words(f"{s['document_name']} {s['heading']} {self._question}")
            )
            for s in self._sources
        ]

    def _claim(self, sentence: str) -> _Claim:
        return _Claim(sentence, self._know, len(self._texts))

    def _know(self, word: Word) -> _Known:
        asked = (word.form, word.exact)
        known = self._known.get(asked)
        if known is None:
            places = self._places_of(word)
            having = sum(map(len, places.values()))
            # The fewer of all sentences have a word, the heavier it is.
            weight = 1 + math.log((self._total + 1) / (max(having, 1) + 1))
            known = _Known(places, weight, is_amount(word), is_number(word))
            self._known[asked] = known
        return known

    def _places_of(self, word: Word) -> Mapping[int, Sequence[int]]:
        """The sentences of each source that have the word, or all parts of the path that it is."""
        having = self._having(word.form)
        if having or not word.exact or not (path := parts(word.form)):
            return having
        each = [self._having(part) for part in path]
        common = {
            source: sorted(set.intersection(*(set(places.get(source, ())) for places in each)))
            for source in each[0]
        }
        return {source: places for source, places in common.items() if places}

    def _having(self, form: str) -> dict[int, Sequence[int]]:
        """The sentences of each source that have a form."""
        return {
            source: places
            for source, text in enumerate(self._texts)
            if (places := text.places.get(form))
        }

    def _windows(self, claim: _Claim) -> list[_Window]:
        """The best window of each source that may bear the claim out, the best first."""
        best = (
            self._best(claim, source, _WIDEST_UNASKED)
            for source, mask in enumerate(claim.held)
            # What a source has not, no window of it has.
            if claim.misses_few(mask) and claim.has_exact(mask)
        )
        windows = [window for window in best if window and claim.misses_few(window.mask)]
        return sorted(windows, key=lambda window: -window.value)

    def _best(self, claim: _Claim, source: int, widest: int) -> _Window | None:
        """The source's window that has most of the claim; null where it has no word of it."""
        best: _Window | None = None
        masks = claim.masks(source)
        for first, mask in masks.items():
            for last in range(first, first + widest):
                if last > first and mask == (mask := mask | masks.get(last, 0)):
                    continue
                value = claim.share(mask) + claim.has_exact(mask) - _COST_OF_WIDTH * (last - first)
                if best is None or value > best.value:
                    best = _Window(source, first, last, mask, value)
        return best

    def _finding(self, claim: _Claim, window: _Window, *, supported: bool) -> Finding:
        quote = self._quote(claim, window)
        return Finding(window.source + 1, quote, supported, claim.share(window.mask))

    def _quote(self, claim: _Claim, window: _Window) -> str:
        """The window's words if they are not too long, else its best part that is not."""
        text, masks = self._texts[window.source], claim.masks(window.source)
        fitting = []
        for first in window.sentences:
            mask = 0
            for last in range(first, window.last + 1):
                mask |= masks.get(last, 0)
                if text.sentences[last].end - text.sentences[first].start <= LONGEST:
                    fitting.append((claim.share(mask), first - last, -first))
        _, width, at = max(fitting)
        return text.words_of(-at, -at - width)

    def _supports(self, claim: _Claim, window: _Window, least: float) -> bool:
        return (
            claim.share(window.mask) >= least
            and claim.has_exact(window.mask)
            and self._knows_names(claim, window.source)
            and _binds_number(claim, window)
            and not _contradicts(claim, window, self._texts[window.source])
        )

    def _knows_names(self, claim: _Claim, source: int) -> bool:
        """Whether the source, its title or the question has all names of the claim."""
        return all(
            word.form in self._texts[source].places or word.form in self._given[source]
            for word in claim.words
            if word.name
        )


def _binds_number(claim: _Claim, window: _Window) -> bool:
    """Whether the claim's only number stands in the sentence that is most about the claim."""
    if claim.numbers.bit_count() != 1:
        return True
    masks = [claim.masks(window.source).get(at, 0) for at in window.sentences]
    about = [claim.share(mask & ~claim.amounts) for mask in masks]
    having = [share for mask, share in zip(masks, about, strict=True) if mask & claim.numbers]
    return max(having, default=0.0) == max(about)


def _contradicts(claim: _Claim, window: _Window, text: SourceText) -> bool:
    masks = claim.masks(window.source)
    main = max(window.sentences, key=lambda at: claim.share(masks.get(at, 0)))
    return (
        _turned_round(claim, text, main, window.sentences)
        or swapped(claim.forms, text.sentences[main].forms)
        or differs_in_force(claim.text, text.words_of(main, main))
    )


def _turned_round(claim: _Claim, text: SourceText, main: int, read: Sequence[int]) -> bool:
    """Whether a "not" stands in the claim and not in what is read, or the other way round."""
    if len(claim.words) == 1:
        return False
    if claim.negations > sum(text.sentences[at].negations for at in read):
        return True
    in_main = text.sentences[main]
    if claim.negations < in_main.negations and _is_denied(claim, text, [main]):
        return True
    if claim.negations == 0:
        return _is_denied(claim, text, read)
    negated = [word.form for word in claim.words if word.negated and text.has(word.form, main)]
    if negated:
        return in_main.negated.isdisjoint(negated)
    return in_main.negations != claim.negations


def _is_denied(claim: _Claim, text: SourceText, read: Sequence[int]) -> bool:
    """Whether what the claim affirms of a word is only negated in what is read."""
    negated = frozenset().union(*(text.sentences[at].negated for at in read))
    return any(
        word.form in negated
        and not (word.negated or word.exact)
        and all(word.form in text.sentences[at].negated for at in read if text.has(word.form, at))
        for word in claim.words
    )
