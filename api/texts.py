"""Prompts and templates over HTTP: read, edited, checked and tried, for all or for one project."""

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from api.access.rules import Caller, GuardedRoute
from api.dependencies import Service
from api.editing import (
    Editable,
    Readable,
    check_with,
    for_project,
    for_service,
    give_up,
    require_place,
    require_text,
    wording_of,
    write,
)
from api.errors import DRAFTING_PREFIX, Refusal, not_found
from api.etags import CONDITIONS, IfMatch, IfNoneMatch, etag, names, require_match
from api.lists import Before, Limit
from api.refusals import DRAFTING_API
from api.text_history import content_of, diff_of, history_of
from api.text_models import (
    CheckAnswer,
    CheckRequest,
    Diff,
    EditAnswer,
    History,
    NewContent,
    Preview,
    PreviewRequest,
    Restore,
    TextAnswer,
    TextEntry,
    TextList,
    Unusable,
    UsedText,
    UsedTexts,
    VersionName,
)
from graph.sanitizing import one_line
from graph.texts.history import since_when, used_as
from graph.texts.paths import place_of
from graph.texts.previews import preview
from graph.texts.variables import variables_of

TextPath = Annotated[str, Path(description="Such as `prompts/answer.md`.")]

_routes = APIRouter(tags=["texts"], route_class=GuardedRoute)
_WRITING = {
    **CONDITIONS,
    422: {
        "description": "It does not validate, or could not be used; then `findings` says why.",
        "model": Unusable | DRAFTING_API,
    },
}


@_routes.get("/texts")
async def list_texts(scope: Readable, service: Service) -> TextList:
    """All prompts, templates and examples that count, with where they come from."""
    texts = (await wording_of(service, scope)).texts
    since = await since_when(service.pool, texts.values(), scope.project_id)
    return TextList(
        texts=[
            TextEntry(
                path=path,
                kind=place.kind,
                version=text.version,
                source=text.source,
                updated_at=since.get(path),
            )
            for path, text in texts.items()
            if (place := place_of(path))
        ]
    )


@_routes.post("/texts/check")
async def check(body: CheckRequest, scope: Readable, service: Service) -> CheckAnswer:
    """Check all texts that count, with those of the body laid over them."""
    found = await check_with(await wording_of(service, scope), body.texts)
    return CheckAnswer(findings=found)


@_routes.get("/texts/{path:path}/history")
async def get_history(
    path: TextPath, scope: Readable, service: Service, limit: Limit = 50, before: Before = None
) -> History:
    """The versions of a text, the newest first: of its file, of edits, of the project's own."""
    return History(versions=await history_of(service, scope, path, limit, before))


@_routes.get("/texts/{path:path}/versions/{version}")
async def get_version(
    path: TextPath, version: VersionName, scope: Readable, service: Service
) -> TextAnswer:
    """A text as it was."""
    return TextAnswer(text=await content_of(service, scope, path, version))


@_routes.get("/texts/{path:path}/diff")
async def get_diff(
    path: TextPath,
    scope: Readable,
    service: Service,
    before: Annotated[VersionName | None, Query(alias="from")] = None,
    after: Annotated[VersionName | None, Query(alias="to")] = None,
) -> Diff:
    """What changed between two versions.

    `to` is by default the one that counts, and `from` what lies beneath it, or the one before.
    """
    return await diff_of(service, scope, path, before, after)


@_routes.post("/texts/{path:path}/preview")
async def preview_text(
    path: TextPath, body: PreviewRequest, scope: Readable, service: Service
) -> Preview:
    """What a text becomes with these values, and what is wrong with it. Nothing is stored."""
    wording = await wording_of(service, scope)
    place = place_of(path)
    if place is None:
        raise not_found("text")
    content = body.content or require_text(wording, path).content
    variables = dict(variables_of(place))
    if unknown := [name for name in body.values if name not in variables]:
        raise Refusal(422, "unknown_variable", _no_variable(unknown[0], variables))
    variables |= body.values
    found = await check_with(wording, {path: content})
    return Preview(
        rendered=await asyncio.to_thread(preview, place, content, variables),
        variables=variables,
        findings=[one for one in found if one.path == path],
    )


@_routes.post("/texts/{path:path}/restore", responses=_WRITING)
async def restore_text(
    path: TextPath,
    body: Restore,
    scope: Editable,
    service: Service,
    caller: Caller,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> EditAnswer:
    """Make an older version count again, as a new edit."""
    old = await content_of(service, scope, path, body.version)
    edit = await write(service, scope, caller, path, old.content, if_match, if_none_match)
    response.headers["ETag"] = etag(edit.text.version)
    return EditAnswer(text=edit.text, findings=edit.findings)


@_routes.get(
    "/texts/{path:path}",
    response_model=TextAnswer,
    responses={304: {"description": "The version that `If-None-Match` names still counts."}},
)
async def get_text(
    path: TextPath,
    scope: Readable,
    service: Service,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> TextAnswer | Response:
    """The text that counts; its ETag is its version."""
    text = require_text(await wording_of(service, scope), path)
    headers = {"ETag": etag(text.version)}
    if if_none_match and names(if_none_match, text.version, weak=True):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return TextAnswer(text=text)


@_routes.put(
    "/texts/{path:path}",
    responses={**_WRITING, 201: {"description": "A new text.", "model": EditAnswer}},
)
async def put_text(
    path: TextPath,
    body: NewContent,
    scope: Editable,
    service: Service,
    caller: Caller,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> EditAnswer:
    """Write a text over what counts, or a new one; the next turn uses it.

    It counts until its file on disk changes; a project's own counts in any case.
    """
    require_place(path)
    edit = await write(service, scope, caller, path, body.content, if_match, if_none_match)
    response.status_code = 201 if edit.is_new else 200
    response.headers["ETag"] = etag(edit.text.version)
    return EditAnswer(text=edit.text, findings=edit.findings)


@_routes.delete(
    "/texts/{path:path}",
    response_model=TextAnswer,
    responses={**CONDITIONS, 204: {"description": "Nothing lies beneath it."}},
)
async def delete_text(
    path: TextPath,
    scope: Editable,
    service: Service,
    caller: Caller,
    response: Response,
    if_match: IfMatch = None,
) -> TextAnswer | Response:
    """Give an edit up, so that what lies beneath it counts again."""
    now = (await wording_of(service, scope)).texts.get(path)
    if now is None or now.source != scope.layer:
        raise not_found("edit")
    require_match(now.version, if_match, None)
    beneath = await give_up(service, scope, caller, path, now.version)
    if beneath is None:
        return Response(status_code=204)
    response.headers["ETag"] = etag(beneath.version)
    return TextAnswer(text=beneath)


@_routes.get("/versions/{version}")
async def get_used_texts(version: VersionName, scope: Readable, service: Service) -> UsedTexts:
    """The texts that `template_version` or `prompt_version` of an answer names."""
    used = await used_as(service.pool, version, scope.project_id)
    if used is None:
        raise not_found("version")
    texts = [UsedText(path=path, content=content) for path, content in used.parts.items()]
    return UsedTexts(version=version, texts=texts, first_used_at=used.first_used_at)


def _no_variable(name: str, known: Mapping[str, str]) -> str:
    there_are = f"There are: {', '.join(known)}." if known else "There are none."
    return f"This text has no variable {one_line(name, 60)!r}. {there_are}"


router = APIRouter(prefix=DRAFTING_PREFIX)
router.include_router(_routes, dependencies=[Depends(for_service)])
router.include_router(_routes, prefix="/projects/{project_id}", dependencies=[Depends(for_project)])
