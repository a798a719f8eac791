"""The service over HTTP, as the commands use it: projects, uploads, streams that resume."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

Event = tuple[str, dict[str, Any]]
"""An event's name and its data."""

TERMINAL = {"done", "error"}
ASKED_AGAIN = "asked_again"
"""What a `Stream` says before an answer begins anew."""

# The service sends a comment at least every 10 s.
_TIMEOUT = httpx.Timeout(60, connect=5, read=45)
_PAGE = 200
_TRIES_TO_RESUME = 6
_FIRST_WAIT_S = 0.2
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class ServiceError(Exception):
    """The service refused, failed or was not reached; the message is a sentence for people."""


class Client:
    """One service, under `url`. A context manager. Methods raise ServiceError."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"X-API-Key": api_key} if api_key else {}
        try:
            # A proxy that the environment names would not find the service on this machine.
            is_near = urlsplit(url).hostname in _LOOPBACK
            self._http = httpx.Client(
                base_url=self.url, headers=headers, timeout=_TIMEOUT, trust_env=not is_near
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ServiceError(f"--url: {url!r} is no address.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def find_project(self, name: str) -> str | None:
        """The id of the newest project of that name, null without one."""
        return next((p["id"] for p in self.projects() if p["name"] == name), None)

    def project(self, name: str, settings: dict[str, Any] | None = None) -> str:
        """The id of the project of that name, which is made with `settings` if it is not there."""
        if made := self.find_project(name):
            return made
        body = {"name": name, "settings": settings or {}}
        return str(self._json("POST", "/projects", json=body)["project"]["id"])

    def projects(self) -> Iterator[dict[str, Any]]:
        """All projects that the caller can see, newest first."""
        before: dict[str, str] = {}
        while True:
            page = self._json("GET", "/projects", params={"limit": str(_PAGE), **before})
            yield from page["projects"]
            if len(page["projects"]) < _PAGE:
                return
            before = {"before": page["projects"][-1]["createdAt"]}

    def upload(self, project_id: str, path: Path) -> dict[str, Any]:
        """Upload a file; gives its document, which may still be processed."""
        with path.open("rb") as file:
            answer = self._json(
                "POST", f"/documents/projects/{project_id}", files={"file": (path.name, file)}
            )
        document: dict[str, Any] = answer["documents"][0]
        return document

    def follow(self, document_id: str) -> "Stream":
        """How far a document is: `progress` again and again, then `done` or `error`."""
        return Stream(self._http, f"/documents/{document_id}/events")

    def health(self) -> dict[str, Any]:
        """The service's own account of its parts, also where it is bad."""
        response = self._send("GET", "/api/v1/system/health")
        answer: Any = _parsed(response)
        match answer:
            case {"status": str(), "message": str(), "services": dict()}:
                return dict(answer)
        if response.is_success or response.status_code == HTTPStatus.NOT_FOUND:
            raise ServiceError(f"What answers at {self.url} is no Archwright: check --url.")
        raise ServiceError(sentence_of(response))

    def ask(
        self, project_id: str, message: str, mode: str = "docs", model: str | None = None
    ) -> "Stream":
        """Ask about the project's documents: `meta`, `sources`, `text`, then `done` or `error`."""
        body = {"message": message, "mode": mode, "modelId": model}
        return Stream(self._http, f"/chat/projects/{project_id}", body)

    def draft(self, project_id: str, doc_type: str, message: str) -> "Stream":
        """Draft a document: `message` for each token, then `done` or `error`."""
        body = {
            "conversation_id": str(uuid.uuid4()),
            "project_id": project_id,
            "doc_type": doc_type,
            "message": message,
        }
        return Stream(self._http, "/api/v1/chat/stream", body)

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        response = self._send(method, path, **options)
        answer = _parsed(response)
        if response.is_success and isinstance(answer, dict):
            return answer
        raise ServiceError(sentence_of(response))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _not_reached(self._http, error) from error


class Stream:
    """The events of one turn, the terminal one last. Goes on where it was if a connection breaks.

    The question is sent with a key, so that it may be sent again where no answer came. Where the
    service asks the turn again after a crash, `ASKED_AGAIN` stands in place of the `error`, and
    the events of the new run follow. Without `body` there is nothing to start: `path` is the
    stream itself. `run_id` is null until the first answer of the service.
    """

    def __init__(self, http: httpx.Client, path: str, body: dict[str, Any] | None = None) -> None:
        self._http = http
        self._path = path
        self._body = body
        self._key = str(uuid.uuid4())
        self._last_id = ""
        self.run_id: str | None = None

    def __iter__(self) -> Iterator[Event]:
        failures = 0
        while True:
            try:
                for event in self._read():
                    failures, self._last_id = 0, event.id or self._last_id
                    name, data = event.event, _data(event)
                    if name == "error" and self._goes_on(data):
                        yield ASKED_AGAIN, {}
                        break
                    yield name, data
                    if name in TERMINAL:
                        return
            except httpx.HTTPError as error:
                is_there = self.run_id or not isinstance(error, httpx.ConnectError)
                if not is_there or failures == _TRIES_TO_RESUME:
                    raise _not_reached(self._http, error) from error
            if failures == _TRIES_TO_RESUME:
                raise ServiceError("The stream broke off again and again before the answer's end.")
            time.sleep(_FIRST_WAIT_S * 2**failures)
            failures += 1

    def stop(self) -> None:
        """End the run now; its stream then ends with what there is."""
        if self.run_id is None:
            return
        with suppress(httpx.HTTPError):
            self._http.post(f"/runs/{self.run_id}/stop")

    def _goes_on(self, error: dict[str, Any]) -> bool:
        """Whether another run asks the turn again, which is then the one to read."""
        next_run_id = error.get("nextRunId") or error.get("next_run_id")
        if next_run_id:
            self.run_id, self._last_id = next_run_id, ""
        return next_run_id is not None

    def _read(self) -> Iterator[ServerSentEvent]:
        with self._connect() as response:
            if response.is_server_error and self.run_id:
                response.raise_for_status()
            if not response.is_success:
                response.read()
                raise ServiceError(sentence_of(response))
            self.run_id = response.headers.get("X-Run-Id", self.run_id)
            try:
                # httpx-sse makes an empty event of a comment that follows an event.
                yield from (event for event in EventSource(response).iter_sse() if event.data)
            except SSEError as error:
                raise ServiceError(_NOT_ARCHWRIGHT) from error

    def _connect(self) -> AbstractContextManager[httpx.Response]:
        if self._body is not None and self.run_id is None:
            key = {"Idempotency-Key": self._key}
            return self._http.stream("POST", self._path, json=self._body, headers=key)
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        path = self._path if self._body is None else f"/runs/{self.run_id}/stream"
        return self._http.stream("GET", path, headers=headers)


def sentence_of(response: httpx.Response) -> str:
    """What a refusal says, whichever of the documented shapes it has, as a readable sentence."""
    said = _said(response)
    return f"{said} {_GIVE_KEY}" if response.status_code == HTTPStatus.UNAUTHORIZED else said


def _said(response: httpx.Response) -> str:
    match _parsed(response):
        case {"error": {"issues": list(issues)}}:
            return "; ".join(_issue(issue, "path", "message") for issue in issues)
        case {"detail": list(issues)}:
            return "; ".join(_issue(issue, "loc", "msg") for issue in issues)
        case {"detail": str(text)} | {"message": str(text)} | {"error": {"message": str(text)}}:
            return text
        case {"error": str(text)}:
            return text
        case _:
            return f"The service answered {_status(response)}. {_NOT_ARCHWRIGHT}"


_GIVE_KEY = "These commands take a key: --api-key, or the setting API_KEY."
_NOT_ARCHWRIGHT = "That is no answer of Archwright's: check --url."


def _issue(issue: object, place: str, text: str) -> str:
    if not isinstance(issue, dict):
        return str(issue)
    path = ".".join(str(part) for part in issue.get(place) or () if part != "body")
    said = str(issue.get(text) or "is not valid")
    return f"{path}: {said}" if path else said


def _status(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)


def _parsed(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _data(event: ServerSentEvent) -> dict[str, Any]:
    try:
        data = json.loads(event.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ServiceError(_NOT_ARCHWRIGHT)
    return data


def _not_reached(http: httpx.Client, error: httpx.HTTPError) -> ServiceError:
    url = str(http.base_url).rstrip("/")
    match error:
        case httpx.UnsupportedProtocol():
            return ServiceError(f"--url: {url!r} must begin with http:// or https://.")
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return ServiceError(
                f"Nothing answers at {url}. Start the service with `archwright serve`, or say "
                "with --url where it is."
            )
        case httpx.TimeoutException():
            return ServiceError(f"The service at {url} did not answer in time.")
        case _:
            return ServiceError(f"The connection to {url} broke off. Is the service still running?")
