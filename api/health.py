"""Whether the parts of the service answer."""

import asyncio
import logging
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.access.rules import GuardedRoute, open_to_all
from api.dependencies import Parts, Service
from api.errors import DRAFTING_PREFIX

router = APIRouter(tags=["service"], route_class=GuardedRoute, dependencies=[Depends(open_to_all)])

log = logging.getLogger(__name__)

State = Literal["OK", "ERROR"]
_PATIENCE_S = 1.8


class Services(BaseModel):
    """Each part, as it answered just now."""

    database: State
    vectors: State
    llm: State


class Health(BaseModel):
    """The whole: ERROR where the service takes no questions, DEGRADED where a part is away."""

    status: Literal["OK", "DEGRADED", "ERROR"]
    message: str
    version: str
    services: Services


@router.head(f"{DRAFTING_PREFIX}/system/health", include_in_schema=False)
@router.get(
    f"{DRAFTING_PREFIX}/system/health",
    response_model=Health,
    responses={503: {"model": Health, "description": "The service takes no questions."}},
)
async def health(service: Service) -> Response:
    """Ask each part, within 2 seconds. 503 when the database is away or the service goes down."""
    services = await _ask_parts(service)
    health = judge(services, is_closing=service.runs.is_closing)
    if health.status == "ERROR":
        return JSONResponse(health.model_dump(), 503, headers={"Retry-After": "5"})
    return JSONResponse(health.model_dump())


async def _ask_parts(service: Parts) -> Services:
    """Really ask each part, all at the same time."""
    database, vectors, llm = await asyncio.gather(
        _state("the database", _ask_database(service)),
        _state("the vector store", service.library.ping()),
        _state("the model", _ask_model(service)),
    )
    return Services(database=database, vectors=vectors, llm=llm)


def judge(services: Services, *, is_closing: bool = False) -> Health:
    """What the parts' states mean for the whole."""
    away = [name for name, state in services if state == "ERROR"]
    if is_closing or services.database == "ERROR":
        status: Literal["OK", "DEGRADED", "ERROR"] = "ERROR"
    else:
        status = "DEGRADED" if away else "OK"
    message = f"Not answering: {', '.join(away)}." if away else "All parts answer."
    if is_closing:
        message = "The service is going down."
    return Health(status=status, message=message, version=version("archwright"), services=services)


async def _ask_database(service: Parts) -> None:
    async with service.pool.connection(timeout=_PATIENCE_S) as connection:
        await connection.execute("select 1")


async def _ask_model(service: Parts) -> None:
    await service.models.refresh()
    await service.models.ping(service.models.resolve(None, None))


async def _state(part: str, question: Coroutine[None, None, None]) -> State:
    """How a part answers. It is not waited for any longer: cancelling may take its time too."""
    asked = asyncio.create_task(question)
    if not (await asyncio.wait({asked}, timeout=_PATIENCE_S))[0]:
        asked.cancel()
        log.warning("%s did not answer within %g s", part, _PATIENCE_S)
        return "ERROR"
    if error := asked.exception():
        log.warning("%s does not answer: %s", part, error)
        return "ERROR"
    return "OK"
