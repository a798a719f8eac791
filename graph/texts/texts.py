"""The words of the service, wherever they come from: two folders, and edits in Postgres."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from graph.looks import Looks
from graph.postgres import Pool
from graph.texts.edits import Edits, Noted, Stamps
from graph.texts.files import Files, Snapshot
from graph.texts.paths import PROMPT_NAMES, prompt_path
from graph.texts.wording import NOTHING, Replacements, Text, TextSet, Wording

log = logging.getLogger(__name__)

_MOST_WORDINGS = 64


class Texts:
    """Gives each turn the words as they stand when it begins.

    Without a pool there are files only, and nothing is written or remembered.
    """

    def __init__(self, prompts_dir: Path, templates_dir: Path, pool: Pool | None = None) -> None:
        self._files = Files(prompts_dir, templates_dir)
        self._reading = Looks(partial(asyncio.to_thread, self._files.read))
        self._edits = Edits(pool) if pool is not None else None
        self._recorded: Snapshot | None = None
        self._made: dict[tuple[int, ...], tuple[Snapshot, Replacements, Replacements, Wording]] = {}

    async def wording(self, project_id: str | None = None, stamps: Stamps | None = None) -> Wording:
        """All texts as they count for a project, or for the whole service, at this moment.

        What is no project's id is taken for none. `stamps` are of this moment, where the caller
        has read them already.
        """
        files = await self._reading.see()
        if self._edits is None:
            return await self._wording(files, NOTHING, NOTHING)
        edits, own = await self._edits.of(_uuid(project_id), stamps)
        if files is not self._recorded:
            await self._edits.record(files.contents)
            self._recorded = files
        return await self._wording(files, edits, own)

    def files(self) -> Wording:
        """The files alone. Blocks."""
        return Wording(self._files.read())

    async def remember(self, sets: Iterable[TextSet], project_id: str | None) -> None:
        """Keep the texts of an answer, so that its versions can be read back.

        A set with a project's own text is kept for that project, and goes with it.
        """
        if self._edits is not None:
            await self._edits.remember(sets, _uuid(project_id))

    async def save(
        self,
        path: str,
        content: str | None,
        *,
        project_id: str | None = None,
        expected: str | None,
        author_id: uuid.UUID | None = None,
        check: Callable[[Wording], Awaitable[None]] | None = None,
        noted: Noted | None = None,
    ) -> Text | None:
        """Write `content` in place of what counts at `path`, or give what was written up with null.

        For the whole service, or as the project's own. `expected` is the version that the writer
        saw, null for none. `check` is given the words as they stand before, and refuses the edit
        by raising; no other edit comes between. `noted` is told of it in the transaction that
        writes it, and undoes it by raising. Gives what counts then.

        Raises:
            TextChanged: another version counts by now; nothing is written.
        """
        if self._edits is None:
            raise RuntimeError("without a database nothing can be edited")
        files = await asyncio.to_thread(self._files.read)

        async def checked(edits: Replacements, own: Replacements) -> None:
            assert check is not None
            await check(await self._wording(files, edits, own))

        return await self._edits.save(
            path,
            content,
            file=files.contents.get(path),
            project_id=_uuid(project_id),
            expected=expected,
            author_id=author_id,
            check=checked if check else None,
            noted=noted,
        )

    async def _wording(self, files: Snapshot, edits: Replacements, own: Replacements) -> Wording:
        """The same object where nothing has changed, so that a turn costs no parsing."""
        key = (id(files), id(edits), id(own))
        if key not in self._made:
            wording = await asyncio.to_thread(_made, files, edits, own)
            if len(self._made) >= _MOST_WORDINGS:
                self._made.clear()
            # With what it was made from, lest another object get the same id.
            self._made[key] = (files, edits, own, wording)
            return wording
        return self._made[key][-1]


def _made(files: Snapshot, edits: Replacements, own: Replacements) -> Wording:
    """A new view, whose faults the operator is told."""
    wording = Wording(files, edits, own)
    for path, problem in wording.problems.items():
        log.warning("%s %s, and is not used", path, problem)
    for prompt in PROMPT_NAMES:
        if (path := prompt_path(prompt)) not in {*wording.texts, *wording.problems}:
            log.warning("%s is missing, and is needed to ask the model", path)
    for name, problem in wording.faulty().items():
        log.warning("the document type %s is left out of lists: %s", name, problem)
    return wording


def _uuid(project_id: str | None) -> str | None:
    try:
        return str(uuid.UUID(project_id)) if project_id else None
    except ValueError:
        return None
