"""Whether a source bears out what a sentence says, told by its words; no model is asked."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graph.claims import is_claim, without_lead
from graph.contradictions import differs_in_force, swapped
from graph.sentences import LONGEST, sentences
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


class _Sentence(NamedTuple):
    """A sentence of a source (from 0); `forms` tells which of its words are only negated."""

    source: int
    start: int
    end: int
    forms: dict[str, bool]
    negations: int


class _Window(NamedTuple):
    """Adjacent sentences of one source, `first` to `last`; the best has the highest `value`."""

    first: int
    last: int
    mask: int
    value: float


class _Claim:
    """A claim's words, each once; bit n of a mask stands for word n."""

    def __init__(self, text: str, places: Mapping[str, Sequence[int]], total: int) -> None:
        """`places`: which of the `total` sentences have a word."""
        text = without_lead(text)
        said = words(text)
        self.text = text
        self.negations = negations(text)
        self.forms = [word.form for word in said]
        self.words = list({word.form: word for word in reversed(said)}.values())
        self.exact = sum(1 << bit for bit, word in enumerate(self.words) if word.exact)
        self.amounts = sum(1 << bit for bit, word in enumerate(self.words) if is_amount(word))
        self.numbers = sum(1 << bit for bit, word in enumerate(self.words) if is_number(word))
        self.masks: dict[int, int] = {}
        self._weights: list[float] = []
        self._shares: dict[int, float] = {}
        for bit, word in enumerate(self.words):
            having = _places_of(word, places)
            # The fewer of all sentences have a word, the heavier it is.
            self._weights.append(1 + math.log((total + 1) / (max(len(having), 1) + 1)))
            for at in having:
                self.masks[at] = self.masks.get(at, 0) | 1 << bit

    @property
    def is_short(self) -> bool:
        """Whether it says too little to be recognised without its question, such as "5 days"."""
        named = len(self.words) - self.amounts.bit_count()
        return len(self.words) < _FEWEST_WORDS or named < _FEWEST_NAMED

    def mask(self, first: int, last: int) -> int:
        """Which words the sentences from `first` to `last` have."""
        mask = 0
        for at in range(first, last + 1):
            mask |= self.masks.get(at, 0)
        return mask

    def share(self, mask: int) -> float:
        """How much of the claim the words in `mask` are, by weight."""
        if mask not in self._shares:
            held = sum(weight for bit, weight in enumerate(self._weights) if mask >> bit & 1)
            self._shares[mask] = held / sum(self._weights)
        return self._shares[mask]

    def misses_few(self, mask: int) -> bool:
        """Whether less than one word in four is missing in `mask`."""
        missing = len(self.words) - mask.bit_count()
        return missing * _WORDS_FOR_A_MISSING_ONE < len(self.words)

    def has_exact(self, mask: int) -> bool:
        """Whether no exact word is missing in `mask`."""
        return not self.exact & ~mask


class Evidence:
    """The sources of a turn, read once: some 2 ms for 1 500 characters, so in a thread."""

    def __init__(self, sources: Sequence[Source], question: str = "") -> None:
        """`question` is what the sentences to come answer."""
        self._texts = [source["text"] for source in sources]
        self._sentences = [s for at, text in enumerate(self._texts) for s in _read(at, text)]
        self._places: dict[str, list[int]] = {}
        for at, sentence in enumerate(self._sentences):
            for form in sentence.forms:
                self._places.setdefault(form, []).append(at)
        self._asked = self._answering(question)
        self._given = [
            {word.form for word in words(f"{s['document_name']} {s['heading']} {question}")}
            for s in sources
        ]

    def bearing_out(self, sentence: str) -> Finding | None:
        """The source that plainly bears out `sentence`; null if none does, or it is no claim.

        A sentence of few words ("5 days.") must answer the question from the place in the
        sources that is nearest to it.
        """
        if not self._sentences or not is_claim(sentence):
            return None
        claim = self._claim(sentence)
        if not claim.masks:
            return None
        if claim.is_short:
            windows = [_Window(at, at, claim.masks.get(at, 0), 0) for at in self._asked]
            least = 1.0
        else:
            best = self._windows(claim, _WIDEST_UNASKED).values()
            windows = sorted(best, key=lambda window: -window.value)
            windows = [window for window in windows if claim.misses_few(window.mask)]
            least = PLAIN
        found = (window for window in windows if self._supports(claim, window, least))
        return next((self._finding(claim, window, supported=True) for window in found), None)

    def judge(self, sentence: str, index: int) -> Finding:
        """What the source `index` says to `sentence`; what claims nothing counts as borne out."""
        claim = self._claim(sentence)
        if not claim.words or not is_claim(sentence):
            return Finding(index, supported=True)
        window = self._windows(claim, _WIDEST).get(index - 1)
        if window is None:
            return Finding(index)
        return self._finding(claim, window, supported=self._supports(claim, window, BORNE_OUT))

    def _answering(self, question: str) -> list[int]:
        """The sentences that have most of the question, if that is a third of it or more."""
        asked = self._claim(question)
        shares = {at: asked.share(mask) for at, mask in asked.masks.items()}
        least = max([_ANSWERS, *shares.values()])
        return sorted(at for at, share in shares.items() if share >= least)

    def _claim(self, sentence: str) -> _Claim:
        return _Claim(sentence, self._places, len(self._sentences))

    def _windows(self, claim: _Claim, widest: int) -> dict[int, _Window]:
        """The window of each source that has most of the claim; none where it has no word."""
        best: dict[int, _Window] = {}
        for first in claim.masks:
            source = self._sentences[first].source
            for window in self._from(first, widest, claim):
                if source not in best or window.value > best[source].value:
                    best[source] = window
        return best

    def _from(self, first: int, widest: int, claim: _Claim) -> Iterator[_Window]:
        mask, source = 0, self._sentences[first].source
        for width in range(widest):
            last = first + width
            if last == len(self._sentences) or self._sentences[last].source != source:
                break
            mask |= claim.masks.get(last, 0)
            value = claim.share(mask) + claim.has_exact(mask) - _COST_OF_WIDTH * width
            yield _Window(first, last, mask, value)

    def _finding(self, claim: _Claim, window: _Window, *, supported: bool) -> Finding:
        source = self._sentences[window.first].source
        return Finding(source + 1, self._quote(claim, window), supported, claim.share(window.mask))

    def _quote(self, claim: _Claim, window: _Window) -> str:
        """The window's words if they are not too long, else its best part that is not."""
        ends = range(window.first, window.last + 1)
        runs = [(first, last) for first in ends for last in ends if first <= last]
        fitting = [
            (claim.share(claim.mask(first, last)), first - last, -first)
            for first, last in runs
            if self._sentences[last].end - self._sentences[first].start <= LONGEST
        ]
        _, width, at = max(fitting)
        return self._text(-at, -at - width)

    def _text(self, first: int, last: int) -> str:
        begin, end = self._sentences[first], self._sentences[last]
        return self._texts[begin.source][begin.start : end.end]

    def _supports(self, claim: _Claim, window: _Window, least: float) -> bool:
        return (
            claim.share(window.mask) >= least
            and claim.has_exact(window.mask)
            and self._knows_names(claim, window)
            and _binds_number(claim, window)
            and not self._contradicts(claim, window)
        )

    def _knows_names(self, claim: _Claim, window: _Window) -> bool:
        """Whether the source, its title or the question has all names of the claim."""
        source = self._sentences[window.first].source
        return all(
            word.form in self._given[source]
            or any(self._sentences[at].source == source for at in self._places.get(word.form, ()))
            for word in claim.words
            if word.name
        )

    def _contradicts(self, claim: _Claim, window: _Window) -> bool:
        read = range(window.first, window.last + 1)
        main = max(read, key=lambda at: claim.share(claim.masks.get(at, 0)))
        text = self._text(main, main)
        return (
            _turned_round(claim, self._sentences[main], [self._sentences[at] for at in read])
            or swapped(claim.forms, [word.form for word in words(text)])
            or differs_in_force(claim.text, text)
        )


def _read(source: int, text: str) -> Iterator[_Sentence]:
    for start, end in sentences(text):
        forms: dict[str, bool] = {}
        part = text[start:end]
        for word in words(part):
            for form in (word.form, *parts(word.form)):
                forms[form] = forms.get(form, True) and word.negated
        yield _Sentence(source, start, end, forms, negations(part))


def _places_of(word: Word, places: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """The sentences that have the word, or all parts of the path that it is."""
    if word.form in places or not word.exact:
        return places.get(word.form, ())
    having = [set(places.get(part, ())) for part in parts(word.form)]
    return sorted(set.intersection(*having)) if having else ()


def _binds_number(claim: _Claim, window: _Window) -> bool:
    """Whether the claim's only number stands in the sentence that is most about the claim."""
    if claim.numbers.bit_count() != 1:
        return True
    masks = [claim.masks.get(at, 0) for at in range(window.first, window.last + 1)]
    about = [claim.share(mask & ~claim.amounts) for mask in masks]
    having = [share for mask, share in zip(masks, about, strict=True) if mask & claim.numbers]
    return max(having, default=0.0) == max(about)


def _turned_round(claim: _Claim, main: _Sentence, read: Sequence[_Sentence]) -> bool:
    """Whether a "not" stands in the claim and not in what is read, or the other way round."""
    if len(claim.words) == 1:
        return False
    if claim.negations > sum(sentence.negations for sentence in read):
        return True
    affirmed = [word for word in claim.words if not word.negated]
    if claim.negations < main.negations and any(_only_negated(word, [main]) for word in affirmed):
        return True
    if claim.negations == 0:
        return any(_only_negated(word, read) for word in affirmed)
    negated = [word for word in claim.words if word.negated and word.form in main.forms]
    if negated:
        return not any(main.forms[word.form] for word in negated)
    return main.negations != claim.negations


def _only_negated(word: Word, read: Sequence[_Sentence]) -> bool:
    having = [sentence for sentence in read if word.form in sentence.forms]
    return bool(having) and not word.exact and all(s.forms[word.form] for s in having)
