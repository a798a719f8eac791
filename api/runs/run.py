"""A run as the process sees it that works on it."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from api.runs.course import Course
from api.runs.dialects import Dialect
from api.runs.log import RunLog
from api.runs.rows import RunRow, Shown
from api.runs.starts import Start
from api.runs.stored_log import Batch
from api.wire import Frame
from graph.checkpoints import Saved
from graph.events import Event, PromptComposed, SourcesFound
from graph.run import Stop
from graph.state import Source


@dataclass(slots=True)
class Run:
    """One execution of the pipeline.

    `sources` are the passages that it showed. `documents` are those that they are of, names by
    id, until that is noted in its row.
    `in_doubt`: some of its log was sent to the database, which did not say that it is stored.
    """

    row: RunRow
    dialect: Dialect
    start: Start | None = None
    log: RunLog = field(default_factory=RunLog)
    stop: Stop = field(default_factory=Stop)
    sources: Sequence[Source] = ()
    documents: dict[str, str] = field(default_factory=dict)
    course: Course = field(default_factory=Course)
    checkpoint: Saved | None = None
    in_doubt: bool = False
    readers: int = 0
    was_followed: bool = False
    task: asyncio.Task[None] = field(init=False)

    @property
    def id(self) -> uuid.UUID:
        """The run's id."""
        return self.row.id

    async def emit(self, event: Event) -> None:
        """Append an event to the log, in the dialect that the run was started with.

        Waits where the log is too far ahead of what is stored of it.
        """
        self.course.note(event)
        if isinstance(event, PromptComposed):
            self.has_started()
        if isinstance(event, SourcesFound):
            self.sources = event.sources
            self.documents = {
                s["document_id"]: s["document_name"] for s in event.sources if s["document_id"]
            }
        if frames := self.dialect(event):
            self.log.append(frames)
            if self.log.is_ahead:
                await self.log.room()

    def put(self, saved: Saved) -> None:
        """Take the checkpoint that is to be stored with its end."""
        self.checkpoint = saved

    def has_started(self) -> None:
        """Make room for others to start: what is to be done before the model is asked is done."""
        if self.start:
            self.start.leave()

    @property
    def web_sources(self) -> list[Source]:
        """What it found in the web."""
        return [source for source in self.sources if source["url"]]

    def shown(self) -> Shown | None:
        """The documents whose passages it showed, as far as that is not noted; null for none."""
        if not (self.documents and self.row.project_id):
            return None
        names = list(self.documents.values())
        return Shown(self.id, self.row.project_id, list(self.documents), names)

    def whole_log(self, frames: Sequence[Frame], first: int) -> list[Batch]:
        """All that it said, and the last `frames`, of which the first has number `first`."""
        said = self.log.frames
        if first == len(said) + 1:
            return [Batch(self.id, 1, [*said, *frames])]
        last = Batch(self.id, first, frames)
        return [Batch(self.id, 1, said), last] if said else [last]
