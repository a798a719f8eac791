"""Every operation, by every kind of caller, with ids of their own, of others and of nobody."""

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from callers import token
from conftest import ServiceFactory
from fastapi.routing import iter_route_contexts
from matrix import API_KEY, JWT_SECRET, Exchange, Matrix, digests, logged, prepared
from operations import NEEDS, OPERATIONS, OWNED
from sse import read
from standins.openai import OpenAIStandIn
from standins.tavily import TavilyStandIn
from worlds import CANARIES, ECHO, FACT, PROJECT, PROVIDER_KEY, PUMP, World, posted, unknown

MODEL_KEY = "sk-canary-model-key"
SEARCH_KEY = "tvly-canary-key"


@pytest.fixture(scope="module")
def matrix(
    start_service: ServiceFactory, shared_model: OpenAIStandIn, shared_tavily: TavilyStandIn
) -> Iterator[Matrix]:
    """All requests of the matrix, and what was answered."""
    shared_model.reset()
    shared_model.will(ECHO)
    with (
        start_service(
            api_key=API_KEY,
            jwt_secret=JWT_SECRET,
            openai_base_url=shared_model.base_url,
            openai_api_key=MODEL_KEY,
            openai_model="stand-in",
            tavily_api_key=SEARCH_KEY,
            tavily_base_url=shared_tavily.base_url,
            allow_private_providers=True,
            log_level="DEBUG",
        ) as service,
        logged() as lines,
        prepared(service, shared_model.base_url, lines) as matrix,
    ):
        matrix.run()
        yield matrix
    shared_model.reset()


# --- who gets what


def test_each_operation_is_in_the_table(matrix: Matrix) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in matrix.openapi["paths"].items()
        for method in methods
    }
    served = {
        f"{method} {route.path_format}"
        for route in iter_route_contexts(matrix.service.app.routes)
        for method in route.methods or ()
    }
    assert {operation.name for operation in OPERATIONS} == described | served


def test_each_caller_gets_what_the_contract_says(matrix: Matrix) -> None:
    wanted = {cell: status for cell, _, status in matrix.cells()}
    found = {cell: answer.status for cell, answer in matrix.answers.items()}
    assert found == wanted


def test_openapi_says_what_an_operation_needs(matrix: Matrix) -> None:
    told = {
        f"{method.upper()} {path}": set(operation["x-needs"])
        for path, methods in matrix.openapi["paths"].items()
        for method, operation in methods.items()
    }
    needed = {one.name: NEEDS[one.told or one.needs] for one in OPERATIONS if one.name in told}
    assert told == needed


def test_strangers_are_told_how_to_come_in_and_nothing_else(matrix: Matrix) -> None:
    """Whatever they ask for: the same bytes to all with the same credentials."""
    answers: dict[tuple[str, bool], set[Exchange]] = defaultdict(set)
    for cell, operation, _ in matrix.cells():
        if not matrix.callers[cell[1]].is_known and operation.needs != "nothing":
            answers[cell[1], operation.is_drafting].add(matrix.answers[cell])
    assert len(answers) == 14
    assert {key: len(found) for key, found in answers.items() if len(found) > 1} == {}
    for (_, is_drafting), [answer] in answers.items():
        told = json.loads(answer.body)
        asked = dict(answer.headers).get("www-authenticate")
        if is_drafting:
            assert (answer.status, list(told), asked) == (403, ["detail"], None)
        else:
            assert (answer.status, list(told), asked) == (401, ["error", "message"], "Bearer")


def test_what_one_may_not_see_is_what_does_not_exist(matrix: Matrix) -> None:
    """Byte for byte; but drafting and ingestion make a project of which nobody has heard."""
    hidden: dict[tuple[str, str], dict[str, Exchange]] = defaultdict(dict)
    for cell, operation, status in matrix.cells():
        name, caller, whose = cell
        is_too_low = status == 403 and matrix.callers[caller].tiers.get(whose)
        if status != operation.ok and not is_too_low:
            hidden[name, caller][whose] = matrix.answers[cell]
    compared = {key: found for key, found in hidden.items() if len(found) > 1}
    assert len(compared) > 400
    assert [key for key, found in compared.items() if len(set(found.values())) > 1] == []


def test_what_is_refused_changes_nothing(matrix: Matrix) -> None:
    assert matrix.after == matrix.before


# --- who is shown what


def test_nobody_is_shown_what_is_anothers(matrix: Matrix) -> None:
    forbidden = {
        name: [word for word in CANARIES if not word.startswith(caller.sees or ("-",))]
        for name, caller in matrix.callers.items()
    }
    shown = [
        (cell, word)
        for cell, answer in matrix.answers.items()
        for word in forbidden[cell[1]]
        if answer.shows(word)
    ]
    assert shown == []


def test_who_may_see_nothing_is_not_shown_an_id_either(matrix: Matrix) -> None:
    ids = set(matrix.own.ids.values()) - set(matrix.foreign.ids.values())
    assert len(ids) >= len(OWNED)
    shown = [
        (cell, one)
        for cell, answer in matrix.answers.items()
        for one in ids
        if not matrix.callers[cell[1]].sees and answer.shows(one)
    ]
    assert shown == []


@pytest.mark.parametrize("caller", ["alice", "alice's key", "bob", "carol", "dave", "admin"])
def test_whoever_may_is_shown_it(matrix: Matrix, caller: str) -> None:
    """Or else the test above would hold of a service that shows nothing."""
    shown = {
        word
        for cell, answer in matrix.answers.items()
        for word in CANARIES
        if cell[1] == caller and answer.shows(word)
    }
    sees = matrix.callers[caller].sees or ("-",)
    assert shown == {word for word in CANARIES if word.startswith(sees)}


@pytest.mark.parametrize(("caller", "word"), [("carol", f"{PROJECT}text"), ("bob", "some text")])
def test_what_is_retrieved_is_of_the_project(matrix: Matrix, caller: str, word: str) -> None:
    """The model says what it was told, so it was told no more than is shown."""
    [asked] = [
        answer
        for (name, who, _), answer in matrix.answers.items()
        if who == caller
        and answer.status == 200
        and name.endswith("POST /chat/projects/{project_id}")
    ]
    assert asked.shows(f"{FACT}, says {word}.")


def test_what_callers_send_is_never_said(matrix: Matrix) -> None:
    secrets = [*matrix.secrets, MODEL_KEY, SEARCH_KEY, PROVIDER_KEY]
    said = [cell for cell, answer in matrix.answers.items() if any(map(answer.shows, secrets))]
    assert said == []


def test_the_log_has_nothing_of_what_people_wrote(matrix: Matrix) -> None:
    """At DEBUG, and not even while they ask themselves."""
    secrets = [*matrix.secrets, MODEL_KEY, SEARCH_KEY, PROVIDER_KEY]
    words = [*CANARIES, *map(str.lower, secrets)]
    assert len(matrix.lines) > 2000
    assert [line for line in matrix.lines if any(word in line.lower() for word in words)] == []


# --- ids inside of others, and in bodies

INNER = ("grant_id", "version", "used_version")
NESTED = re.compile(r"/\{project_id\}/.*(\{grant_id\}|\{version\}|/restore)")


def test_what_is_in_another_project_is_not_found_through_ones_own(matrix: Matrix) -> None:
    """Not by Bob, who may do all in his; nor by an admin, who may do all in both."""
    before = digests(matrix.service)
    mixed, nobodys = (
        World("mixed", {**matrix.foreign.ids, **{name: inner.ids[name] for name in INNER}})
        for inner in (matrix.own, unknown())
    )
    found = {
        (operation.name, caller): [
            matrix.ask(caller, operation, world) for world in (mixed, nobodys)
        ]
        for operation in OPERATIONS
        for caller in ("bob", "admin")
        if NESTED.search(operation.path)
    }
    assert [key for key, (one, other) in found.items() if one != other or one.status != 404] == []
    assert len(found) == 8
    assert digests(matrix.service) == before


@pytest.mark.parametrize("name", ["version", "used_version"])
def test_a_projects_own_texts_are_not_those_of_the_service(matrix: Matrix, name: str) -> None:
    ids = {**unknown().ids, "service_path": matrix.own.ids["path"]}
    mine = {"service_version": matrix.own.ids[name], "service_used": matrix.own.ids[name]}
    of_service = [
        one for one in OPERATIONS if one.path.startswith("/api/v1/") and one.given
        and "{version}" in one.path and "{project_id}" not in one.path
    ]  # fmt: skip
    assert len(of_service) == 2
    for operation in of_service:
        one, other = (
            matrix.ask("bob", operation, World("mixed", values))
            for values in ({**ids, **mine}, ids)
        )
        assert (one.status, one) == (404, other)


@pytest.mark.parametrize("caller", ["bob", "carol", "dave", "admin"])
def test_nobody_goes_on_with_a_conversation_of_another(matrix: Matrix, caller: str) -> None:
    before = digests(matrix.service)
    project = matrix.foreign if caller == "bob" else matrix.own
    path = f"/chat/projects/{project.ids['project_id']}"
    found = [
        Exchange.of(
            matrix.clients[caller].post(path, json={"message": "Go on", "conversationId": one})
        )
        for one in (matrix.own.ids["conversation_id"], str(uuid.uuid4()))
    ]
    assert (found[0].status, found[0]) == (404, found[1])

    body = {
        "message": "Go on",
        "project_id": project.ids["project_id"],
        "conversation_id": matrix.own.ids["conversation_id"],
    }
    refused = matrix.clients[caller].post("/api/v1/chat/stream", json=body)
    assert (refused.status_code, list(refused.json())) == (403, ["detail"])
    assert digests(matrix.service) == before


@pytest.mark.parametrize("caller", ["bob", "carol", "dave", "admin", "service"])
def test_nobody_resumes_a_stream_of_another(matrix: Matrix, caller: str) -> None:
    found = []
    for run_id in (matrix.own.ids["run_id"], str(uuid.uuid4())):
        path, client = f"/runs/{run_id}/stream", matrix.clients[caller]
        found += [
            Exchange.of(client.get(path, headers={"Last-Event-ID": f"{run_id}:1"})),
            Exchange.of(client.get(path, params={"after": 1})),
        ]
    assert (found[0].status, set(found)) == (404, {found[0]})


# --- access that is taken back


def test_access_that_is_taken_back_counts_no_more(matrix: Matrix) -> None:
    """From the very next request on, whatever it is; and it counts again once it is given back."""
    alice, carol, ids = matrix.clients["alice"], matrix.clients["carol"], matrix.own.ids
    project = f"/projects/{ids['project_id']}"
    events = read(carol, "POST", f"/chat{project}", json={"message": PUMP})
    told = {event.name: event.data for event in events}
    paths = {
        project: 404,
        f"/chat{project}/conversations": 404,
        f"/chat/conversations/{told['meta']['conversationId']}": 404,
        f"/runs/{told['meta']['messageId']}": 404,
        f"/runs/{told['meta']['messageId']}/stream": 404,
        f"/chat/chunks/{told['sources']['chunks'][0]['id']}/source": 404,
        f"/documents/{ids['document_id']}/content": 404,
        f"/documents/{ids['document_id']}/events": 404,
        f"/api/v1/knowledge/search?q=pump&project_id={ids['project_id']}": 403,
        f"/api/v1{project}/texts": 403,
        "/projects": 200,
        "/chat/recent": 200,
    }
    grants = alice.get(f"{project}/grants").json()["grants"]
    carols = matrix.users["carol"]["id"]
    [grant] = [one["id"] for one in grants if one["targetId"] == carols]
    for path, refused in paths.items():
        before = carol.get(path)
        assert alice.delete(f"{project}/grants/{grant}").status_code == 204
        gone = carol.get(path)
        body = {"targetType": "user", "targetId": carols, "tier": "use"}
        grant = posted(alice, f"{project}/grants", body)["grant"]["id"]
        again = carol.get(path)
        assert (before.status_code, gone.status_code) == (200, refused), path
        assert (again.status_code, again.content) == (200, before.content), path
        if refused == 200:
            assert ids["project_id"] in before.text
            assert ids["project_id"] not in gone.text


def test_a_group_that_a_token_does_not_name_gives_nothing(matrix: Matrix) -> None:
    path = f"/projects/{matrix.own.ids['project_id']}"
    assert matrix.clients["dave"].get(path).json()["project"]["accessTier"] == "edit"
    left = f"Bearer {token(JWT_SECRET, 'dave')}"
    assert matrix.clients["dave"].get(path, headers={"Authorization": left}).status_code == 404


def test_an_erased_project_has_no_heirs(matrix: Matrix) -> None:
    """Who knows its id would be its owner, and be told who had used how much of it."""
    alice, carol = matrix.clients["alice"], matrix.clients["carol"]
    erased = posted(alice, "/projects", {"name": "Once"})["project"]["id"]
    read(alice, "POST", f"/chat/projects/{erased}", json={"message": PUMP})
    assert alice.delete(f"/projects/{erased}").status_code == 204
    gone = World("erased", {**matrix.foreign.ids, "project_id": erased})
    for operation in (one for one in OPERATIONS if one.needs.endswith("or first")):
        one, other = (matrix.ask("carol", operation, world) for world in (gone, matrix.foreign))
        assert (one.status, one) == (403, other)
    assert carol.get("/usage", params={"projectId": erased}).status_code == 404


# --- what is not read before it is known who sent it

TAKES_BODY = [one for one in OPERATIONS if one.body is not None or one.files]
BROKEN: dict[str, Any] = {
    "json": None, "files": None, "headers": {"Content-Type": "application/json"}
}  # fmt: skip


@pytest.mark.parametrize("body", [b"{", b"[" * 5_000_000], ids=["broken", "5 MB"])
def test_a_body_is_not_read_before_its_sender_is_known(matrix: Matrix, body: bytes) -> None:
    """A stranger's answer is the same as to a body that could be taken."""
    for operation in TAKES_BODY if len(body) == 1 else TAKES_BODY[::8]:
        for caller in ("nothing", "wrong key", "expired token", "contradicting"):
            refused = matrix.ask(caller, operation, matrix.own, content=body, **BROKEN)
            assert refused == matrix.ask(caller, operation, matrix.own), operation.name


def test_a_broken_body_tells_nobody_what_exists(matrix: Matrix) -> None:
    for operation in (one for one in TAKES_BODY if "unknown" in one.worlds):
        one, other = (
            matrix.ask("bob", operation, world, content=b"{", **BROKEN)
            for world in (matrix.own, unknown())
        )
        assert (one.status in (400, 403, 404, 422), one) == (True, other), operation.name
