"""Makes all vectors anew from the chunks in Postgres, with progress in the terminal."""

import asyncio

from rich.console import Console
from rich.progress import Progress

from api.database.migrations import migrate
from api.server import told_as
from api.settings import Settings
from api.terminal import progress_on
from graph.knowledge.library import Library, open_library
from graph.knowledge.ownership import VectorsInUse
from graph.postgres import Pool, open_database, open_pool, rows_of

_SERVICE_RUNS = (
    "The service runs and has the vectors open. Stop it, run `archwright reindex` again, then "
    "start it."
)


class ReindexFailed(Exception):
    """The vectors cannot be made anew; the message is one line that says what to do."""


def rebuild_all(settings: Settings, console: Console) -> int:
    """Rebuild the vectors of every project; gives how many projects there are.

    It may be interrupted and repeated. Until a project's new vectors are whole, its old ones stay.

    Raises:
        ReindexFailed: a service has the embedded vectors open, or a part does not answer.
    """
    with told_as(ReindexFailed):
        try:
            projects = asyncio.run(_rebuild_all(settings, console))
        except VectorsInUse as error:
            raise ReindexFailed(_SERVICE_RUNS) from error
    return projects


async def _rebuild_all(settings: Settings, console: Console) -> int:
    async with open_database(settings) as url:
        await asyncio.to_thread(migrate, url)
        async with open_pool(url) as pool, open_library(settings, pool) as library:
            projects = await _projects(pool)
            with progress_on(console) as progress:
                for project_id, name in projects:
                    await _rebuild(library, project_id, name, progress)
    return len(projects)


async def _rebuild(library: Library, project_id: str, name: str, progress: Progress) -> None:
    bar = progress.add_task(name, total=None)

    def show(stage: str, done: int, total: int) -> None:
        progress.update(bar, description=f"{name}: {stage}", completed=done, total=total)

    await library.reindex(project_id, progress=show)
    progress.remove_task(bar)


async def _projects(pool: Pool) -> list[tuple[str, str]]:
    rows = await rows_of(pool, "select id, name from projects order by created_at")
    return [(str(row["id"]), row["name"]) for row in rows]
