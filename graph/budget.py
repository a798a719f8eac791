"""Fits a prompt to a context window, and names what it cut."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from graph.errors import PromptTooLong
from graph.events import Warned

_MESSAGE_OVERHEAD = 8
_SMALLEST_PART = 120


def estimate_tokens(text: str) -> int:
    """How many tokens `text` has at most, near enough, for any usual tokenizer.

    Three ASCII characters, or one and a half bytes of anything else, are taken as one token:
    English prose has four to five characters a token, source code about three.
    """
    ascii_only = len(text.encode("ascii", "ignore"))
    other = len(text.encode("utf-8", "ignore")) - ascii_only
    return math.ceil(ascii_only / 3 + other / 1.5)


def answer_share(window: int) -> int:
    """The part of a context window that is kept for the answer: a quarter of it."""
    return window // 4


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt that may be cut.

    `label` is how a warning names it. A `divisible` part may be shortened, others are kept whole
    or left out.
    """

    label: str
    text: str
    divisible: bool = False


class Budget:
    """What is left of a context window while a prompt is put together, the weightiest first."""

    def __init__(self, window: int) -> None:
        self._left = window - answer_share(window)
        self.warnings: list[Warned] = []

    def take(self, *texts: str) -> None:
        """Reserve room for what is never cut.

        Raises:
            PromptTooLong: it does not fit.
        """
        self._left -= sum(estimate_tokens(text) + _MESSAGE_OVERHEAD for text in texts)
        if self._left < 0:
            raise PromptTooLong(
                "The message is too long for this model's context window. Shorten it by about "
                f"{-self._left} tokens, or choose a model with a larger window."
            )

    def fit(self, parts: Iterable[Part]) -> list[Part]:
        """Those of `parts` that still fit, in order; a warning names each that was cut."""
        fitted = (self._fit(part) for part in parts)
        return [part for part in fitted if part is not None]

    def fits(self, *texts: str) -> bool:
        """Reserve room for `texts` if they fit together, and say whether they did."""
        cost = sum(map(estimate_tokens, texts)) + _MESSAGE_OVERHEAD
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def warn(self, message: str) -> None:
        """Name something that was cut."""
        self.warnings.append(Warned("cut_to_fit", message))

    def _fit(self, part: Part) -> Part | None:
        if self.fits(part.text):
            return part
        room = self._left - _MESSAGE_OVERHEAD
        if part.divisible and room >= _SMALLEST_PART:
            return self._shorten(part, room)
        self.warn(f"{part.label} was left out to fit the model's context window.")
        return None

    def _shorten(self, part: Part, room: int) -> Part:
        keep = len(part.text) * room // estimate_tokens(part.text)
        while keep and estimate_tokens(part.text[:keep]) > room:
            keep = keep * 9 // 10
        self._left = 0
        self.warn(f"{part.label} was shortened to fit the model's context window.")
        return Part(part.label, part.text[:keep], divisible=True)
