"""What a caller needs for a route: one dependency each, without which the service does not start.

A rule is a dependency that is marked with `rule`. Who is calling is found out before a body is
read, so that a stranger's is not.
"""

import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import State

from api.access.principals import Principal
from api.access.resolver import Access, Tier, access_to
from api.dependencies import Parts, Service
from api.errors import Refusal, in_drafting_api, not_found
from graph.postgres import Pool

Function = TypeVar("Function", bound=Callable[..., Any])

NO_PROJECT = "There is no such project, or it is somebody else's."
_NEEDS = "needs"
_OPEN = "nothing"
_KNOWN = "a caller who is known"
_KEY = APIKeyHeader(name="X-API-Key", auto_error=False)
_TOKEN = HTTPBearer(auto_error=False)


def rule(needs: str) -> Callable[[Function], Function]:
    """Mark a dependency as what decides who may call a route; `needs` says it to people."""

    def mark(dependency: Function) -> Function:
        setattr(dependency, _NEEDS, needs)
        return dependency

    return mark


@rule(_OPEN)
async def open_to_all() -> None:
    """Anybody may call."""


@rule(_KNOWN)
async def signed_in(
    request: Request,
    service: Service,
    _key: Annotated[str | None, Security(_KEY)] = None,
    _token: Annotated[object, Security(_TOKEN)] = None,
) -> Principal:
    """The caller; refuses where credentials are missing or wrong, or requests too many."""
    return await _identified(request, service)


async def _identified(request: Request, service: Parts) -> Principal:
    state: State = request.state
    if not hasattr(state, "caller"):
        caller = await service.credentials.identify(request.headers)
        await service.fair_use.count_request(caller)
        state.caller = caller
    return cast(Principal, state.caller)


Caller = Annotated[Principal, Depends(signed_in)]


@rule("role admin")
async def admin(caller: Caller) -> Principal:
    """The caller, who must be an admin."""
    if not caller.is_admin:
        raise Refusal(403, "forbidden", "This needs the role admin.")
    return caller


def _access_in_project(needed: Tier) -> Callable[..., Coroutine[Any, Any, Access]]:
    """The rule for a route about the project of its path or query, which gives the access."""

    @rule(f"tier {needed} of the project")
    async def allowed(
        project_id: uuid.UUID, request: Request, service: Service, caller: Caller
    ) -> Access:
        return await require(request, service.pool, caller, project_id, needed)

    return allowed


def _in_project(needed: Tier) -> Callable[..., Coroutine[Any, Any, uuid.UUID]]:
    """The same rule, which gives the project's id."""

    async def allowed(
        project_id: uuid.UUID, _: Annotated[Access, Depends(_access_in_project(needed))]
    ) -> uuid.UUID:
        return project_id

    return allowed


Use = Annotated[Access, Depends(_access_in_project("use"))]
UsableProject = Annotated[uuid.UUID, Depends(_in_project("use"))]
EditableProject = Annotated[uuid.UUID, Depends(_in_project("edit"))]
OwnProject = Annotated[uuid.UUID, Depends(_in_project("full"))]


async def require(
    request: Request, pool: Pool, caller: Principal, project_id: uuid.UUID, needed: Tier
) -> Access:
    """The caller's access to a project of which they need at least `needed`.

    Raises:
        Refusal: 404 (403 in the drafting API) where the caller may see nothing of it, whether it
            is there or not; 403 where the tier is too low; 429 for too many requests about it.
    """
    access = await access_to(pool, caller, project_id)
    if access is None:
        raise _no_project(request)
    if not access.allows(needed):
        raise too_low(access, needed)
    await count_once(request, project_id)
    return access


async def count_once(request: Request, project_id: uuid.UUID) -> None:
    """Count the request as one about the project, also where a route asks for access twice."""
    state: State = request.state
    if getattr(state, "about_project", None) != project_id:
        await cast(Parts, state.parts).fair_use.count_project_request(project_id)
        state.about_project = project_id


def _no_project(request: Request) -> Refusal:
    """The answer for a project that does not exist or of which the caller may see nothing."""
    if in_drafting_api(request.url.path):
        return Refusal(403, "forbidden", NO_PROJECT)
    return not_found("project")


def too_low(access: Access, needed: Tier) -> Refusal:
    """The answer for a project that the caller sees and with which they may not do this."""
    return Refusal(403, "forbidden", f"This needs tier {needed!r}; yours is {access.tier!r}.")


class GuardedRoute(APIRoute):
    """A route that knows its caller before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, behind that."""
        handle = super().get_route_handler()
        if needs_of(self.dependant) == {_OPEN}:
            return handle

        async def handler(request: Request) -> Response:
            await _identified(request, cast(Parts, request.state.parts))
            return await handle(request)

        return handler


def needs_of(dependant: Dependant) -> set[str]:
    """What the rules of a route ask for; with more than one, all must be met."""
    own = getattr(dependant.call, _NEEDS, None)
    if own is not None:
        return {own}
    needs = {need for below in dependant.dependencies for need in needs_of(below)}
    # All other rules begin with it.
    return needs - {_KNOWN} or needs


def refuse_unguarded(app: FastAPI) -> None:
    """Refuse to serve an app with a route whose rule was forgotten.

    Raises:
        RuntimeError: names these routes.
    """
    if unguarded := sorted(_unguarded(app)):
        raise RuntimeError(f"These routes have no rule in api/access/rules.py: {unguarded}.")


def _unguarded(app: FastAPI) -> Iterator[str]:
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        is_guarded = isinstance(route.original_route, GuardedRoute)
        if dependant is None or not is_guarded or not needs_of(dependant):
            yield str(route.path)
    if _has_front_end(app.router):
        yield "a static front end"


def _has_front_end(router: APIRouter) -> bool:
    # FastAPI keeps them apart from the routes, and looks there for what no route takes.
    included = [getattr(route, "original_router", None) for route in router.routes]
    below = any(_has_front_end(one) for one in included if isinstance(one, APIRouter))
    return bool(router._low_priority_routes) or below
