"""Fits a prompt to a context window, and names what it cut."""

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from graph.errors import PromptTooLong
from graph.events import Warned
from graph.sanitizing import one_line
from graph.tokens import MOST_CHARACTERS, Count

# What stands around a message in a model's chat format, and joins blocks.
_OVERHEAD = 8
_SMALLEST_PART = 120
_LONGEST_LABEL = 200
_MOST_NAMED = 50
# After so many that were counted in vain only shorter ones are: each costs 0.1 ms.
_MOST_IN_VAIN = 1000


def answer_share(window: int) -> int:
    """The part of a context window that is kept for the answer: a quarter of it."""
    return window // 4


def most_characters(window: int) -> int:
    """How many characters a prompt can hold at most, whatever they are."""
    return (window - answer_share(window)) * MOST_CHARACTERS


@dataclass(frozen=True)
class Part:
    """A piece of a prompt that may be cut.

    `name` is its own, as a path, and `label` what a warning calls it. `wrap` puts the delimiters
    around its text, which count too.
    """

    name: str
    label: str
    text: str
    wrap: Callable[[str], str] = str

    @cached_property
    def block(self) -> str:
        """The text as it stands in the prompt."""
        return self.wrap(self.text)


class Budget:
    """What is left of a context window while a prompt is put together, the weightiest first."""

    def __init__(self, window: int, count: Count) -> None:
        self._left = window - answer_share(window)
        self._count = count
        self.warnings: list[Warned] = []

    def take(self, *texts: str) -> None:
        """Reserve room for what is never cut.

        Raises:
            PromptTooLong: it does not fit.
        """
        self._left -= sum(self._count(text) + _OVERHEAD for text in texts)
        if self._left < 0:
            raise PromptTooLong(
                "The message is too long for this model's context window. Shorten it by about "
                f"{-self._left} tokens, or choose a model with a larger window."
            )

    def fit(self, parts: Iterable[Part]) -> list[Part]:
        """Those of `parts` that still fit whole, in order; a warning names the others."""
        kept, left_out = self._whole(list(parts))
        self._warn("Left out", left_out.values())
        return list(kept.values())

    def fit_shortened(self, parts: Iterable[Part]) -> list[Part]:
        """As `fit`; then the first that did not fit is shortened into all the room that is left."""
        kept, left_out = self._whole(list(parts))
        at = next(iter(left_out), None)
        if at is not None and (start := self._start_of(left_out[at])):
            kept[at] = start
            self._left = 0
            self._warn("Shortened", [left_out.pop(at)])
        self._warn("Left out", left_out.values())
        return [kept[at] for at in sorted(kept)]

    def fit_newest(self, parts: list[Part], label: str) -> list[Part]:
        """The last of `parts`, as far back as they fit; a warning calls the others `label`."""
        at = len(parts)
        while at and self._fits(parts[at - 1]):
            at -= 1
        if at:
            self._warn("Left out", [Part("", f"the oldest {label}", "")])
        return parts[at:]

    def _whole(self, parts: list[Part]) -> tuple[dict[int, Part], dict[int, Part]]:
        """What fits whole and what does not, each by its place in `parts`."""
        kept: dict[int, Part] = {}
        left_out: dict[int, Part] = {}
        in_vain, shortest = 0, sys.maxsize
        for at, part in enumerate(parts):
            fits = (in_vain < _MOST_IN_VAIN or len(part.text) < shortest) and self._fits(part)
            (kept if fits else left_out)[at] = part
            if not fits and self._may_fit(part):
                in_vain, shortest = in_vain + 1, min(shortest, len(part.text))
        return kept, left_out

    def _may_fit(self, part: Part) -> bool:
        """Whether it takes counting to tell; much text is not counted where it is plain."""
        return len(part.text) <= self._left * MOST_CHARACTERS

    def _fits(self, part: Part) -> bool:
        """Reserve room for `part` if it fits, and say whether it did."""
        if not self._may_fit(part) or (cost := self._cost(part)) > self._left:
            return False
        self._left -= cost
        return True

    def _start_of(self, part: Part) -> Part | None:
        """As many whole lines from the start of `part` as there is room for, null for none."""
        if self._left < _SMALLEST_PART:
            return None
        text = part.text
        keep = self._left * MOST_CHARACTERS
        while text := text[: text.rfind("\n", 0, keep) + 1]:
            cost = self._cost(replace(part, text=text))
            if cost <= self._left:
                return replace(part, text=text)
            keep = min(len(text) * self._left // cost, len(text) - 1)
        return None

    def _cost(self, part: Part) -> int:
        return self._count(part.block) + _OVERHEAD

    def _warn(self, what: str, parts: Collection[Part]) -> None:
        named = [one_line(part.label, _LONGEST_LABEL) for part in islice(parts, _MOST_NAMED)]
        if len(parts) > len(named):
            named.append(f"{len(parts) - len(named)} more")
        if labels := ", ".join(named):
            message = f"{what} to fit the model's context window: {labels}."
            self.warnings.append(Warned("cut_to_fit", message))
