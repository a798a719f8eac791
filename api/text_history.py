"""The history of prompts and templates: who wrote what and when, and what changed."""

import asyncio
import uuid
from collections.abc import Iterable
from datetime import datetime

from api.dependencies import Parts
from api.editing import Scope, require_text, wording_of
from api.errors import not_found
from api.text_models import Diff, HistoryEntry
from graph.postgres import Pool, rows_of
from graph.texts.diffs import unified
from graph.texts.history import Version, version_at, versions_at
from graph.texts.paths import place_of
from graph.texts.wording import Layer, Text


async def history_of(
    service: Parts, scope: Scope, path: str, limit: int, before: datetime | None
) -> list[HistoryEntry]:
    """The versions of a text, the newest first.

    Raises:
        Refusal: 404, there never was one.
    """
    _require_place(path)
    now = (await wording_of(service, scope)).texts.get(path)
    versions = await versions_at(service.pool, path, scope.project_id, limit=limit, before=before)
    if not (versions or now or before):
        raise not_found("text")
    authors = await _names(service.pool, (one.author_id for one in versions if one.author_id))
    return [
        HistoryEntry(
            version=one.version,
            source=_layer(one),
            author=authors.get(one.author_id) if one.author_id else None,
            created_at=one.created_at,
            is_current=now is not None and (one.version, _layer(one)) == (now.version, now.source),
        )
        for one in versions
    ]


async def content_of(service: Parts, scope: Scope, path: str, version: str) -> Text:
    """A text as it was.

    Raises:
        Refusal: 404, it never was so.
    """
    _require_place(path)
    found = await version_at(service.pool, path, version, scope.project_id)
    if found is None or found.content is None:
        raise not_found("version")
    return Text(path, found.content, version, _layer(found))


async def diff_of(
    service: Parts, scope: Scope, path: str, before: str | None, after: str | None
) -> Diff:
    """What changed from one version to another.

    Raises:
        Refusal: 404, a version was never there.
    """
    if after is None:
        new = require_text(await wording_of(service, scope), path)
    else:
        new = await content_of(service, scope, path, after)
    old = await (
        _before(service, scope, new) if before is None else content_of(service, scope, path, before)
    )
    names = (f"{path} {old.version if old else 'nothing'}", f"{path} {new.version}")
    diff = await asyncio.to_thread(unified, old.content if old else "", new.content, names=names)
    return Diff(before=old.version if old else None, after=new.version, diff=diff)


async def _before(service: Parts, scope: Scope, text: Text) -> Text | None:
    """What lies beneath `text`, or else was there before it; null for nothing."""
    if text.source == "override":
        beneath = (await service.texts.wording()).texts.get(text.path)
    elif text.source == "edit":
        beneath = (await asyncio.to_thread(service.texts.files)).texts.get(text.path)
    else:
        beneath = None
    return beneath or await _older(service, scope, text)


async def _older(service: Parts, scope: Scope, text: Text) -> Text | None:
    versions = await versions_at(service.pool, text.path, scope.project_id, limit=_LOOKED_BACK)
    names = [one.version for one in versions]
    start = names.index(text.version) if text.version in names else 0
    for one in versions[start:]:
        if one.version and one.content is not None and one.version != text.version:
            return Text(text.path, one.content, one.version, _layer(one))
    return None


async def _names(pool: Pool, authors: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    rows = await rows_of(pool, "select id, name from users where id = any(%s)", (list(authors),))
    return {row["id"]: row["name"] for row in rows}


def _require_place(path: str) -> None:
    if place_of(path) is None:
        raise not_found("text")


def _layer(version: Version) -> Layer:
    if version.source == "file":
        return "file"
    return "override" if version.project_id else "edit"


_LOOKED_BACK = 50
