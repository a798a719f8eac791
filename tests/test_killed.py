"""Processes that die, are told to go, or only were slow: each question has one answer in the end.

Two kills, or as many as KILLS says: `KILLS=20 .venv/bin/python -m pytest tests/test_killed.py`.
With two the leases of the dead are made to be over, and looked at often; with more they are waited
for.
"""

import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from askers import (
    Api,
    Asker,
    Reader,
    Seen,
    answer_to,
    asking,
    calls,
    following,
    replying,
    text_of,
)
from conftest import Service, ServiceFactory
from fleets import OFTEN_S, Fleet
from standins.openai import Answer, OpenAIStandIn
from test_server import Process, drafting_body, stood_in, wait_until
from timed import timed

import api.runs.upkeep

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("KILLS", "2"))
IS_HASTY = ROUNDS == 2
ENDED_WITHIN_S = 60
APIS: list[Api] = ["chat", "drafting", "chat", "drafting"]
WORDS = 30
SLOWLY = Answer(reply=replying(WORDS), delay_s=0.05)
ENDLESS = Answer(reply=replying(1000), delay_s=0.05)


@pytest.fixture
def fleet(
    tmp_path: Path, postgres_url: str, model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """Processes that ask the stand-in model."""
    if IS_HASTY:
        monkeypatch.setattr(api.runs.upkeep, "RENEW_S", OFTEN_S)
    fleet = Fleet(tmp_path, stood_in(model, postgres_url), is_hasty=IS_HASTY)
    try:
        yield fleet
    finally:
        fleet.close()


def new_project(http: httpx.Client) -> str:
    return str(http.post("/projects", json={"name": "Gauges"}).json()["project"]["id"])


def told(http: httpx.Client, conversation: str | None) -> list[tuple[str, str, str]]:
    found = http.get(f"/chat/conversations/{conversation}").json()["conversation"]
    return [(m["role"], m["content"], m["status"]) for m in found["messages"]]


@pytest.mark.timeout(90 + 120 * ROUNDS)
def test_after_each_kill_every_question_is_there_once_and_has_one_answer_in_the_end(
    fleet: Fleet, model: OpenAIStandIn
) -> None:
    chance = random.Random(int(os.environ.get("SEED", "1")))
    model.will(SLOWLY)
    seen = Seen()
    fleet.start()
    with fleet.client() as http:
        project = new_project(http)
    asked: list[list[Asker]] = []
    closed_in_s: list[float] = []
    for round_ in range(ROUNDS):
        if round_ % 2 and len(fleet.live) == 1:
            fleet.start()
        asked.append(ask_all(fleet, project, seen, asked, chance))
        time.sleep(chance.uniform(0, 2))
        # Every other time one lives on.
        for process in fleet.live[: 1 if round_ % 2 else None]:
            fleet.kill(process)
        if not fleet.live:
            fleet.start()
        closed_in_s.append(wait_for_the_end_of_all(fleet, asked[-1]))
        for asker in asked[-1]:
            asker.join(100)
            assert asker.is_done, (asker.question, asker.events, seen.faults)
            assert asker.text == "".join(answer_to(asker.question, WORDS))
    with fleet.client() as http:
        for turns in zip(*asked, strict=True):
            check_conversation(told(http, turns[0].conversation), [a.question for a in turns])
    check_runs(fleet, model)
    assert fleet.select(_LONG_THREADS) == []
    seen.check()
    sys.stderr.write(
        f"\n{ROUNDS} kills, {len(seen.runs)} runs for {sum(map(len, asked))} questions; "
        f"after a kill all had ended within {max(closed_in_s):.1f} s\n"
    )


def ask_all(
    fleet: Fleet, project: str, seen: Seen, before: list[list[Asker]], chance: random.Random
) -> list[Asker]:
    """Ask the next question in each conversation, of any process."""

    def place() -> str:
        return chance.choice([process.url for process in fleet.live] or [gone])

    gone = fleet.live[0].url
    conversations = [asker.conversation for asker in before[-1]] if before else [None] * len(APIS)
    return [
        Asker(
            place, project, f"question {len(before)}-{n}?", seen, api=api, conversation=conversation
        )
        for n, (api, conversation) in enumerate(zip(APIS, conversations, strict=True))
    ]


def wait_for_the_end_of_all(fleet: Fleet, askers: list[Asker]) -> float:
    """Wait until no run goes on, and all have their answer; gives the seconds that it took."""
    began = time.monotonic()
    wait_until(lambda: all(a.is_done for a in askers) and not fleet.running(), ENDED_WITHIN_S)
    return time.monotonic() - began


def check_conversation(told: list[tuple[str, str, str]], questions: list[str]) -> None:
    """Each question once, then parts that failed, then its one answer."""
    rest = list(told)
    for question in questions:
        answer = "".join(answer_to(question, WORDS))
        assert rest.pop(0) == ("user", question, "complete"), told
        while rest and rest[0][2] == "failed":
            role, part, _ = rest.pop(0)
            assert role == "assistant"
            assert answer.startswith(part), told
        assert rest.pop(0) == ("assistant", answer, "complete"), told
    assert rest == []


def check_runs(fleet: Fleet, model: OpenAIStandIn) -> None:
    """A run asks the model once at most, and the service asks a turn again twice at most."""
    runs = fleet.select(_RUNS)
    assert {row["question"] for row in runs} == set(calls(model.chats))
    for row in runs:
        assert row["done"] == 1, row
        assert calls(model.chats)[row["question"]] <= row["runs"], row
        assert row["attempts"] <= 2, row


_RUNS = """
select m.content as question, count(*) as runs, max(r.attempt) as attempts,
    count(*) filter (where r.status = 'done') as done
from runs r join messages m on m.id = r.question_id group by m.id
"""
_LONG_THREADS = """
select thread_id, checkpoint_ns from checkpoints group by 1, 2 having count(*) > 1
"""


def survivor(
    start_service: ServiceFactory, settings: dict[str, str], **more: str
) -> AbstractContextManager[Service]:
    """Another worker on the same database, in this process."""
    return start_service(**{name.lower(): value for name, value in settings.items()}, **more)


def test_with_fail_nothing_is_asked_again_but_by_its_key(
    fleet: Fleet, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    seen, question = Seen(), "question fail?"
    model.will(ENDLESS)
    with (
        survivor(start_service, fleet.settings, chat_on_crash="fail") as other,
        other.client() as http,
    ):
        victim = fleet.start()
        project = new_project(http)
        dead = asking(victim.url, project, question, seen, key="a-key").has(10)
        time.sleep(0.6)
        young = asking(victim.url, project, "question young?", seen).has(1)
        fleet.kill(victim)
        model.will(SLOWLY)
        closed = following(other.url, str(dead.run_id), seen)
        assert closed.last(ENDED_WITHIN_S).data == {
            **closed.events[-1].data, "type": "error", "message": "LLM_CONNECTION_ERROR",
        }  # fmt: skip
        assert "nextRunId" not in closed.events[-1].data
        assert len(closed.events) > 5
        conversation = closed.events[0].data["conversationId"]
        run = http.get(f"/runs/{dead.run_id}").json()["run"]
        assert (run["status"], run["nextRunId"]) == ("failed", None)
        part = text_of(closed.events)
        assert told(http, conversation) == [
            ("user", question, "complete"),
            ("assistant", part, "failed"),
        ]
        # Of this one hardly anything was kept, but it was shown.
        place = f"/runs/{young.run_id}/stream?after={len(young.events)}"
        rest = Reader(other.url, "GET", place, seen)
        assert (rest.last().name, len(rest.events)) == ("error", 1)
        assert calls(model.chats)[question] == 1
        again = asking(other.url, project, question, seen, key="a-key")
        assert again.last().name == "done"
        assert again.run_id != dead.run_id
        assert told(http, conversation) == [
            ("user", question, "complete"),
            ("assistant", part, "failed"),
            ("assistant", "".join(answer_to(question, WORDS)), "complete"),
        ]
    assert calls(model.chats)[question] == 2
    seen.check()


def test_a_process_that_was_only_slow_is_given_up_and_changes_nothing_afterwards(
    fleet: Fleet, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    seen = Seen()
    model.will(ENDLESS, ENDLESS, SLOWLY)
    with survivor(start_service, fleet.settings) as other, other.client() as http:
        slow = fleet.start()
        project = new_project(http)
        lost = asking(slow.url, project, "question lost?", seen).has(10)
        stopped = asking(slow.url, project, "question stopped?", seen).has(10)
        time.sleep(0.6)
        with halted(slow):
            stop = f"{other.url}/runs/{stopped.run_id}/stop"
            asked = in_thread(lambda: httpx.post(stop, timeout=ENDED_WITHIN_S))
            time.sleep(0.5)
            fleet.give_up(slow)
            closed = following(other.url, str(lost.run_id), seen).last(ENDED_WITHIN_S)
            done = following(other.url, str(stopped.run_id), seen).last(ENDED_WITHIN_S)
            asked.join(30)
            again = following(other.url, closed.data["nextRunId"], seen)
            assert again.last().name == "done"
            assert (done.name, done.data["finishReason"]) == ("done", "stopped")
            conversations = [reader.events[0].data["conversationId"] for reader in (lost, stopped)]
            before = [told(http, conversation) for conversation in conversations]
        # Now it comes to itself: it had more to say, and to end.
        assert (lost.last(), stopped.last()) == (closed, done)
        time.sleep(1)
        assert [told(http, conversation) for conversation in conversations] == before
        assert [[status for *_, status in messages] for messages in before] == [
            ["complete", "failed", "complete"], ["complete", "stopped"],
        ]  # fmt: skip
        assert text_of(again.events) == "".join(answer_to("question lost?", WORDS))
        status = [http.get(f"/runs/{run_id}").json()["run"]["status"] for run_id in seen.runs]
        assert sorted(status) == ["done", "failed", "stopped"]
        # It is a process like any other again.
        assert asking(slow.url, project, "question new?", seen).last().name == "done"
    assert calls(model.chats) == {"question lost?": 2, "question stopped?": 1, "question new?": 1}
    assert fleet.running() == 0
    seen.check()


@contextmanager
def halted(process: Process) -> Iterator[None]:
    """A process that gets no time, until the end of the block."""
    process.child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.child.send_signal(signal.SIGCONT)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@timed
def test_sigterm_hands_what_goes_on_for_long_to_the_next_start(
    fleet: Fleet, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    seen, question = Seen(), "question handed-over?"
    model.will(ENDLESS, ENDLESS, SLOWLY)
    service = fleet.start()
    with fleet.client() as http:
        project = new_project(http)
    reader = asking(service.url, project, question, seen).has(5)
    drafted = Reader(
        service.url, "POST", "/api/v1/chat/stream", seen,
        conversation_id=str(uuid.uuid4()), project_id=project, message="question drafted?",
    ).has(5)  # fmt: skip
    began = time.monotonic()
    service.child.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses_new_runs(service.url), 30)
    health = httpx.get(f"{service.url}/api/v1/system/health")
    assert (health.status_code, health.json()["status"]) == (503, "ERROR")
    assert health.json()["message"] == "The service is going down."
    assert service.wait_for_exit(30) == 0
    assert 9 < time.monotonic() - began < 15
    assert "Traceback" not in service.err
    closed, drafting_closed = reader.last(), drafted.last()
    assert (closed.name, closed.data["message"]) == ("error", "LLM_CONNECTION_ERROR")
    assert drafting_closed.name == "error"
    assert {**drafting_closed.data, "error": "", "next_run_id": ""} == {
        "error": "", "code": "LLM_CONNECTION_ERROR", "retry": True, "next_run_id": "",
    }  # fmt: skip
    with survivor(start_service, fleet.settings) as other, other.client() as http:
        next_runs = (closed.data["nextRunId"], drafting_closed.data["next_run_id"])
        answers = [following(other.url, run_id, seen) for run_id in next_runs]
        assert [answer.last().name for answer in answers] == ["done", "done"]
        answer = "".join(answer_to(question, WORDS))
        assert text_of(answers[0].events) == answer
        assert told(http, reader.events[0].data["conversationId"]) == [
            ("user", question, "complete"),
            ("assistant", text_of(reader.events), "failed"),
            ("assistant", answer, "complete"),
        ]
    assert calls(model.chats) == {question: 2, "question drafted?": 2}
    seen.check()


def test_sigterm_lets_a_run_finish_that_is_only_beginning(
    fleet: Fleet, model: OpenAIStandIn
) -> None:
    # Longer than open streams are waited for when the runs have ended.
    model.will(Answer(reply=replying(80), delay_s=0.05))
    service = fleet.start()
    with fleet.client() as http:
        project = new_project(http)
    with fleet.rows.transaction():
        fleet.select("select from projects where id = %s for update", project)
        reader = asking(service.url, project, "question begun?", Seen())
        wait_until(lambda: bool(fleet.select(_WAITING_FOR_A_LOCK)), 30)
        service.child.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_new_runs(service.url), 30)
    assert reader.last().name == "done"
    assert service.wait_for_exit(30) == 0


_WAITING_FOR_A_LOCK = """
select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


def refuses_new_runs(url: str) -> bool:
    # Not read: a run that was let in just before the signal was seen would go on for long.
    path = f"{url}/api/v1/chat/stream"
    with httpx.stream("POST", path, json=drafting_body("Draft it."), timeout=20) as answer:
        return answer.status_code == 503 and "Retry-After" in answer.headers
