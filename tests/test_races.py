"""Two workers and one conversation: asked, stopped and deleted all at once, from both.

Three rounds, or as many as ROUNDS says: `ROUNDS=30 .venv/bin/python -m pytest tests/test_races.py`.
"""

import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
from askers import TERMINAL, Reader, Seen, answer_to, asking, questions_in, replying, text_of
from conftest import Service, ServiceFactory, make_database, upload
from standins.openai import Answer, OpenAIStandIn
from test_chat import TIDES
from test_server import wait_until
from timed import timed

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ROUNDS", "3"))
ASKS, STOPS = 8, 2
WORDS = 8
LASTS_S = 1.2
QUICK = Answer(reply=replying(WORDS), delay_s=0.02)
LATER_S = 2

Told = list[tuple[str, str, str]]


class Workers(NamedTuple):
    """Two services on one database; `project` has a document, which the first one found."""

    first: Service
    second: Service
    project: str


@pytest.fixture(scope="module")
def workers(
    start_service: ServiceFactory, postgres_url: str, shared_model: OpenAIStandIn
) -> Iterator[Workers]:
    """Both ask the stand-in model; there the tests are told how it fared."""
    settings = {
        "openai_base_url": shared_model.base_url,
        "openai_model": "stand-in",
        "database_url": make_database(postgres_url),
    }
    with start_service(**settings) as first:
        with first.client() as http:
            project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
            upload(http, project, "tides.md", TIDES.encode())
        with start_service(**settings) as second:
            yield Workers(first, second, project)


class Round:
    """What is done to one conversation, all of it within `LASTS_S` seconds."""

    def __init__(self, workers: Workers, conversation: str, chance: random.Random) -> None:
        self._workers, self._chance = workers, chance
        self.conversation = conversation
        self.seen = Seen()
        self.asked: list[Reader] = []
        self.stops: list[httpx.Response] = []
        self.told: Told = []

    def play(self) -> None:
        """Do all of it at random moments, and wait until it is done."""
        work = [self._ask] * ASKS + [self._stop] * STOPS
        threads = [threading.Thread(target=self._later, args=(one,)) for one in work]
        threads.append(threading.Thread(target=self._later, args=(self._delete, LASTS_S / 2)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        for reader in self.asked:
            reader.join(30)
            assert not reader.is_alive(), "a stream did not end"

    def _later(self, work: Callable[[Service], None], least_s: float = 0) -> None:
        worker = self._chance.choice([self._workers.first, self._workers.second])
        time.sleep(self._chance.uniform(least_s, LASTS_S))
        work(worker)

    def _ask(self, worker: Service) -> None:
        question = f"question {uuid.uuid4().hex[:8]}?"
        reader = asking(
            worker.url, self._workers.project, question, self.seen,
            key=question, conversationId=self.conversation,
        )  # fmt: skip
        self.asked.append(reader)

    def _stop(self, worker: Service) -> None:
        until = time.monotonic() + LASTS_S
        while time.monotonic() < until:
            if going_on := [r.run_id for r in self.asked if r.run_id and r.is_alive()]:
                self.stops.append(httpx.post(f"{worker.url}/runs/{going_on[-1]}/stop"))
                return
            time.sleep(0.01)

    def _delete(self, worker: Service) -> None:
        with worker.client() as http:
            self.told = told(http, self.conversation)
            http.delete(f"/chat/conversations/{self.conversation}").raise_for_status()

    @property
    def runs(self) -> list[str]:
        """The runs that began, each named by its stream."""
        return [reader.run_id for reader in self.asked if reader.run_id]


def told(http: httpx.Client, conversation: str) -> Told:
    found = http.get(f"/chat/conversations/{conversation}").json()["conversation"]
    return [(m["role"], m["content"], m["status"]) for m in found["messages"]]


def first_turn(workers: Workers, seen: Seen) -> Reader:
    reader = asking(workers.first.url, workers.project, "question first?", seen)
    assert reader.last().name == "done"
    return reader


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_asks_stops_and_a_delete_at_once_leave_one_linear_history_and_then_nothing(
    workers: Workers, model: OpenAIStandIn
) -> None:
    chance = random.Random(int(os.environ.get("SEED", "1")))
    gone: list[tuple[str, list[str]]] = []
    for _ in range(ROUNDS):
        model.reset()
        model.will(QUICK)
        opened = first_turn(workers, Seen())
        round_ = Round(workers, opened.events[0].data["conversationId"], chance)
        round_.play()
        check_answers(round_)
        check_history(round_.told, accepted(round_))
        check_prompts(model, accepted(round_))
        late = asking(
            chance.choice(workers[:2]).url, workers.project, "question late?", round_.seen,
            conversationId=round_.conversation,
        )  # fmt: skip
        late.join(30)
        assert (late.status, late.refusal["error"]) == (404, "not_found")
        gone.append((round_.conversation, [*round_.runs, str(opened.run_id)]))
        assert left_of(workers.first, *gone[-1]) == {}
    time.sleep(LATER_S)
    assert [left_of(workers.first, *one) for one in gone] == [{}] * ROUNDS


def accepted(round_: Round) -> list[str]:
    """The questions that were taken."""
    return [reader.asks for reader in round_.asked if reader.status == 200]


def check_answers(round_: Round) -> None:
    """200 with one terminal event, or 409 with a run that there was, or 404 after the delete."""
    assert {reader.status for reader in round_.asked} <= {200, 404, 409}
    for reader in round_.asked:
        if reader.status == 200:
            assert reader.events[-1].name in TERMINAL, reader.events
        if reader.status == 409:
            assert reader.refusal["runId"] in round_.runs
    assert {answer.status_code for answer in round_.stops} <= {200, 404}
    round_.seen.check()


def check_history(told: Told, accepted: list[str]) -> None:
    """Question and answer take turns; each question was accepted, and stands there once."""
    assert [role for role, *_ in told] == ["user", "assistant"] * (len(told) // 2)
    questions = [content for role, content, _ in told if role == "user"]
    assert questions[0] == "question first?"
    assert len(set(questions)) == len(questions)
    assert set(questions[1:]) <= set(accepted)
    for (_, question, _), (_, answer, status) in zip(told[::2], told[1::2], strict=True):
        whole = "".join(answer_to(question, WORDS))
        assert answer == whole if status == "complete" else whole.startswith(answer)
    assert "streaming" not in [status for *_, status in told[:-1]]


def check_prompts(model: OpenAIStandIn, accepted: list[str]) -> None:
    """Each prompt goes on where the one before ended: no fork, and nothing left out."""
    prompts = [questions_in(chat.body) for chat in model.chats]
    if len(prompts) > 1 and len(prompts[-1]) == 1:
        # The conversation was deleted just before the last run read it.
        assert prompts.pop()[0] in accepted
    for before, after in zip(prompts, prompts[1:], strict=False):
        assert after[: len(before)] == before
        assert len(after) > len(before)
    assert set(prompts[-1][1:]) <= set(accepted)
    assert len(set(prompts[-1])) == len(prompts[-1])


def left_of(service: Service, conversation: str, runs: list[str]) -> dict[str, int]:
    """Rows that are left of a conversation, by table."""
    run_ids = [uuid.UUID(run) for run in runs]
    counts = {
        table: service.query(_COUNT.format(table, where), conversation, run_ids)[0]["n"]
        for table, where in _ROWS_OF.items()
    }
    return {table: count for table, count in counts.items() if count}


_COUNT = """
with gone as (select %s::uuid as conversation, %s::uuid[] as run_ids)
select count(*) as n from {}, gone where {}
"""
_ROWS_OF = {
    "conversations": "id = gone.conversation",
    "messages": "conversation_id = gone.conversation or id = any(gone.run_ids)",
    "runs": "conversation_id = gone.conversation or id = any(gone.run_ids)",
    "run_events": "run_id = any(gone.run_ids)",
    "run_keys": "run_id = any(gone.run_ids)",
    "cited_passages": "message_id = any(gone.run_ids)",
    "checkpoints": "thread_id = gone.conversation::text",
    "checkpoint_blobs": "thread_id = gone.conversation::text",
    "checkpoint_writes": "thread_id = gone.conversation::text",
}


@timed
def test_stop_from_another_worker_closes_the_upstream_and_keeps_part_and_citations(
    workers: Workers, model: OpenAIStandIn
) -> None:
    model.will(Answer(["The alarm sounds at 4.90 m. ", "Then "], end="hang"))
    seen = Seen()
    reader = asking(workers.first.url, workers.project, "When does the alarm sound?", seen).has(5)
    with workers.second.client() as http:
        began = time.monotonic()
        first = http.post(f"/runs/{reader.run_id}/stop")
        again = http.post(f"/runs/{reader.run_id}/stop")
        assert model.wait_for_hangup(model.chats[0]) - began < 1
        assert (first.status_code, first.json()) == (again.status_code, again.json())
        run = first.json()["run"]
        assert (run["status"], run["finishReason"], run["nextRunId"]) == (
            "stopped",
            "stopped",
            None,
        )
        done = reader.last()
        assert (done.name, done.data["finishReason"]) == ("done", "stopped")
        assert run["seq"] == len(reader.events)
        conversation = reader.events[0].data["conversationId"]
        found = http.get(f"/chat/conversations/{conversation}").json()["conversation"]
    _, answer = found["messages"]
    assert (answer["content"], answer["status"]) == (text_of(reader.events), "stopped")
    assert answer["content"].startswith("The alarm sounds at 4.90 m. [1] Then")
    assert [(c["index"], c["by"]) for c in answer["citations"]] == [(1, "service")]
    assert answer["citations"] == done.data["citations"]
    seen.check()


def test_delete_from_another_worker_ends_the_run_and_its_stream(
    workers: Workers, model: OpenAIStandIn
) -> None:
    model.will(Answer(["Half", " an"], end="hang"))
    seen = Seen()
    reader = asking(workers.first.url, workers.project, "question deleted?", seen, key="k").has(4)
    conversation = reader.events[0].data["conversationId"]
    with workers.second.client() as http:
        http.delete(f"/chat/conversations/{conversation}").raise_for_status()
        model.wait_for_hangup(model.chats[0])
        assert reader.last().name in TERMINAL
        runs: list[Any] = [
            http.get(f"/runs/{reader.run_id}"),
            http.post(f"/runs/{reader.run_id}/stop"),
        ]
        assert [answer.status_code for answer in runs] == [404, 404]
    assert left_of(workers.first, conversation, [str(reader.run_id)]) == {}
    seen.check()


@pytest.mark.parametrize("whole", ["conversation", "project"])
def test_a_question_that_meets_the_deletion_of_what_it_is_in_is_stopped(
    workers: Workers, model: OpenAIStandIn, whole: str
) -> None:
    with workers.first.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
    seen = Seen()
    opened = asking(workers.first.url, project, "question first?", seen)
    assert opened.last().name == "done"
    conversation = opened.events[0].data["conversationId"]
    path = {
        "conversation": f"/chat/conversations/{conversation}",
        "project": f"/projects/{project}",
    }[whole]
    model.will(Answer(["Half", " an"], end="hang"))
    with ThreadPoolExecutor() as pool:
        with workers.first.changing() as holding:
            # The deletion comes to these when no run goes on, and before it comes to the rows.
            holding.execute(
                "select from checkpoints where thread_id = %s for share", (conversation,)
            )
            deleted = pool.submit(httpx.delete, workers.first.url + path, timeout=30)
            wait_until(lambda: waits_for_a_lock(workers.first), 30)
            reader = asking(
                workers.first.url, project, "question meanwhile?", seen,
                **({"conversationId": conversation} if whole == "conversation" else {}),
            ).has(4)  # fmt: skip
        assert deleted.result().status_code == 204
    done = reader.last()
    assert (done.name, done.data.get("finishReason")) == ("done", "stopped")
    asked_in = reader.events[0].data["conversationId"]
    assert left_of(workers.first, asked_in, [str(reader.run_id)]) == {}
    seen.check()


def test_a_retry_that_meets_the_deletion_of_its_conversation_waits_for_it(
    workers: Workers, model: OpenAIStandIn
) -> None:
    seen = Seen()
    ask = partial(asking, workers.first.url, workers.project, "question again?", seen, key="retry")
    conversation = first_turn(workers, seen).events[0].data["conversationId"]
    model.will(Answer(status=503))
    assert ask(conversationId=conversation).last().name == "error"
    with workers.first.changing() as deleting:
        # As the deletion does first, before it comes to the keys.
        deleting.execute("select from conversations where id = %s for update", (conversation,))
        again = ask(conversationId=conversation)
        wait_until(lambda: waits_for_a_lock(workers.first), 30)
        deleting.execute("delete from conversations where id = %s", (conversation,))
    again.join(30)
    assert (again.status, again.refusal["error"]) == (404, "not_found")


def test_a_question_that_meets_the_deletion_of_its_project_is_404(
    workers: Workers, model: OpenAIStandIn
) -> None:
    with workers.first.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
    with workers.first.changing() as deleting:
        deleting.execute("select from projects where id = %s for update", (project,))
        reader = asking(workers.first.url, project, "question too late?", Seen())
        wait_until(lambda: waits_for_a_lock(workers.first), 30)
        deleting.execute("delete from projects where id = %s", (project,))
    reader.join(30)
    assert (reader.status, reader.refusal["error"]) == (404, "not_found")


def test_a_run_that_ends_while_a_document_that_it_cites_is_erased_waits_for_that(
    workers: Workers, model: OpenAIStandIn
) -> None:
    with workers.first.client() as http:
        document = upload(http, workers.project, "ebb.md", b"The ebb begins at 5.12 o'clock.")
    model.will(Answer(["The ebb begins at 5.12 o'clock. ", *["Then "] * 5], delay_s=0.3))
    reader = asking(workers.first.url, workers.project, "When is the ebb?", Seen()).has(3)
    noted = "select from runs where id = %s and documents <> '{}'"
    wait_until(lambda: bool(workers.first.query(noted, reader.run_id)), 30)
    with workers.first.changing() as erasing:
        erasing.execute("delete from documents where id = %s", (document["id"],))
        wait_until(lambda: waits_for_a_lock(workers.first), 30)
        # Who comes second to a deadlock is refused then.
        time.sleep(1.2)
        erasing.execute("update runs set is_followable = false where id = %s", (reader.run_id,))
    assert reader.last().name == "done"
    [answer] = workers.first.query("select citations from messages where id = %s", reader.run_id)
    assert [(c["documentName"], c["quote"]) for c in answer["citations"]] == [("ebb.md", "")]


def waits_for_a_lock(service: Service) -> bool:
    return bool(
        service.query(
            "select from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
    )
