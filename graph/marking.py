"""Judges the markers of an answer while it streams, and adds those that the model left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
        self._out: list[str] = []
        self._held: list[str] = []
        self._token = ""
        self._sent = 0
        self._gap: int | None = None
        self._last = ""
        self._space = " "

    def feed(self, tokens: Sequence[str]) -> list[str]:
        """Take the next tokens, each marker whole in one of them; give those that may leave."""
        text = "".join(tokens)
        if self._due is None and self._prose.skip(text):
            self._last = text[-1:] or self._last
            return list(tokens)
        for token in tokens:
            self._token, self._sent, self._gap = token, 0, None
            self._follow(self._prose.read(token))
            self._end_token()
        return self._leaving()

    def close(self) -> list[str]:
        """Give what still waits, once the model has ended."""
        self._token, self._sent, self._gap = "", 0, None
        self._follow(self._prose.close())
        return self._leaving()

    def checks(self) -> tuple[Check, ...]:
        """What was found about the markers that left since the last call."""
        checks, self._checks = tuple(self._checks), []
        return checks

    def _follow(self, steps: Iterable[Step]) -> None:
        for step, at in steps:
            if step == "marker":
                self._checks.append(Check(self._judged(), "model"))
            elif step == "ended":
                self._weigh(at)
            elif self._due:
                self._settle(self._due if step == "free" else None)

    def _judged(self) -> Finding:
        asked = (self._prose.claim, self._prose.number)
        if asked not in self._findings:
            self._findings[asked] = self._evidence.judge(*asked)
        return self._findings[asked]

    def _weigh(self, at: int) -> None:
        """Look for a source for the sentence that ended at `at`; the gap behind it waits then."""
        sentence = self._prose.sentence
        if not self._prose.marked and not sentence.rstrip().endswith(":"):
            self._due = self._evidence.bearing_out(sentence)
            self._gap = at
            before = self._token[at - 1] if at else self._last
            self._space = "" if before.isspace() else " "

    def _settle(self, finding: Finding | None) -> None:
        """Let the gap go, with a marker before it if there is a finding."""
        self._due = None
        if finding:
            if self._gap is not None:
                self._leave(self._token[self._sent : self._gap])
                self._sent = self._gap
            self._leave(f"{self._space}[{finding.index}]")
            self._checks.append(Check(finding, "service"))
        self._out += self._held
        self._held = []

    def _end_token(self) -> None:
        if self._due is None:
            self._leave(self._token[self._sent :])
        elif self._gap is None:
            self._held.append(self._token[self._sent :])
        else:
            self._leave(self._token[self._sent : self._gap])
            self._held.append(self._token[self._gap :])
        self._last = self._token[-1:] or self._last

    def _leave(self, text: str) -> None:
        if text:
            self._out.append(text)

    def _leaving(self) -> list[str]:
        out, self._out = self._out, []
        return out
