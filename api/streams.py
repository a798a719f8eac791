"""What OpenAPI says of the streams: their events, with an example of each."""

from types import UnionType
from typing import Any

from api.refusals import CHAT_API, DRAFTING_API, refusal_content
from api.wire import encode, frame

Docs = dict[int | str, dict[str, Any]]

_RUN = "7d0c9c1e-6a52-4a3e-9a55-0c9a4b1f2d10"
_CONVERSATION = "1f6f2f0a-2c53-4a58-8f10-54b7d8a1c3e2"
_CHUNK = "c7a1b9e4-40f2-5d7c-b6c1-1b5ef0a90d11"
_DOCUMENT = "0d2f5a3c-9a0e-4f53-8f7e-6d1f0c2b4a55"
_NOTHING_FOLLOWS: Docs = {
    204: {"description": "The reader has the last event, and asks for `text/event-stream` by name."}
}
_CITATION = {
    "index": 1,
    "chunkId": _CHUNK,
    "documentId": _DOCUMENT,
    "documentName": "sensor-handbook.pdf",
    "pageNumber": 3,
    "quote": "The state Alarm is reached at 4.90 m.",
    "supported": True,
    "by": "service",
}

_CHAT_EXAMPLES: dict[str, dict[str, Any]] = {
    "meta": {"conversationId": _CONVERSATION, "messageId": _RUN, "model": "gpt-4.1-mini"},
    "sources": {
        "chunks": [
            {
                "id": _CHUNK,
                "documentId": _DOCUMENT,
                "documentName": "sensor-handbook.pdf",
                "pageNumber": 3,
                "snippet": "The state Alarm is reached at 4.90 m.",
            }
        ]
    },
    "text": {"delta": "At 4.90 m"},
    "done": {
        "messageId": _RUN,
        "totalTokens": 420,
        "citations": [_CITATION],
        "finishReason": "stop",
        "usage": {"promptTokens": 400, "completionTokens": 20, "totalTokens": 420},
        "timingsMs": {
            "loadTemplate": 0.1,
            "retrieve": 8.2,
            "search": 0.0,
            "firstToken": 310.0,
            "generate": 700.5,
            "check": 0.0,
            "total": 712.4,
        },
        "promptVersion": "90ab3c77d1e2f60b",
        "templateVersion": None,
        "warnings": [],
    },
    "error": {
        "type": "error",
        "message": "LLM_API_ERROR",
        "detail": "401 Authentication Failed. Check the provider's API key.",
    },
}

_DRAFTING_EXAMPLES: dict[str, dict[str, Any]] = {
    "message": {"token": "# Tidewatch", "is_final": False},
    "done": {
        "full_response": "# Tidewatch",
        "is_final": True,
        "sources": ["PROJECT_MANIFESTO"],
        "metadata": {
            "template_used": "PROJECT_MANIFESTO",
            "run_id": _RUN,
            "conversation_id": _CONVERSATION,
            "message_id": _RUN,
            "model": "gpt-4.1-mini",
            "finish_reason": "stop",
            "template_version": "5f0c1a9be2d47a13",
            "prompt_version": "90ab3c77d1e2f60b",
            "usage": {"prompt_tokens": 1800, "completion_tokens": 3, "total_tokens": 1803},
            "timings_ms": {
                "load_template": 0.4,
                "retrieve": 8.2,
                "search": 0.0,
                "first_token": 310.0,
                "generate": 700.5,
                "check": 21.0,
                "total": 733.4,
            },
            "citations": [_CITATION],
            "warnings": [
                {
                    "code": "open_placeholder",
                    "message": "Line 3: 'TBD' is left open; fill it in or take it out.",
                    "line": 3,
                }
            ],
        },
    },
    "error": {
        "error": "The model did not begin to answer within 60 seconds. Try again later.",
        "code": "LLM_CONNECTION_ERROR",
        "retry": True,
    },
}

_LEGACY_EXAMPLES: dict[str, dict[str, Any]] = {
    "token": {"token": "# Tidewatch", "index": 0},
    "done": {"total_tokens": 1, "duration_ms": 712},
    "error": {"code": "LLM_001", "message": "401 Authentication Failed. Check the API key."},
}


_INGESTION_EXAMPLES: dict[str, dict[str, Any]] = {
    "progress": {"stage": "embedding", "done": 12, "total": 40},
    "done": {
        "document": {
            "id": _DOCUMENT,
            "name": "sensor-handbook.pdf",
            "mimeType": "application/pdf",
            "sizeBytes": 48213,
            "pageCount": 4,
            "chunkCount": 40,
            "status": "indexed",
            "error": None,
            "createdAt": "2026-11-22T09:30:00Z",
        }
    },
    "error": {"message": "The PDF file is damaged."},
}


def chat_stream_docs() -> Docs:
    """The stream of `POST /chat/projects/{projectId}`."""
    return {
        **_stream(_CHAT_EXAMPLES, "`meta`, `sources`, `text` for each token, then one terminal."),
        **_refusals(CHAT_API, 400, 401, 403, 404, 409, 410, 413, 422, 429, 503),
    }


def drafting_stream_docs() -> Docs:
    """The stream of `POST /api/v1/chat/stream`."""
    return {
        **_stream(_DRAFTING_EXAMPLES, "`message` for each token, then `done` or `error`."),
        **_refusals(DRAFTING_API, 403, 404, 409, 410, 413, 422, 429, 503),
    }


def legacy_stream_docs() -> Docs:
    """The stream of `POST /api/v1/chat/generate`."""
    return {
        **_stream(_LEGACY_EXAMPLES, "`token` for each token, then `done` or `error`."),
        **_refusals(DRAFTING_API, 403, 413, 422, 429, 503),
    }


def resumed_stream_docs() -> Docs:
    """The stream of `GET /runs/{runId}/stream`."""
    note = "The events of the run that follow, under the names that it was started with."
    refusals = _refusals(CHAT_API, 400, 401, 404, 410)
    return {**_stream(_CHAT_EXAMPLES, note), **_NOTHING_FOLLOWS, **refusals}


def ingestion_stream_docs() -> Docs:
    """The stream of `GET /documents/{documentId}/events`."""
    note = "`progress` for each stage and about each tenth of it, then `done` or `error`."
    docs = {
        **_stream(_INGESTION_EXAMPLES, note, _DOCUMENT),
        **_NOTHING_FOLLOWS,
        **_refusals(CHAT_API, 400, 401, 403, 404, 503),
    }
    docs[200]["headers"] = {
        "X-Run-Id": {"description": "The document's id, as in `id`.", "schema": {"type": "string"}}
    }
    return docs


def _stream(examples: dict[str, dict[str, Any]], description: str, stream_id: str = _RUN) -> Docs:
    events = [frame(name, data) for name, data in examples.items()]
    whole = [one for one in events if one[0] != "error"]
    content = {
        "schema": {
            "type": "string",
            "description": f"Server-Sent Events. {description} Keep-alives are comments.",
        },
        "examples": {
            "finished": {
                "summary": "A whole stream",
                "value": encode(stream_id, 1, whole).decode(),
            },
            **{
                name: {
                    "summary": f"The event `{name}`",
                    "value": encode(stream_id, 1, [one]).decode(),
                }
                for name, one in zip(examples, events, strict=True)
            },
        },
    }
    headers = {"X-Run-Id": {"description": "The run's id.", "schema": {"type": "string"}}}
    return {
        200: {
            "description": description,
            "content": {"text/event-stream": content},
            "headers": headers,
        }
    }


def _refusals(shape: UnionType, *statuses: int | str) -> Docs:
    content = refusal_content(shape)
    return {
        status: {"description": _REFUSALS[status], "content": content}
        for status in (*statuses, "default")
    }


_REFUSALS: dict[int | str, str] = {
    "default": "The request is refused.",
    400: "The request does not validate, or the mode is not set up.",
    401: "No credentials, or wrong ones.",
    403: "Not yours, or your tier is too low; in the drafting API also wrong credentials.",
    404: "There is no such thing, or you may not see it.",
    409: "A run of this conversation is going on; its id is in the answer.",
    410: "The stream is no longer kept; the message is in its conversation.",
    413: "The body is too large.",
    422: "The body does not validate, or the `Idempotency-Key` was used with another one.",
    429: "A limit of fair use is reached; see `Retry-After`.",
    503: "The database is away or the service goes down; see `Retry-After`.",
}
