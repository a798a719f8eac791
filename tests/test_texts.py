"""Edits while the service answers: what a turn keeps, what the next one sees, what is told."""

import asyncio
import re
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory
from fastapi.exceptions import RequestValidationError
from folders import ANSWER, FRONT, PLAN, Folders
from sse import read
from standins.openai import Answer, OpenAIStandIn
from standins.tavily import SearchAnswer, TavilyStandIn

from api.access.principals import LOCAL_USER, Principal
from api.questions import known_doc_type
from graph.postgres import Pool, open_pool
from graph.texts.document_types import version_of
from graph.texts.history import used_as
from graph.texts.texts import Texts


@dataclass(frozen=True)
class Desk:
    """A service whose texts may be edited while it answers, and the model that it asks."""

    folders: Folders
    http: httpx.Client
    service: Service
    project: str
    model: OpenAIStandIn
    tavily: TavilyStandIn

    def draft(self, **changes: Any) -> dict[str, Any]:
        """The `done` of a draft of PLAN."""
        body = {
            "conversation_id": str(uuid.uuid4()),
            "project_id": self.project,
            "message": "Why?",
            "doc_type": "PLAN",
            **changes,
        }
        *_, done = read(self.http, "POST", "/api/v1/chat/stream", json=body)
        assert done.name == "done", done
        return dict(done.data)

    def ask(self, **changes: Any) -> dict[str, Any]:
        """The `done` of an answer."""
        body = {"message": "Why?", **changes}
        *_, done = read(self.http, "POST", f"/chat/projects/{self.project}", json=body)
        assert done.name == "done", done
        return dict(done.data)

    def received(self) -> list[list[str]]:
        """What the model was given, without the keys of delimiters."""
        return [
            [re.sub(r"(?<=\w)-[b-z]{8}(?=[ >])", "", m["content"]) for m in chat.body["messages"]]
            for chat in self.model.chats
        ]

    def recall(self, version: str, project: str | None = None) -> Mapping[str, str] | None:
        """The texts of a version, as they are stored."""
        used = self._with_pool(lambda pool: used_as(pool, version, project))
        return used and used.parts

    def elsewhere(self, do: Callable[[Texts], Awaitable[Any]]) -> Any:
        """Do something with the same texts as another process would."""
        return self._with_pool(lambda pool: do(Texts(**self.folders.settings, pool=pool)))

    def _with_pool(self, do: Callable[[Pool], Awaitable[Any]]) -> Any:

        async def whole() -> Any:
            url = self.service.settings.database_url
            assert url is not None
            async with open_pool(url.get_secret_value()) as pool:
                return await do(pool)

        return asyncio.run(whole())


@contextmanager
def meanwhile(do: Callable[[], Any]) -> Iterator[list[Any]]:
    """`do` in a thread while the block runs; the list holds its result afterwards."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(do()))
    thread.start()
    try:
        yield results
    finally:
        thread.join(30)


@pytest.fixture(scope="module")
def running_desk(
    start_service: ServiceFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    folders = Folders(tmp_path_factory.mktemp("texts"))
    with ExitStack() as stack:
        model, tavily = stack.enter_context(OpenAIStandIn()), stack.enter_context(TavilyStandIn())
        folders.write_all()
        service = stack.enter_context(
            start_service(
                **folders.settings,
                openai_base_url=model.base_url,
                openai_model="stand-in",
                tavily_api_key="tvly-canary-key",
                tavily_base_url=tavily.base_url,
            )
        )
        http = stack.enter_context(service.client())
        project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        yield Desk(folders, http, service, project, model, tavily)


@pytest.fixture
def desk(running_desk: Desk) -> Desk:
    """The desk with its texts as they were, and no edits."""
    running_desk.folders.write_all()
    with running_desk.service.changing() as connection:
        connection.execute("delete from text_edits")
    running_desk.model.reset()
    running_desk.tavily.reset()
    return running_desk


def shown(body: str) -> str:
    """The question as the model is given it with the template `body`."""
    return "\n".join(
        [
            f"<template>\n{body}\n</template>\n",
            "<criteria>\n- Every step has a date.\n</criteria>",
            "<question>\nWhy?\n</question>",
        ]
    )


def test_an_edit_on_disk_while_an_answer_streams_counts_for_the_next_one(desk: Desk) -> None:
    desk.model.will(Answer(["Be", "cause"], delay_s=0.3), Answer(["So"]))
    old = [(desk.folders.root / path).read_text() for path in ("prompts/draft.md", PLAN)]
    layout = (desk.folders.root / "prompts/question.md").read_text()
    with meanwhile(desk.draft) as drafted:
        desk.model.wait_for_request()
        new_prompt = "Now draft {{ title }}."
        desk.folders.write("prompts/draft.md", new_prompt)
        new_template = desk.folders.write_type("# New {{ project_name }}")
    next_one = desk.draft()

    assert desk.received() == [
        ["Draft Plan as Markdown.", shown("# Harbour\n\n## Why")],
        ["Now draft Plan.", shown("# New Harbour")],
    ]
    texts = [(old[0], old[1]), (new_prompt, new_template)]
    for done, (prompt, template) in zip((drafted[0], next_one), texts, strict=True):
        metadata = done["metadata"]
        assert (metadata["prompt_version"], metadata["template_version"]) == (
            version_of(prompt, layout),
            version_of(template),
        )
        assert desk.recall(metadata["prompt_version"]) == {
            "prompts/draft.md": prompt,
            "prompts/question.md": layout,
        }
        assert desk.recall(metadata["template_version"]) == {PLAN: template}


def test_an_edit_during_the_web_search_does_not_reach_the_turn(desk: Desk) -> None:
    desk.tavily.will(SearchAnswer([], delay_s=0.4))
    with meanwhile(lambda: desk.ask(mode="web")) as answered:
        desk.tavily.wait_for_request()
        for name in ("answer", "question"):
            desk.folders.write(f"prompts/{name}.md", f"New {name}.")
    next_one = desk.ask()
    assert desk.received() == [
        ["Answer Developer.", "<question>\nWhy?\n</question>"],
        ["New answer.", "New question."],
    ]
    old = version_of("Answer {{ user_name }}.", "{{ material }}\n{{ question }}")
    new = version_of("New answer.", "New question.")
    assert [answered[0]["promptVersion"], next_one["promptVersion"]] == [old, new]
    assert [answered[0]["templateVersion"], next_one["templateVersion"]] == [None, None]


def test_an_edit_made_in_another_process_counts_for_the_next_turn(
    desk: Desk, start_service: ServiceFactory
) -> None:
    database, other = desk.service.settings.database_url, str(uuid.uuid4())
    with (
        start_service(
            **desk.folders.settings,
            database_url=database,
            openai_base_url=desk.model.base_url,
            openai_model="stand-in",
        ) as second,
        second.client() as http,
    ):
        there = Desk(desk.folders, http, second, desk.project, desk.model, desk.tavily)
        first = [one.ask()["promptVersion"] for one in (desk, there)]
        assert first[0] == first[1]
        seen = version_of("Answer {{ user_name }}.")
        desk.elsewhere(lambda texts: texts.save(ANSWER, "Edited.", expected=seen))
        second_ = [one.ask()["promptVersion"] for one in (desk, there)]
        assert second_ == [version_of("Edited.", "{{ material }}\n{{ question }}")] * 2
        desk.elsewhere(
            lambda texts: texts.save(
                ANSWER, "Own.", project_id=desk.project, expected=version_of("Edited.")
            )
        )
        third = [one.ask()["promptVersion"] for one in (desk, there)]
        assert third[0] == third[1]
        desk.draft(project_id=other, doc_type=None)
    assert [system for system, _ in desk.received()] == [
        *["Answer Developer."] * 2,
        *["Edited."] * 2,
        *["Own."] * 2,
        "Edited.",
    ]
    own = {ANSWER: "Own.", "prompts/question.md": "{{ material }}\n{{ question }}"}
    assert [desk.recall(third[0], one) for one in (desk.project, other, None)] == [own, None, None]


def test_a_new_folder_is_a_new_type_and_a_project_may_have_its_own(desk: Desk) -> None:
    types = "/api/v1/document-types"

    def listed(**params: str) -> list[str]:
        found = desk.http.get(types, params=params).json()["document_types"]
        return [one["type"] for one in found]

    assert listed() == ["PLAN"]
    source = FRONT.format(output_path="NEW.md").replace("order: 5", "order: 1") + "New."
    desk.folders.write("templates/planning/NEW/template.md", source)
    assert listed() == ["NEW", "PLAN"]
    assert desk.draft(doc_type="NEW")["metadata"]["template_version"] == version_of(source)

    own = source.replace("order: 1", "order: 9")
    path = "templates/planning/OWN/template.md"
    desk.elsewhere(lambda texts: texts.save(path, own, project_id=desk.project, expected=None))
    assert (listed(), listed(project_id=desk.project)) == (["NEW", "PLAN"], ["NEW", "PLAN", "OWN"])
    assert desk.draft(doc_type="OWN")["metadata"]["template_version"] == version_of(own)
    workflow = desk.http.get(f"/api/v1/projects/{desk.project}/workflow").json()
    assert [one["type"] for one in workflow["documents"]] == ["NEW", "PLAN", "OWN"]

    body = {"conversation_id": str(uuid.uuid4()), "message": "Why?", "doc_type": "OWN"}
    elsewhere = {**body, "project_id": str(uuid.uuid4())}
    refused = desk.http.post("/api/v1/chat/stream", json=elsewhere)
    assert refused.status_code == 422
    assert "There is no document type 'OWN'" in refused.text


def test_nobody_is_told_which_types_a_project_of_somebody_else_has(desk: Desk) -> None:
    source = FRONT.format(output_path="OWN.md")
    path = "templates/planning/OWN/template.md"
    desk.elsewhere(lambda texts: texts.save(path, source, project_id=desk.project, expected=None))
    guest = Principal(uuid.uuid4(), "guest", "Guest", is_admin=False)

    async def whole() -> list[str]:
        url = desk.service.settings.database_url
        assert url is not None
        async with open_pool(url.get_secret_value()) as pool:
            parts: Any = SimpleNamespace(texts=Texts(**desk.folders.settings, pool=pool), pool=pool)
            found = []
            for caller, name in ((LOCAL_USER, "OWN"), (guest, "OWN"), (guest, "PLAN")):
                try:
                    project = uuid.UUID(desk.project)
                    await known_doc_type(parts, name, caller=caller, project_id=project)
                    found.append("known")
                except RequestValidationError as error:
                    found.append(str(error.errors()[0]["msg"]))
            return found

    unknown = "There is no document type 'OWN'. The nearest known types are UNSORTED, PLAN."
    assert asyncio.run(whole()) == ["known", unknown, "known"]


def test_messages_say_which_words_made_them(desk: Desk) -> None:
    conversation = str(uuid.uuid4())
    metadata = desk.draft(conversation_id=conversation)["metadata"]
    found = desk.http.get(f"/chat/conversations/{conversation}").json()["conversation"]
    assert [(one["promptVersion"], one["templateVersion"]) for one in found["messages"]] == [
        (None, None),
        (metadata["prompt_version"], metadata["template_version"]),
    ]


def test_a_fault_in_one_text_fails_what_uses_it_and_nothing_else(desk: Desk) -> None:
    desk.folders.write("prompts/draft.md", "Draft.\n{{ nobody }}")
    body = {
        "conversation_id": str(uuid.uuid4()),
        "project_id": desk.project,
        "message": "Why?",
        "doc_type": "PLAN",
    }
    [event] = read(desk.http, "POST", "/api/v1/chat/stream", json=body)
    variables = "user_name, today, instructions, doc_type, title, format, is_json"
    assert (event.name, event.data) == (
        "error",
        {
            "error": "prompts/draft.md cannot be used. Line 2: There is no variable 'nobody'. "
            f"There are: {variables}.",
            "code": "STREAM_ERROR",
            "retry": False,
        },
    )
    assert desk.model.chats == []
    assert desk.ask()["finishReason"] == "stop"


def test_who_reads_a_file_that_cannot_be_used_is_told_why(desk: Desk) -> None:
    desk.folders.write("prompts/draft.md", b"Draft.\ncaf\xe9")
    text = "/api/v1/texts/prompts/draft.md"
    answers = [
        desk.http.get(text),
        desk.http.get(f"{text}/diff"),
        desk.http.post(f"{text}/preview", json={}),
    ]
    told = {"detail": "prompts/draft.md is not UTF-8 in line 2."}
    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, told)] * 3


def test_json_is_asked_for_and_passed_on_as_it_is(desk: Desk) -> None:
    source = desk.folders.write_type('{"why": "{{ project_name }}"}', "docs/planning/PLAN.json")
    desk.folders.write("prompts/draft.md", "{{ format }}{% if is_json %}, bare{% endif %}")
    said = ['{"why": [', "1", "], ", '"so": [7]', "}"]
    desk.model.will(Answer(said))
    done = desk.draft()
    assert done["full_response"] == '{"why": [1], "so": [7]}'
    assert done["metadata"]["template_version"] == version_of(source)
    assert desk.received() == [["JSON, bare", shown('{"why": "Harbour"}')]]
