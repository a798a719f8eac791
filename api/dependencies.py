"""What routes ask for by type: the parts of the service, the caller, a project they may use."""

import uuid
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from api import access
from api.access import Principal
from api.erasure import Erasure
from api.errors import Refusal
from api.ingestion import Ingestion
from api.runs.engine import Runs
from api.settings import Settings
from graph.checkpoints import Threads
from graph.knowledge.library import Library
from graph.models import Models
from graph.pipeline import Pipeline
from graph.postgres import Pool
from graph.texts.texts import Texts


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that is opened at start and closed at the end, as the routes see it.

    `pipeline` remembers conversations, `forgetful_pipeline` does not.
    """

    settings: Settings
    pool: Pool
    texts: Texts
    library: Library
    models: Models
    threads: Threads
    pipeline: Pipeline
    forgetful_pipeline: Pipeline
    runs: Runs
    ingestion: Ingestion
    erasure: Erasure


async def get_parts(request: Request) -> Parts:
    """The parts of the service."""
    return cast(Parts, request.state.parts)


async def identify(
    parts: Annotated[Parts, Depends(get_parts)],
    api_key: Annotated[
        str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))
    ] = None,
) -> Principal:
    """The caller; refuses where credentials are missing or wrong."""
    return access.identify(parts.settings, api_key)


async def require_admin(caller: Annotated[Principal, Depends(identify)]) -> Principal:
    """The caller, who must be an admin."""
    if not caller.is_admin:
        raise Refusal(403, "forbidden", "This needs the role admin.")
    return caller


async def require_use(project_id: uuid.UUID, parts: "Service", caller: "Caller") -> uuid.UUID:
    """The project of the path, which the caller may use."""
    await access.require(parts.pool, caller, project_id, "use")
    return project_id


async def require_edit(project_id: uuid.UUID, parts: "Service", caller: "Caller") -> uuid.UUID:
    """The project of the path, which the caller may edit."""
    await access.require(parts.pool, caller, project_id, "edit")
    return project_id


async def require_full(project_id: uuid.UUID, parts: "Service", caller: "Caller") -> uuid.UUID:
    """The project of the path, with which the caller may do all."""
    await access.require(parts.pool, caller, project_id, "full")
    return project_id


Service = Annotated[Parts, Depends(get_parts)]
Caller = Annotated[Principal, Depends(identify)]
UsableProject = Annotated[uuid.UUID, Depends(require_use)]
EditableProject = Annotated[uuid.UUID, Depends(require_edit)]
OwnProject = Annotated[uuid.UUID, Depends(require_full)]
