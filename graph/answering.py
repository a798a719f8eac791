"""An answer as it streams past: its tokens in portions, its markers, its end."""

import asyncio
from collections.abc import Sequence

from graph.citations import MarkerCheck
from graph.completions import Batch
from graph.events import FinishReason, TokensStreamed, Usage, Warned
from graph.marking import Check, Marking
from graph.state import Source
from graph.support import Evidence

MOST_TOKENS, MOST_CHARACTERS = 131_072, 1_000_000
"""Of one answer: as much as the largest models give. Some never come to an end by themselves."""
PORTION = 2_000
"""Characters that are looked at in one go: that takes some 20 ms, in which nobody else is served.

Some endpoints send a whole answer as one token.
"""

_CUT_SHORT: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


class Streamed:
    """The answer as far as it came, until it `is_full`.

    Nothing is changed: a marker in JSON would be a number.
    """

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._token_count = self._character_count = 0
        self.is_full = False
        self.rest: list[Batch] = []
        self.finish_reason: FinishReason = "stop"
        self.usage = Usage()

    async def prepare(self) -> None:
        """Wait for what `feed` needs."""

    def feed(self, batch: Batch) -> TokensStreamed | None:
        """The tokens of `batch`; null for an empty one.

        Of one with much text the first portion; the others are then in `rest`, the last one first.
        """
        tokens = list(filter(None, self._note(batch)))
        return self._streamed(tokens) if tokens else None

    def close(self) -> TokensStreamed | None:
        """What waited for more, at the answer's end; null for nothing."""
        return None

    def _streamed(self, tokens: Sequence[str], checks: tuple[Check, ...] = ()) -> TokensStreamed:
        self._tokens += tokens
        return TokensStreamed(tuple(tokens), checks)

    def _note(self, batch: Batch) -> Sequence[str]:
        """Its tokens, or those of its first portion."""
        size = sum(map(len, batch.tokens))
        if size > PORTION:
            batch, *rest = _portions(batch)
            self.rest = rest[::-1]
            size = sum(map(len, batch.tokens))
        if batch.usage:
            self.usage = Usage(batch.usage["input_tokens"], batch.usage["output_tokens"])
        if batch.finish_reason:
            self.finish_reason = _CUT_SHORT.get(batch.finish_reason, self.finish_reason)
        self._token_count += len(batch.tokens)
        self._character_count += size
        # Not every model comes to an end.
        if self._token_count >= MOST_TOKENS or self._character_count >= MOST_CHARACTERS:
            self.is_full = True
            self.finish_reason = "length"
        return batch.tokens

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._tokens)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What is odd about the finished answer."""
        if self.text.strip():
            return ()
        return (Warned("empty_answer", "The model came to its end without a word."),)


class Cited(Streamed):
    """An answer with markers that stand."""

    def __init__(self, sources: list[Source], question: str) -> None:
        super().__init__()
        self._check = MarkerCheck(len(sources))
        # In a thread, and while the model reads its prompt: hostile passages take tens of ms.
        self._evidence = asyncio.get_running_loop().run_in_executor(
            None, Evidence, sources, question
        )

    async def prepare(self) -> None:
        """Wait for the evidence."""
        self._marking = Marking(await self._evidence)

    def feed(self, batch: Batch) -> TokensStreamed | None:
        """The tokens of `batch`, with markers that stand; null for none. As in the base."""
        return self._marked(self._marking.feed(self._check.feed(self._note(batch))))

    def close(self) -> TokensStreamed | None:
        """What waited for more, with markers that stand; null for nothing."""
        return self._marked([*self._marking.feed(self._check.close()), *self._marking.close()])

    def _marked(self, tokens: Sequence[str]) -> TokensStreamed | None:
        return self._streamed(tokens, self._marking.checks()) if tokens else None


def _portions(batch: Batch) -> list[Batch]:
    """`batch` in several of at most `PORTION` characters; the last one has what is not text."""
    portions: list[list[str]] = []
    room = 0
    for token in batch.tokens:
        for at in range(0, len(token), PORTION):
            piece = token[at : at + PORTION]
            if len(piece) > room:
                portions.append([])
                room = PORTION
            portions[-1].append(piece)
            room -= len(piece)
    *others, last = portions
    return [*map(Batch, others), batch._replace(tokens=last)]
