"""Clients that ask until they have an answer, and what all of them together saw."""

import json
import random
import re
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal

import httpx
from sse import Event, live
from standins.openai import Recorded

Api = Literal["chat", "drafting"]

TERMINAL = ("done", "error")
_TOKENS = ("text", "message")
JUMP = 10_000
"""How far ahead of its log the last event of a dead run is: see docs/streams.md."""

_QUESTION = re.compile(r"question [\w-]+\?")


def answer_to(question: str, words: int) -> list[str]:
    """The tokens that `replying` answers a question with."""
    return [f"Of {question[:-1]}:", *(f" word{n}" for n in range(words))]


def replying(words: int) -> Callable[[dict[str, Any]], list[str]]:
    """A reply of the stand-in model that names the question which it was asked last."""
    return lambda body: answer_to((questions_in(body) or ["Another."])[-1], words)


def questions_in(body: dict[str, Any]) -> list[str]:
    """The questions of a prompt, in its order."""
    said = [str(m["content"]) for m in body["messages"] if m["role"] == "user"]
    return [found for text in said for found in _QUESTION.findall(text)]


def calls(chats: Iterable[Recorded]) -> Counter[str]:
    """How often the model was asked each question."""
    return Counter(found for chat in chats for found in questions_in(chat.body)[-1:])


class Seen:
    """All events that any client got, live or resumed, by run and number."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[int, Event]] = defaultdict(dict)
        self.faults: list[str] = []

    def add(self, event: Event) -> None:
        """Note an event; an id that named another one before is a fault."""
        run_id, _, seq = event.id.rpartition(":")
        known = self.runs[run_id].setdefault(int(seq), event)
        if known != event:
            self.faults.append(f"{event.id} was {known}, and then {event}")

    def check(self) -> None:
        """Fail on a gap, on an event after the terminal one, and on all that was noted."""
        for run_id, events in list(self.runs.items()):
            *before, last = sorted(events)
            if last - JUMP in range(len(before) + 1) and events[last].name in TERMINAL:
                last = before[-1] + 1 if before else 1
            if [*before, last] != list(range(1, len(events) + 1)):
                self.faults.append(f"{run_id} has the numbers {sorted(events)}")
            if any(events[seq].name in TERMINAL for seq in before):
                self.faults.append(f"{run_id} goes on after its end")
        assert not self.faults, "\n".join(self.faults)


class Asker(threading.Thread):
    """Asks one question with a key, again and again until an answer to it is done.

    `place` gives the address of a service that is there. A reader that lost its stream either
    posts again or resumes, as it happens; one that is told of the next run goes to that.
    `events` is the last stream as this client has it, `runs` what it read, in order.
    """

    def __init__(
        self,
        place: Callable[[], str],
        project: str,
        question: str,
        seen: Seen,
        *,
        api: Api = "chat",
        conversation: str | None = None,
        within_s: float = 100,
    ) -> None:
        super().__init__(daemon=True)
        self.api = api
        self.question = question
        self.conversation = conversation or (str(uuid.uuid4()) if api == "drafting" else None)
        self.events: list[Event] = []
        self.runs: list[str] = []
        self.key = str(uuid.uuid4())
        self._path, self._body = _request(api, project, question, self.conversation)
        self._place, self._seen = place, seen
        self._until = time.monotonic() + within_s
        self._chance = random.Random(question)
        self.start()

    @property
    def has_begun(self) -> bool:
        """Whether any event came."""
        return bool(self.events)

    @property
    def is_done(self) -> bool:
        """Whether the answer is whole."""
        return bool(self.events) and self.events[-1].name == "done"

    @property
    def text(self) -> str:
        """What the last stream said."""
        return text_of(self.events)

    def run(self) -> None:
        """Ask until the answer is done, or the time is up."""
        run_id = None
        while not self.is_done and time.monotonic() < self._until:
            try:
                with httpx.Client(base_url=self._place(), timeout=20, trust_env=False) as http:
                    run_id = self._follow(http, run_id) if run_id else self._ask(http)
            except httpx.TransportError:
                known = run_id or (self.runs[-1] if self.runs else None)
                run_id = self._chance.choice([known, None])
                time.sleep(0.1)

    def _ask(self, http: httpx.Client) -> str | None:
        headers = {"Idempotency-Key": self.key}
        with http.stream("POST", self._path, json=self._body, headers=headers) as response:
            return self._read(response, 0)

    def _follow(self, http: httpx.Client, run_id: str) -> str | None:
        has = len(self.events) if self.runs and self.runs[-1] == run_id else 0
        headers = {"Last-Event-ID": f"{run_id}:{has}"} if has else {}
        with http.stream("GET", f"/runs/{run_id}/stream", headers=headers) as response:
            return self._read(response, has)

    def _read(self, response: httpx.Response, has: int) -> str | None:
        """Take the stream in; gives the run to follow, or null where the key is to ask again."""
        if response.status_code != 200:
            response.read()
            if response.status_code != 503:
                self._seen.faults.append(f"{response.status_code} {response.text} for {self._path}")
            time.sleep(0.2)
            return None
        run_id = response.headers["x-run-id"]
        if not self.runs or self.runs[-1] != run_id:
            self.runs.append(run_id)
        del self.events[has:]
        for event in live(response.iter_lines()):
            self._take(event)
        return self._after(response)

    def _take(self, event: Event) -> None:
        self._seen.add(event)
        self.events.append(event)
        if event.name == "meta":
            self.conversation = event.data["conversationId"]

    def _after(self, response: httpx.Response) -> str | None:
        last = self.events[-1] if self.events else None
        if last is None or last.name not in TERMINAL:
            self._seen.faults.append(f"{response.url} ended after {last}")
            return None
        if last.name == "done":
            return None
        is_final = not last.data["retry"] if self.api == "drafting" else False
        if is_final:
            self._seen.faults.append(f"a failure that may be retried, not {last}")
        found = last.data.get("next_run_id" if self.api == "drafting" else "nextRunId")
        return str(found) if found else None


class Reader(threading.Thread):
    """Reads one stream to its end; `events` are what came so far.

    `run_id` is null until the stream is open, and stays so where the request is refused or broken
    off; then `status` is what came instead.
    """

    def __init__(
        self, url: str, method: str, path: str, seen: Seen, *, key: str = "", **body: Any
    ) -> None:
        super().__init__(daemon=True)
        self._url, self._method, self._path, self._body = url, method, path, body
        self._headers = {"Idempotency-Key": key} if key else {}
        self._seen = seen
        self.asks = str(body.get("message"))
        self.run_id: str | None = None
        self.status: int | None = None
        self.refusal: Any = None
        self.events: list[Event] = []
        self.start()

    def run(self) -> None:
        """Read until the stream ends, or its connection."""
        with (
            suppress(httpx.TransportError),
            httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http,
            http.stream(
                self._method, self._path, json=self._body or None, headers=self._headers
            ) as response,
        ):
            self._take(response)

    def _take(self, response: httpx.Response) -> None:
        self.status = response.status_code
        if self.status != 200:
            self.refusal = json.loads(response.read())
            return
        self.run_id = response.headers["x-run-id"]
        for event in live(response.iter_lines()):
            self._seen.add(event)
            self.events.append(event)

    def has(self, events: int, within_s: float = 30) -> "Reader":
        """Itself, once so many events came."""
        until = time.monotonic() + within_s
        while len(self.events) < events:
            has_time = time.monotonic() < until and self.is_alive()
            assert has_time or len(self.events) >= events, (self.status, self.refusal, self.events)
            time.sleep(0.02)
        return self

    def last(self, within_s: float = 30) -> Event:
        """The last event, once the stream has ended."""
        self.join(within_s)
        assert not self.is_alive(), "the stream did not end"
        assert self.events, (self.status, self.refusal)
        return self.events[-1]


def asking(
    url: str, project: str, question: str, seen: Seen, *, key: str = "", **body: Any
) -> Reader:
    """Ask in the chat API, in a new conversation if `body` names none; gives who reads on."""
    path = f"/chat/projects/{project}"
    return Reader(url, "POST", path, seen, key=key, message=question, **body)


def following(url: str, run_id: str, seen: Seen) -> Reader:
    """Follow a run from its start."""
    return Reader(url, "GET", f"/runs/{run_id}/stream", seen)


def text_of(events: Iterable[Event]) -> str:
    """What a stream of either API said."""
    tokens = (e.data.get("delta", e.data.get("token")) for e in events if e.name in _TOKENS)
    return "".join(map(str, tokens))


def _request(
    api: Api, project: str, question: str, conversation: str | None
) -> tuple[str, dict[str, str | None]]:
    if api == "chat":
        about = {"conversationId": conversation} if conversation else {}
        return f"/chat/projects/{project}", {"message": question, **about}
    body = {"conversation_id": conversation, "project_id": project, "message": question}
    return "/api/v1/chat/stream", body
