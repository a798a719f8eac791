"""What each operation of the service needs, by the contract; the code's own rules are not asked."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worlds import PUMP, World

from api.settings import PAGE

Tier = Literal["use", "edit", "full"]
TIERS = ["use", "edit", "full"]

NEEDS: dict[str, set[str]] = {
    "nothing": {"nothing"},
    "known": {"a caller who is known"},
    "signed in": {"a caller who is known by more than a key of their own"},
    "admin": {"role admin"},
    "use": {"tier use of the project"},
    "edit": {"tier edit of the project"},
    "full": {"tier full of the project"},
    "use of document": {"tier use of the document's project"},
    "edit of document": {"tier edit of the document's project"},
    "use of chunk": {"tier use of the passage's project"},
    "use of named": {"a caller who is known, and tier use of a project that is named"},
    "use of asked": {"a caller who is known"},
    "use, or first": {"tier use of the body's project, which is made on first use"},
    "edit, or first": {"tier edit of the project, which is made on first use"},
    "own conversation": {"a conversation of one's own"},
    "own run": {"a run of one's own"},
    "own key": {"a caller who is known"},
    "admin for texts": {"role admin, or in a project tier full"},
    "full for texts": {"tier use of the project", "role admin, or in a project tier full"},
}
"""Each need of the table, and how `x-needs` tells it."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Operation:
    """A valid request, and what its caller needs.

    Where a value of `path`, `query` or `body` is `{name}`, the world's id of that name goes.
    `given` renames those of the path. `ok` is the status for who may, `missing` theirs where there
    is nothing of this id. `fresh` is what an allowed request destroys. `told` is the need that
    `x-needs` tells where the body decides.
    """

    method: str
    path: str
    needs: str
    ok: int = 200
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes]] | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    missing: int = 404
    fresh: str | None = None
    told: str | None = None

    @property
    def name(self) -> str:
        """As OpenAPI names it."""
        return f"{self.method} {self.path}"

    @property
    def worlds(self) -> tuple[str, ...]:
        """Whose ids it is tried with."""
        named = set(_PLACEHOLDER.findall(f"{self.path} {self.query} {self.body}"))
        if named & OWNED:
            return ("own", "foreign", "unknown")
        return ("own", "unknown") if named & _SHARED else ("own",)

    @property
    def is_drafting(self) -> bool:
        """Whether it belongs to the drafting API, which has other refusals."""
        return self.path.startswith("/api/v1")

    def request(self, world: World) -> dict[str, Any]:
        """What `httpx.Client.request` takes."""
        ids = {**world.ids, "new_id": str(uuid.uuid4())}
        ids |= {"config_hash": _NO_CONFIG, "file_path": "", "name": "favicon.png"}
        ids["script"] = next((PAGE / "assets").glob("index-*.js")).name
        path = _filled(self.path, {**ids, **{k: ids[v] for k, v in self.given.items()}})
        return {
            "method": self.method,
            "url": path,
            "params": _filled(self.query, ids),
            "json": _filled(self.body, ids),
            "headers": self.headers,
            "files": self.files,
        }


OWNED = {
    "project_id", "conversation_id", "run_id", "chunk_id", "document_id", "grant_id", "key_id",
    "user_id",
}  # fmt: skip
"""Ids of what is somebody's."""
_SHARED = {"provider_id", "path", "version"}
# An empty object as LangServe packs it into an address.
_NO_CONFIG = "N4XyA"


def _filled(value: Any, ids: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda match: ids[match[1]], value)
        case list():
            return [_filled(one, ids) for one in value]
        case Mapping():
            return {key: _filled(one, ids) for key, one in value.items()}
        case _:
            return value


P = "/projects/{project_id}"
C = "/chat/conversations/{conversation_id}"
R = "/runs/{run_id}"
D = "/documents/{document_id}"
V1 = "/api/v1"
ASKED = {"message": PUMP}
DRAFT_BODY = {**ASKED, "conversation_id": "{new_id}"}
ANY = {"If-Match": "*"}
NOTE = {"file": ("note.md", b"# Note\n\nThe pump is green.\n")}
QUAY = {"targetType": "group", "targetId": "{group_id}", "tier": "use"}
TEXT = {"content": "Help {{ user_name }}.\n"}
TURN = {"messages": [{"role": "user", "content": PUMP}]}
LANGSERVE = "/langserve/pipeline"


def _texts(base: str, read: str, write: str, given: dict[str, str], fresh: str) -> list[Operation]:
    text = f"{base}/texts/{{path}}"
    return [
        Operation("GET", f"{base}/texts", read),
        Operation("POST", f"{base}/texts/check", read, body={"texts": {}}),
        Operation("GET", f"{text}/history", read, given=given),
        Operation("GET", f"{text}/versions/{{version}}", read, given=given),
        Operation("GET", f"{text}/diff", read, given=given),
        Operation("POST", f"{text}/preview", read, body=TEXT, given=given),
        Operation("GET", text, read, given=given),
        Operation("GET", f"{base}/versions/{{version}}", read, given={"version": given["used"]}),
        Operation(
            "POST", f"{text}/restore", write, given=given, headers=ANY, fresh=fresh,
            body={"version": f"{{{given['version']}}}"},
        ),
        Operation(
            "PUT", text, write, missing=422, given=given, headers=ANY, fresh=fresh, body=TEXT
        ),
        Operation("DELETE", text, write, headers=ANY, given=given, fresh=fresh),
    ]  # fmt: skip


_SERVICE_TEXTS = {"path": "service_path", "version": "service_version", "used": "service_used"}
_PROJECT_TEXTS = {"path": "path", "version": "version", "used": "used_version"}

OPERATIONS: list[Operation] = [
    Operation("GET", "/", "nothing"),
    Operation("HEAD", "/", "nothing"),
    Operation("GET", "/assets/{name}", "nothing", given={"name": "script"}),
    Operation("GET", f"{V1}/system/health", "nothing"),
    Operation("HEAD", f"{V1}/system/health", "nothing"),
    Operation("GET", "/openapi.json", "known"),
    Operation("GET", "/docs", "known"),
    Operation("GET", "/docs/{name}", "known"),
    Operation("GET", "/metrics", "admin"),
    # People
    Operation("GET", "/me", "known"),
    Operation("GET", "/users", "known"),
    Operation("GET", "/groups", "known"),
    Operation("POST", "/keys", "signed in", 201, body={"name": "New"}),
    Operation("GET", "/keys", "own key", query={"userId": "{user_id}"}),
    Operation("DELETE", "/keys/{key_id}", "own key", 204, fresh="key"),
    Operation("GET", "/audit", "admin"),
    Operation("GET", "/usage", "known"),
    Operation("GET", "/usage", "use of asked", query={"projectId": "{project_id}"}),
    Operation("GET", "/usage/limits", "known"),
    # Chat
    Operation("GET", "/chat/config", "known"),
    Operation("GET", "/chat/recent", "known"),
    Operation("POST", "/chat/projects/{project_id}", "use", body=ASKED),
    Operation("GET", "/chat/projects/{project_id}/conversations", "use"),
    Operation("GET", C, "own conversation"),
    Operation("PATCH", C, "own conversation", body={"title": "New"}, fresh="conversation"),
    Operation("DELETE", C, "own conversation", 204, fresh="conversation"),
    Operation("GET", "/chat/chunks/{chunk_id}/source", "use of chunk"),
    Operation("GET", R, "own run"),
    Operation("POST", f"{R}/stop", "own run"),
    Operation("GET", f"{R}/stream", "own run"),
    # Projects
    Operation("GET", "/projects", "known"),
    Operation("POST", "/projects", "known", 201, body={"name": "New"}),
    Operation("GET", P, "use"),
    Operation("PATCH", P, "edit", body={"color": "#123456"}),
    Operation("PATCH", P, "full", body={"settings": {"topK": 9}}, told="edit"),
    Operation("PATCH", P, "full", body={"color": "#654321", "isPrivate": True}, told="edit"),
    Operation("PATCH", P, "full", body={"ownerId": "{user_id}"}, told="edit"),
    Operation("DELETE", P, "full", 204, fresh="project"),
    Operation("GET", f"{P}/grants", "use"),
    Operation("POST", f"{P}/grants", "full", body=QUAY),
    Operation("DELETE", f"{P}/grants/{{grant_id}}", "full", 204, fresh="grant"),
    # Documents
    Operation("POST", "/documents/projects/{project_id}", "edit", 202, files=NOTE),
    Operation("GET", "/documents/projects/{project_id}", "use"),
    Operation("GET", D, "use of document"),
    Operation("GET", f"{D}/content", "use of document"),
    Operation("GET", f"{D}/events", "use of document"),
    Operation("DELETE", D, "edit of document", 204, fresh="document"),
    # Providers
    Operation("GET", "/providers", "known"),
    Operation("GET", "/providers/models", "known"),
    Operation("GET", "/providers/admin", "admin"),
    Operation(
        "POST", "/providers", "admin", 201,
        body={"name": "P", "slug": "p-{new_id}", "baseUrl": "{model_url}", "models": ["stand-in"]},
    ),
    Operation("PATCH", "/providers/{provider_id}", "admin", body={"name": "New"}),
    Operation("DELETE", "/providers/{provider_id}", "admin", 204, fresh="provider"),
    Operation("POST", "/providers/{provider_id}/test", "admin", body={"model": "stand-in"}),
    # Drafting
    Operation(
        "POST", f"{V1}/chat/stream", "use, or first",
        body={**DRAFT_BODY, "project_id": "{project_id}"},
    ),
    Operation("POST", f"{V1}/chat/generate", "known", body={**ASKED, "doc_type": "UNSORTED"}),
    Operation(
        "POST", f"{V1}/chat/message", "known", 400, body={**DRAFT_BODY, "project_id": "{new_id}"}
    ),
    Operation(
        "POST", f"{V1}{P}/documents/ingest", "edit, or first",
        body={"doc_name": "note.md", "markdown_content": "# Note\n\nThe pump is green.\n"},
    ),
    Operation(
        "GET", f"{V1}/knowledge/search", "use", query={"project_id": "{project_id}", "q": "pump"}
    ),
    Operation("GET", f"{V1}/knowledge/status", "use", query={"project_id": "{project_id}"}),
    Operation("GET", f"{V1}/document-types", "use of named", query={"project_id": "{project_id}"}),
    Operation("GET", f"{V1}/document-types", "known", told="use of named"),
    Operation("GET", f"{V1}{P}/workflow", "use"),
    # Texts
    *_texts(V1, "known", "admin for texts", _SERVICE_TEXTS, "edit"),
    *_texts(f"{V1}{P}", "use", "full for texts", _PROJECT_TEXTS, "override"),
    # LangServe
    *(
        Operation(method, f"{LANGSERVE}{config}/{name}", "admin", body=body)
        for config in ("", "/c/{config_hash}")
        for method, name, body in (
            ("POST", "invoke", {"input": TURN}),
            ("POST", "batch", {"inputs": [TURN]}),
            ("POST", "stream", {"input": TURN}),
            ("POST", "stream_log", {"input": TURN}),
            ("POST", "stream_events", {"input": TURN}),
            ("GET", "input_schema", None),
            ("GET", "output_schema", None),
            ("GET", "config_schema", None),
            ("GET", "playground/{file_path}", None),
        )
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Caller:
    """Who sends which headers. `tiers` are theirs in each world, `owns` is their own world.

    `sees` is how the canaries begin that they may see.
    """

    headers: Mapping[str, str]
    is_known: bool = True
    is_admin: bool = False
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    owns: str | None = None
    sees: tuple[str, ...] = ()


def expected(operation: Operation, caller: Caller, world: World) -> int:
    """The status that the contract asks for."""
    needs, _, of = operation.needs.partition(" ")
    if needs == "nothing":
        return operation.ok
    if not caller.is_known:
        return 403 if operation.is_drafting else 401
    there = operation.ok if world.exists else operation.missing
    match needs:
        case "known":
            return there
        case "admin":
            return there if caller.is_admin else 403
        case "signed":
            return 403 if caller.headers.get("X-API-Key", "").startswith("aw_") else there
        case "own":
            is_theirs = caller.owns == world.name or (of == "key" and caller.is_admin)
            return there if is_theirs else 404
        case _:
            return _in_project(operation, needs.rstrip(","), caller, world)


def _in_project(operation: Operation, needed: str, caller: Caller, world: World) -> int:
    if not world.exists and operation.needs.endswith("or first"):
        return operation.ok
    tier = caller.tiers.get(world.name)
    if tier is None:
        return 403 if operation.is_drafting else 404
    return operation.ok if TIERS.index(tier) >= TIERS.index(needed) else 403
