"""Editing of prompts and templates: who may, for whom, and whether the result can be used."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from psycopg.errors import ForeignKeyViolation

from api.access.audit import note
from api.access.principals import Principal
from api.access.rules import NO_PROJECT, Caller, require, rule, too_low
from api.dependencies import Parts, Service
from api.errors import Refusal, not_found
from api.etags import changed, require_match
from graph.errors import TextChanged
from graph.postgres import Connection
from graph.texts.checking import check_texts, new_errors
from graph.texts.findings import TextFinding
from graph.texts.paths import place_of
from graph.texts.wording import Text, Wording

# A text that was made for it takes seconds. Turns need the threads that all share.
CHECKER = ThreadPoolExecutor(1, "checks")
"""Checks what is only tried, one request after the other; edits do not wait for it."""
_JUDGE = ThreadPoolExecutor(1, "edits")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose texts a request is about: a project's, or with null those of the whole service.

    `refusal` is why the caller may only read them.
    """

    project_id: str | None
    refusal: Refusal | None

    @property
    def layer(self) -> str:
        """Where what is written here counts."""
        return "override" if self.project_id else "edit"


@rule("a caller who is known")
async def for_service(request: Request, caller: Caller) -> None:
    """The texts of the whole service: read by everybody, edited by admins."""
    refusal = None if caller.is_admin else Refusal(403, "forbidden", "This needs the role admin.")
    request.state.scope = Scope(None, refusal)


@rule("tier use of the project")
async def for_project(
    project_id: uuid.UUID, request: Request, service: Service, caller: Caller
) -> None:
    """The texts of a project: read with tier use, edited with tier full."""
    access = await require(request, service.pool, caller, project_id, "use")
    refusal = None if access.allows("full") else too_low(access, "full")
    request.state.scope = Scope(str(project_id), refusal)


async def readable(request: Request) -> Scope:
    """The scope of a request."""
    # Without one the project's id is refused, but only once all dependencies were asked.
    return cast(Scope, getattr(request.state, "scope", None))


@rule("role admin, or in a project tier full")
async def editable(request: Request) -> Scope:
    """The scope of a request that changes something; refuses where the caller may only read."""
    scope = await readable(request)
    if scope and scope.refusal is not None:
        raise scope.refusal
    return scope


Readable = Annotated[Scope, Depends(readable)]
Editable = Annotated[Scope, Depends(editable)]


async def wording_of(service: Parts, scope: Scope) -> Wording:
    """All texts that count in the scope now."""
    return await service.texts.wording(scope.project_id)


def require_text(wording: Wording, path: str) -> Text:
    """The text that counts at `path`.

    Raises:
        Refusal: 404, there is none, or its file cannot be used, and why.
    """
    if path in wording.problems:
        raise Refusal(404, "not_found", f"{path} {wording.problems[path]}.")
    if path not in wording.texts:
        raise not_found("text")
    return wording.texts[path]


def require_place(path: str) -> None:
    """Refuse to write where no text can be.

    Raises:
        Refusal: 422 that says which paths there are.
    """
    if place_of(path) is None:
        raise Refusal(422, "bad_path", _PATHS)


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that was written, and what is found in it and because of it elsewhere.

    `is_new`: there was none at its path.
    """

    text: Text
    findings: list[TextFinding]
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to be at a path, null for what lies beneath, where `expected` still counts."""

    scope: Scope
    caller: Principal
    path: str
    content: str | None
    expected: str | None

    async def note(self, connection: Connection, after: Text | None) -> None:
        project_id = self.scope.project_id
        await note(
            connection,
            self.caller,
            "text.given_up" if self.content is None else "text.edited",
            target=("text", self.path),
            project_id=uuid.UUID(project_id) if project_id else None,
            old_version=self.expected,
            new_version=after.version if after else None,
        )


async def write(
    service: Parts,
    scope: Scope,
    caller: Principal,
    path: str,
    content: str,
    if_match: str | None,
    if_none_match: str | None,
) -> Edit:
    """Put `content` in place of what counts at `path`, if that is what the conditions ask for.

    Raises:
        Refusal: 428, no condition; 412, the text has changed; 422, it would bring errors, which
            are named.
    """
    found: list[TextFinding] = []

    async def check(wording: Wording) -> None:
        found[:] = await asyncio.to_thread(_judge, wording, path, content)

    now = await wording_of(service, scope)
    expected = now.texts[path].version if path in now.texts else None
    require_match(expected, if_match, if_none_match)
    # What this finds is remembered: the check that other writers wait for takes no time then.
    await asyncio.get_running_loop().run_in_executor(_JUDGE, _judge, now, path, content)
    saved = await _save(service, _Change(scope, caller, path, content, expected), check)
    assert saved is not None
    return Edit(saved, found, expected is None)


async def give_up(
    service: Parts, scope: Scope, caller: Principal, path: str, expected: str | None
) -> Text | None:
    """Give the edit up, so that what lies beneath counts again; gives that, null for nothing.

    Raises:
        Refusal: 412, the text has changed.
    """
    return await _save(service, _Change(scope, caller, path, None, expected))


async def check_with(wording: Wording, texts: Mapping[str, str]) -> list[TextFinding]:
    """What is wrong with the wording once `texts` are laid over it."""
    return await asyncio.get_running_loop().run_in_executor(CHECKER, _checked, wording, texts)


async def _save(
    service: Parts, change: _Change, check: Callable[[Wording], Awaitable[None]] | None = None
) -> Text | None:
    try:
        return await service.texts.save(
            change.path,
            change.content,
            project_id=change.scope.project_id,
            expected=change.expected,
            author_id=change.caller.id,
            check=check,
            noted=change.note,
        )
    except TextChanged as error:
        raise changed(error.version) from error
    except ForeignKeyViolation as error:
        raise Refusal(403, "forbidden", NO_PROJECT) from error


def _judge(wording: Wording, path: str, content: str) -> list[TextFinding]:
    before, after = _checked(wording, {}), _checked(wording, {path: content})
    errors = new_errors(before, after, path)
    if errors:
        raise _unusable(errors)
    return [one for one in after if one.path == path or one not in before]


def _checked(wording: Wording, texts: Mapping[str, str]) -> list[TextFinding]:
    contents = {path: text.content for path, text in wording.texts.items()}
    problems = {path: words for path, words in wording.problems.items() if path not in texts}
    return check_texts({**contents, **texts}, problems)


def _unusable(errors: list[TextFinding]) -> Refusal:
    first = errors[0]
    sentence = f"With this, templates and prompts cannot be used. {first.path}: {first.message}"
    return Refusal(422, "unusable", sentence, extra={"findings": [asdict(one) for one in errors]})


_PATHS = (
    "There can be no text at this path. There are prompts/answer.md, prompts/draft.md and "
    "prompts/question.md, templates/<phase>/<TYPE>/template.md, and beside it example.md or "
    "example.json."
)
