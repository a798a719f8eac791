"""When what of a run happened, and how it ended: for those who watch runs from outside."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from api.origins import ORIGIN, Origin
from api.runs.accounts import Spent
from api.runs.rows import RunRow
from graph.events import Answer, Event, Step, StepFinished, TokensStreamed

log = logging.getLogger(__name__)


class StepTaken(NamedTuple):
    """A step that came to its end, `ms` after it had begun."""

    step: Step
    ms: float
    ended_ns: int


@dataclass(slots=True)
class Course:
    """When a run began, and what happened since; times are nanoseconds since 1970.

    `wrote_ns`: when it turned to the model. `over_ns`: when its answer was there, or it failed.
    What did not happen has no time.
    """

    origin: Origin | None = field(default_factory=ORIGIN.get)
    began_ns: int = field(default_factory=time.time_ns)
    steps: list[StepTaken] = field(default_factory=list)
    wrote_ns: int | None = None
    first_token_ns: int | None = None
    over_ns: int | None = None

    @classmethod
    def unseen(cls, row: RunRow) -> Self:
        """Of a run whose process is gone: nothing is known but when it began."""
        return cls(origin=None, began_ns=round(row.started_at.timestamp() * 1e9))

    def note(self, event: Event) -> None:
        """Note when it happened, if it is one of those of which that is wanted."""
        if isinstance(event, TokensStreamed):
            self.first_token_ns = self.first_token_ns or time.time_ns()
        elif isinstance(event, StepFinished):
            self.steps.append(StepTaken(event.step, event.ms, time.time_ns()))
        else:
            self.wrote_ns = self.wrote_ns or time.time_ns()

    def end(self) -> None:
        """Note that all is there but for the storing."""
        self.over_ns = time.time_ns()


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended, as its readers were told, and what it used."""

    row: RunRow
    answer: Answer
    spent: Spent
    course: Course

    @property
    def error_code(self) -> str | None:
        """The code that its API told; null where it did not fail."""
        if self.row.error is None:
            return None
        # In the chat API the code is the message, and the sentence the detail.
        return str(self.row.error.get("code") or self.row.error["message"])


Watch = Callable[[Ended], None]
"""Is told of each run that has ended, by the process that ended it. Must not wait for anything."""


class Watchers:
    """Several who watch runs; what goes wrong with one is nothing to the run."""

    def __init__(self, *watchers: Watch) -> None:
        self._watchers = watchers

    def __call__(self, ended: Ended) -> None:
        """Tell all of them."""
        for watch in self._watchers:
            try:
                watch(ended)
            except Exception:
                log.exception("what became of run %s could not be noted", ended.row.id)
