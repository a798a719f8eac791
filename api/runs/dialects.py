"""How an API names the events of a run: made anew wherever a run is told of."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast

from api.wire import Frame
from graph.events import Event, Failed, Terminal
from graph.state import UNSORTED

Api = Literal["chat", "drafting", "legacy"]
"""Which API a run was started with."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the events of a run say of it. `model`: the one chosen before it began.

    `may_change`: that model has a fallback, so it is not certain which of them answers.
    """

    run_id: uuid.UUID
    conversation_id: uuid.UUID | None = None
    doc_type: str = UNSORTED
    model: str = ""
    may_change: bool = False


class Dialect(Protocol):
    """How an API names the events of one run. Has a memory, so each run needs its own."""

    token: ClassVar[tuple[str, str]]
    """The name of the event that brings a token, and the key under which it stands there."""

    def opening(self) -> Sequence[Frame]:
        """What is sent before the run begins."""

    def __call__(self, event: Event) -> Sequence[Frame]:
        """The frames of `event`; none for what the API does not tell."""


Dialects = Mapping[Api, Callable[[Told], Dialect]]


def text_of(dialect: Dialect, frames: Sequence[Frame]) -> list[str]:
    """The tokens that `frames` brought."""
    name, key = dialect.token
    return [json.loads(data)[key] for event, data in frames if event == name]


def error_of(terminal: Terminal, frames: Sequence[Frame]) -> dict[str, Any] | None:
    """The data of the error event that ends `frames`; null if the run did not fail."""
    if not isinstance(terminal, Failed):
        return None
    return cast("dict[str, Any]", json.loads(frames[-1][1]))
