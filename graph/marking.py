"""Judges the markers of an answer while it streams, and adds those that the model left out."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from graph.prose import Prose, Step
from graph.support import Evidence, Finding

By = Literal["model", "service"]


@dataclass(frozen=True, slots=True)
class Check:
    """A marker, who set it, and what its source says to the sentence before it."""

    finding: Finding
    by: By


class Marking:
    """Adds ` [n]` to a sentence that a source plainly bears out and the model left unmarked.

    The marker is a token of its own, behind the sentence's end mark; where there is none, at the
    end of the item, the paragraph or the answer. What the model marked is left alone, and so are
    code, headings and tables. Only the gap behind a sentence that is to be marked waits, until
    it is clear that the model sets no marker there. Other tokens leave as they came; one in
    whose middle a marker goes is parted. Where they are cut changes nothing in the text.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._prose = Prose()
        self._checks: list[Check] = []
        self._findings: dict[tuple[str, int], Finding] = {}
        self._due: Finding | None = None
        self._gap = 0
        self._space = " "
        self._held: list[str] = []
        self._last = ""

    def feed(self, tokens: Sequence[str]) -> list[str]:
        """Take the next tokens, each marker whole in one of them; give those that may leave."""
        text = "".join(tokens)
        if self._due is None and self._prose.skip(text):
            self._last = text[-1:] or self._last
            return list(tokens)
        return self._follow(self._prose.read(text), tokens)

    def close(self) -> list[str]:
        """Give what still waits, once the model has ended."""
        return self._follow(self._prose.close(), [])

    def checks(self) -> tuple[Check, ...]:
        """What was found about the markers that left since the last call."""
        if not self._checks:
            return ()
        checks, self._checks = tuple(self._checks), []
        return checks

    def _follow(self, steps: Iterable[Step], tokens: Sequence[str]) -> list[str]:
        """Let the tokens go as the steps, which begin behind what is held, allow."""
        out: list[str] = []
        batch = _Batch([*self._held, *tokens])
        begin = sum(map(len, self._held))
        for step, at in steps:
            if step == "marker":
                self._checks.append(Check(self._judged(), "model"))
            elif step == "ended":
                self._weigh(batch.text, begin + at)
            elif self._due:
                out += self._settle(self._due if step == "free" else None, batch, begin + at)
        if self._due:
            out += batch.up_to(self._gap)
            self._gap = 0
            self._held = batch.rest()
        else:
            out += batch.rest()
            self._held = []
        self._last = batch.text[-1:] or self._last
        return out

    def _judged(self) -> Finding:
        asked = (self._prose.claim, self._prose.number)
        if asked not in self._findings:
            self._findings[asked] = self._evidence.judge(*asked)
        return self._findings[asked]

    def _weigh(self, text: str, at: int) -> None:
        """Look for a source for the sentence that ended at `at`; the gap behind it waits then."""
        sentence = self._prose.sentence
        if not self._prose.marked and not sentence.rstrip().endswith(":"):
            self._due = self._evidence.bearing_out(sentence)
            self._gap = at
            before = text[at - 1] if at else self._last
            self._space = "" if before.isspace() else " "

    def _settle(self, finding: Finding | None, batch: "_Batch", at: int) -> list[str]:
        """What leaves now that the gap, which ends at `at`, gets a marker or gets none."""
        self._due = None
        if finding is None:
            return [] if batch.in_one_token(self._gap, at) else batch.up_to(self._gap)
        self._checks.append(Check(finding, "service"))
        return [*batch.up_to(self._gap), f"{self._space}[{finding.index}]"]


class _Batch:
    """Tokens that leave up to places in their text; a token that goes on there is parted."""

    def __init__(self, tokens: list[str]) -> None:
        self.text = "".join(tokens)
        self._tokens = tokens
        self._ends = list(accumulate(map(len, tokens)))
        self._next = 0
        self._left = 0

    def in_one_token(self, place: int, other: int) -> bool:
        """Whether the characters at both places came in the same token."""
        return bisect_right(self._ends, place) == bisect_right(self._ends, other)

    def up_to(self, place: int) -> list[str]:
        """What has not left yet and stands before `place`."""
        first, self._next = self._next, bisect_right(self._ends, place)
        leaving = self._tokens[first : self._next]
        begin = max(self._left, self._ends[self._next - 1] if self._next else 0)
        if place > begin:
            token = self._tokens[self._next]
            leaving.append(token[: place - begin])
            self._tokens[self._next] = token[place - begin :]
        self._left = place
        return leaving

    def rest(self) -> list[str]:
        """What has not left yet."""
        return self._tokens[self._next :]
