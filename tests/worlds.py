"""Two worlds for tests of access: each somebody's project with one of everything in it.

Alice's holds canaries: words that are nowhere else, by which it is known who was shown what.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from conftest import upload
from sse import read
from standins.openai import Answer

ANSWER = "prompts/answer.md"
DRAFT = "prompts/draft.md"
PROVIDER_KEY = "sk-of-a-provider-in-a-row"
FACT = "The pump of the harbour basin runs at 40 bar on each weekday"
PUMP = "At how many bar does the pump of the harbour basin run on each weekday?"

CONVERSATION = "wombat"
PERSONAL = "quokka"
PROJECT = "numbat"
"""How canaries begin: what nobody else sees, what admins see too, what all of a project see."""

CANARIES = frozenset(
    {
        *(f"{CONVERSATION}{what}" for what in ("question", "answer", "title")),
        *(f"{PERSONAL}{what}" for what in ("mail", "key")),
        *(
            f"{PROJECT}{what}"
            for what in ("name", "description", "instructions", "file", "text", "prompt")
        ),
    }
)


def words(kind: str) -> Callable[[str], str]:
    """What makes a word of Alice's, or with "" an ordinary one."""
    return (lambda what: f"{kind}{what}") if kind else (lambda what: f"Some {what}")


@dataclass(frozen=True)
class World:
    """The ids of one of everything. `name` is whose: "own" (Alice's), "foreign" or "unknown"."""

    name: str
    ids: Mapping[str, str]

    @property
    def exists(self) -> bool:
        """Whether there is anything behind the ids."""
        return self.name != "unknown"


def unknown() -> World:
    """Ids of which nobody has heard, different each time."""
    names = (
        "project_id", "conversation_id", "run_id", "chunk_id", "document_id", "grant_id",
        "key_id", "user_id", "provider_id", "group_id", "new_id",
    )  # fmt: skip
    ids = {name: str(uuid.uuid4()) for name in names}
    texts = {"path": "prompts/none.md", "service_path": "prompts/none.md"}
    versions = dict.fromkeys(("version", "used_version", "service_version", "service_used"))
    return World("unknown", {**ids, **texts, **dict.fromkeys(versions, "0" * 16)})


def reply(asked: dict[str, Any]) -> Sequence[str]:
    """Alice's canaries to the question that has one; to all others what the model was told."""
    told = json.dumps(asked["messages"])
    if f"{CONVERSATION}question" in told:
        return [f"{FACT} [1].", f" {CONVERSATION}answer"]
    size = len(told) // 10 + 1
    return [told[at : at + size] for at in range(0, len(told), size)]


ECHO = Answer(reply=reply)


def build(name: str, owner: httpx.Client, shared: Mapping[str, str]) -> World:
    """Make a world over HTTP; `shared` are ids that are the same in all worlds."""
    mine = name == "own"
    project, hidden, personal = (
        words(kind if mine else "") for kind in (PROJECT, CONVERSATION, PERSONAL)
    )
    body = {
        "name": project("name"),
        "description": project("description"),
        "instructions": project("instructions"),
    }
    project_id = posted(owner, "/projects", body)["project"]["id"]
    text = f"# Pumps\n\n{FACT}, says {project('text')}.\n"
    document = upload(owner, project_id, f"{project('file')}.md", text.encode())
    assert document["status"] == "indexed", document

    path = f"/api/v1/projects/{project_id}/texts/{ANSWER}"
    prompt = {"content": f"{owner.get(path).json()['text']['content']}\n{project('prompt')}\n"}
    written = owner.put(path, json=prompt, headers={"If-Match": "*"})
    assert written.status_code == 200, written.text

    question = {"message": f"{PUMP} {hidden('question')}"}
    events = read(owner, "POST", f"/chat/projects/{project_id}", json=question)
    told = {event.name: event.data for event in events}
    conversation_id = told["meta"]["conversationId"]
    renamed = owner.patch(f"/chat/conversations/{conversation_id}", json={"title": hidden("title")})
    assert renamed.status_code == 200

    grant = {"targetType": "group", "targetId": shared["group_id"], "tier": "use"}
    ids = {
        "project_id": project_id,
        "document_id": document["id"],
        "conversation_id": conversation_id,
        "run_id": told["meta"]["messageId"],
        "chunk_id": told["sources"]["chunks"][0]["id"],
        "path": ANSWER,
        "version": written.json()["text"]["version"],
        "used_version": told["done"]["promptVersion"],
        "grant_id": posted(owner, f"/projects/{project_id}/grants", grant)["grant"]["id"],
        "key_id": posted(owner, "/keys", {"name": personal("key")})["key"]["id"],
        "user_id": owner.get("/me").json()["user"]["id"],
    }
    return World(name, {**shared, **ids})


def fresh(what: str, world: World, owner: httpx.Client, admin: httpx.Client) -> World:
    """The world with another one of `what`, to be erased."""
    ids = world.ids
    project = f"/projects/{ids['project_id']}"
    match what:
        case "project":
            made = {"project_id": posted(owner, "/projects", {"name": "Another"})["project"]["id"]}
        case "document":
            another = upload(owner, ids["project_id"], f"{uuid.uuid4()}.md", b"# Another\n\nOne.\n")
            made = {"document_id": another["id"]}
        case "conversation":
            asked = read(owner, "POST", f"/chat{project}", json={"message": "Another?"})
            made = {"conversation_id": asked[0].data["conversationId"]}
        case "grant":
            body = {"targetType": "user", "targetId": ids["somebody"], "tier": "use"}
            made = {"grant_id": posted(owner, f"{project}/grants", body)["grant"]["id"]}
        case "key":
            made = {"key_id": posted(owner, "/keys", {"name": "Another"})["key"]["id"]}
        case "provider":
            made = {"provider_id": new_provider(admin, ids["model_url"])}
        case "override":
            _rewrite(owner, f"/api/v1{project}/texts/{ANSWER}")
            made = {}
        case "edit":
            _rewrite(admin, f"/api/v1/texts/{DRAFT}")
            made = {}
        case _:
            raise AssertionError(what)
    return World(world.name, {**ids, **made})


def new_provider(admin: httpx.Client, base_url: str) -> str:
    """The id of a provider that is not the default one."""
    slug = f"p-{uuid.uuid4().hex[:12]}"
    body = {"name": "A provider", "slug": slug, "baseUrl": base_url, "models": ["stand-in"]}
    return str(posted(admin, "/providers", {**body, "apiKey": PROVIDER_KEY})["provider"]["id"])


def posted(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to what must be taken."""
    answer = client.post(path, json=body)
    assert answer.is_success, (path, answer.text)
    return dict(answer.json())


def _rewrite(client: httpx.Client, path: str) -> None:
    content = client.get(path).json()["text"]["content"]
    body = {"content": f"{content}\nAgain.\n"}
    answer = client.put(path, json=body, headers={"If-Match": "*"})
    assert answer.is_success, answer.text
