"""One read is one chunk, and each way in which a model can fail has its own error."""

import asyncio
import gc
import gzip
import json
import socket
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import SecretStr
from standins.openai import Answer, OpenAIStandIn
from timed import timed

from graph import completions
from graph.completions import Batch, Completion, tokens_of
from graph.errors import ModelError, ModelRefused, ModelReported, ModelTimedOut, ModelUnreachable
from graph.offers import chat_of, guarded_chat
from graph.providers import ModelEntry, Provider
from graph.settings import PipelineSettings
from graph.streaming import StreamingChatModel

AWAY = "The model cannot be reached. Check the provider's base URL, or try again later."
BROKE_OFF = "The model's stream broke off before the answer was complete. Try again."
OTHER_PROTOCOL = (
    "The model's endpoint does not speak the OpenAI protocol. Check the provider's base URL."
)
REPORTED = "The model reported an error instead of an answer. Check the provider and the model."
NO_FIRST_TOKEN = "The model sent no first token within 0.3 seconds. Try again later."
SILENCE = "The model fell silent for 0.3 seconds in the middle of its answer. Try again."

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
UNTIL_CLOSED = HEAD + b"Connection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
FINISHED = {"finish_reason": "stop", "model_name": "stand-in", "model_provider": "openai"}


class Run:
    """What a context holds."""


RUN: ContextVar[Run] = ContextVar("run")

Speech = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Fault:
    """What `astream` raised, as the caller sees it."""

    kind: type[ModelError]
    transient: bool
    message: str


UNREACHABLE = Fault(ModelUnreachable, True, AWAY)
BROKEN_OFF = Fault(ModelUnreachable, True, BROKE_OFF)
NOT_THE_PROTOCOL = Fault(ModelUnreachable, True, OTHER_PROTOCOL)
REPORTED_FAULT = Fault(ModelReported, False, REPORTED)
LATE = Fault(ModelTimedOut, True, NO_FIRST_TOKEN)
SILENT = Fault(ModelTimedOut, True, SILENCE)


@dataclass
class Heard:
    """All that one call of `astream` gave: its tokens chunk by chunk, its ending, its failure."""

    batches: list[tuple[str, ...]] = field(default_factory=list)
    ending: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    fault: Fault | None = None

    @property
    def tokens(self) -> list[str]:
        """The tokens, whatever chunk they came in."""
        return [token for batch in self.batches for token in batch]

    def note(self, chunk: AIMessageChunk) -> None:
        """Take in one chunk."""
        assert chunk.content == "".join(tokens_of(chunk))
        if tokens := tokens_of(chunk):
            self.batches.append(tokens)
        if chunk.usage_metadata:
            assert self.usage is None
            self.usage = dict(chunk.usage_metadata)
        assert not self.ending
        self.ending = chunk.response_metadata


@pytest.fixture
def model() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as standin:
        yield standin


def chat_with(base_url: str, **settings: Any) -> StreamingChatModel:
    return StreamingChatModel(
        model="stand-in", base_url=base_url, api_key=SecretStr("sk-secret"), **settings
    )


async def listen(chat: StreamingChatModel, *, pause_s: float = 0.0) -> Heard:
    """What one question to `chat` gives to a listener who needs `pause_s` for each chunk."""
    heard = Heard()
    try:
        async for chunk in chat.astream("two words"):
            assert isinstance(chunk, AIMessageChunk)
            heard.note(chunk)
            await asyncio.sleep(pause_s)
    except ModelError as error:
        heard.fault = Fault(type(error), error.transient, str(error))
    return heard


def ask(base_url: str, *, pause_s: float = 0.0, **settings: Any) -> Heard:
    """What one question to a new model at `base_url` gives."""

    async def once() -> Heard:
        chat = chat_with(base_url, **settings)
        heard = await listen(chat, pause_s=pause_s)
        await chat.aclose()
        return heard

    return asyncio.run(once())


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
    }


def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return data({"model": "stand-in", "choices": [choice]})


def data(body: object) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def text(token: str) -> bytes:
    return event({"content": token})


def stream(*events: bytes) -> Answer:
    """An event stream in these very bytes."""
    return Answer(body=b"".join(events), content_type="text/event-stream")


FINISH = event({}, "stop")


@asynccontextmanager
async def serving(speak: Speech) -> AsyncIterator[str]:
    """A server whose handler has the raw connection, which is closed after it; its base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}/v1"
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


def ask_raw(speak: Speech, **settings: Any) -> Heard:
    """What one question to a server that speaks so gives."""

    async def once() -> Heard:
        async with serving(speak) as base_url:
            chat = chat_with(base_url, **settings)
            heard = await listen(chat)
            await chat.aclose()
            return heard

    return asyncio.run(once())


def saying(*pieces: bytes, pause_s: float = 0.0, hang_s: float = 0.0) -> Speech:
    """Answer with `pieces`, one write each, then wait."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(UNTIL_CLOSED)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        await asyncio.sleep(hang_s)

    return speak


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)


def with_length(body: bytes) -> bytes:
    return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


# What an answer looks like


def test_all_tokens_of_one_read_are_one_chunk_that_keeps_their_boundaries(
    model: OpenAIStandIn,
) -> None:
    model.will(Answer(["The", " answer", ".", " é😀"], one_write=True))
    assert ask(model.base_url) == Heard(
        [("The", " answer", ".", " é😀")], FINISHED, usage(prompt=2, completion=4)
    )


def test_tokens_that_come_one_by_one_go_out_one_by_one(model: OpenAIStandIn) -> None:
    model.will(Answer(["The", " answer", "."], delay_s=0.03))
    assert ask(model.base_url) == Heard(
        [("The",), (" answer",), (".",)], FINISHED, usage(prompt=2, completion=3)
    )


def test_added_chunks_are_the_whole_message(model: OpenAIStandIn) -> None:
    model.will(Answer(["The", " answer", "."], delay_s=0.03, finish_reason="length"))

    async def total() -> AIMessageChunk:
        chat = chat_with(model.base_url)
        first, *others = [chunk async for chunk in chat.astream("two words")]
        await chat.aclose()
        whole: AIMessageChunk = sum(others, first)
        return whole

    whole = asyncio.run(total())
    assert (whole.content, tokens_of(whole), whole.usage_metadata, whole.response_metadata) == (
        "The answer.",
        ("The", " answer", "."),
        usage(prompt=2, completion=3),
        {**FINISHED, "finish_reason": "length"},
    )


def test_a_chunk_of_another_model_counts_as_one_token() -> None:
    chunks = [AIMessageChunk(content="two words"), AIMessageChunk(content="")]
    assert [tokens_of(chunk) for chunk in chunks] == [("two words",), ()]


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "stop"),
        ("eos", "stop"),
    ],
)
def test_only_documented_finish_reasons_come_out(
    model: OpenAIStandIn, sent: str, heard: str
) -> None:
    model.will(Answer(["a"], finish_reason=sent))
    assert ask(model.base_url).ending == {**FINISHED, "finish_reason": heard}


def test_an_answer_without_a_word_is_an_answer(model: OpenAIStandIn) -> None:
    model.will(Answer([]))
    assert ask(model.base_url) == Heard([], FINISHED, usage(prompt=2, completion=0))


def test_usage_stays_unknown_where_the_endpoint_does_not_count(model: OpenAIStandIn) -> None:
    model.will(stream(text("a"), FINISH, DONE))
    assert ask(model.base_url) == Heard([("a",)], FINISHED)


@pytest.mark.parametrize(
    ("told", "counted"), [("1e999", 2**30), ("1e30", 2**30), ("-3", 0), ("NaN", 0), ("7.0", 7)]
)
def test_a_count_that_cannot_be_loses_no_answer(
    told: str, counted: int, model: OpenAIStandIn
) -> None:
    counts = f'data: {{"choices": [], "usage": {{"prompt_tokens": {told}}}}}\n\n'.encode()
    model.will(stream(text("a"), FINISH, counts, DONE))
    assert ask(model.base_url) == Heard([("a",)], FINISHED, usage(prompt=counted, completion=0))


def test_usage_that_comes_with_every_chunk_is_the_last_one(model: OpenAIStandIn) -> None:
    def counted(delta: dict[str, str], finish_reason: str | None, completion: int) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        counts = {"prompt_tokens": 7, "completion_tokens": completion}
        return data({"model": "stand-in", "choices": [choice], "usage": counts})

    model.will(stream(counted({"content": "a"}, None, 1), counted({"content": "b"}, "stop", 2)))
    assert ask(model.base_url) == Heard([("a", "b")], FINISHED, usage(prompt=7, completion=2))


def test_fragments_of_tool_calls_in_one_read_are_joined(model: OpenAIStandIn) -> None:
    pieces = [
        {"index": 0, "id": "call-1", "function": {"name": "search", "arguments": '{"q":'}},
        {"index": 0, "function": {"arguments": ' "x"}'}},
        {"index": 1, "id": "call-2", "function": {"name": "open", "arguments": "{}"}},
    ]
    calls = [event({"tool_calls": [piece]}) for piece in pieces]
    model.will(stream(*calls, event({}, "tool_calls"), DONE))

    async def total() -> list[dict[str, Any]]:
        chat = chat_with(model.base_url)
        (chunk,) = [chunk async for chunk in chat.astream("two words")]
        await chat.aclose()
        return [dict(call) for call in (*chunk.tool_calls, *chunk.invalid_tool_calls)]

    assert asyncio.run(total()) == [
        {"type": "tool_call", "name": "search", "args": {"q": "x"}, "id": "call-1"},
        {"type": "tool_call", "name": "open", "args": {}, "id": "call-2"},
    ]


def test_reasoning_is_not_text_but_counts_as_the_first_token() -> None:
    speak = saying(
        event({"reasoning_content": "hm"}), b"", b"", text("a") + FINISH + DONE, pause_s=0.12
    )
    assert ask_raw(speak, first_token_timeout_s=0.3) == Heard([("a",)], FINISHED)


@pytest.mark.parametrize(
    "piece",
    [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}],
    ids=["reasoning", "calls"],
)
def test_reasoning_that_does_not_end_is_ended(
    model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch, piece: dict[str, Any]
) -> None:
    monkeypatch.setattr(completions, "_MOST_UNSEEN", 3)
    model.will(stream(text("a"), *[event(piece)] * 4, text("b"), FINISH, DONE))
    heard = ask(model.base_url)
    ending = {**FINISHED, "finish_reason": "length"}
    assert (heard.tokens, heard.ending, heard.fault) == (["a"], ending, None)


def test_control_characters_and_lone_surrogates_are_removed_token_by_token(
    model: OpenAIStandIn,
) -> None:
    model.will(stream(b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n', text("a\0b"),
                      text("\0"), text(" c"), FINISH, DONE))  # fmt: skip
    assert ask(model.base_url) == Heard([("ab", " c")], FINISHED)


def content(escaped: str) -> bytes:
    """A chunk whose text is written in JSON as `escaped`."""
    return f'data: {{"choices": [{{"delta": {{"content": "{escaped}"}}}}]}}\n\n'.encode()


FIRST_HALF, SECOND_HALF = content(r"a\ud83d"), content(r"\ude00b")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([FIRST_HALF + SECOND_HALF], [("a", "😀b")]),
        ([FIRST_HALF, SECOND_HALF], [("a",), ("😀b",)]),
        ([FIRST_HALF, event({}), SECOND_HALF], [("a",), ("😀b",)]),
        ([content(r"\ud83d"), SECOND_HALF], [("😀b",)]),
        ([FIRST_HALF, FIRST_HALF, SECOND_HALF], [("a",), ("a",), ("😀b",)]),
        ([content(r"\ude00\ud83d") + content(r"\ude00\ud83d"), SECOND_HALF], [("😀",), ("😀b",)]),
        ([FIRST_HALF, text("c"), SECOND_HALF], [("a",), ("c",), ("b",)]),
        ([SECOND_HALF, FIRST_HALF], [("b",), ("a",)]),
    ],
)
def test_the_halves_of_a_surrogate_pair_are_joined_over_tokens_and_reads(
    chunks: list[bytes], expected: list[tuple[str, ...]]
) -> None:
    heard = ask_raw(saying(*chunks, FINISH + DONE, pause_s=0.05))
    assert heard == Heard(expected, FINISHED)


# How its bytes may come


def test_bytes_may_be_cut_at_any_place() -> None:
    whole = text("é") + text("😀\u2028 x") + FINISH + DONE
    cut = [bytes([byte]) for byte in whole]
    assert ask_raw(saying(*cut, pause_s=0.0005)) == Heard([("é",), ("😀\u2028 x",)], FINISHED)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(text("a") + FINISH + DONE, id="plain"),
        pytest.param((text("a") + FINISH + DONE).replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param((text("a") + FINISH + DONE).replace(b"data: ", b"data:"), id="no_space"),
        pytest.param(b": hi\n\n" + text("a") + b":\n\ndata:\n\n" + FINISH + DONE, id="comments"),
        pytest.param(b"event: x\nid: 1\nretry: 9\n" + text("a") + FINISH + DONE, id="fields"),
        pytest.param(text("a") + FINISH + DONE.rstrip(), id="no_last_line_end"),
        pytest.param(text("a") + FINISH.rstrip(), id="no_done_and_no_line_end"),
        pytest.param(text("a") + FINISH + DONE + b"data: {oops\n\n", id="more_after_done"),
        pytest.param(event({"role": "assistant", "content": None}) + text("a") + FINISH, id="role"),
        pytest.param(text("a") + event({"content": ""}, "") + FINISH, id="empty_strings"),
        pytest.param(data({"choices": []}) + text("a") + FINISH + DONE, id="no_choices"),
        pytest.param(data({"choices": [{"index": 0}]}) + text("a") + FINISH, id="no_delta"),
        pytest.param(text("a") + FINISH + b'data: {"choices": [], "usa', id="cut_after_the_finish"),
    ],
)
def test_what_servers_do_differently_changes_nothing(model: OpenAIStandIn, body: bytes) -> None:
    model.will(Answer(body=body, content_type="text/event-stream; charset=utf-8"))
    assert ask(model.base_url) == Heard([("a",)], FINISHED)


def test_a_compressed_stream_is_read(model: OpenAIStandIn) -> None:
    packed = gzip.compress(text("a") + FINISH + DONE)
    model.will(
        Answer(body=packed, content_type="text/event-stream", headers={"Content-Encoding": "gzip"})
    )
    assert ask(model.base_url) == Heard([("a",)], FINISHED)


def test_a_whole_answer_counts_though_the_server_never_closes() -> None:
    speak = saying(text("a") + FINISH, hang_s=60)
    began = time.monotonic()
    assert ask_raw(speak, idle_timeout_s=0.2) == Heard([("a",)], FINISHED)
    assert time.monotonic() - began < 20


def test_a_whole_answer_counts_though_the_connection_is_lost_after_it() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        body = text("a") + FINISH
        writer.write(HEAD + f"Content-Length: {len(body) + 9}\r\n\r\n".encode() + body)

    assert ask_raw(speak) == Heard([("a",)], FINISHED)


# What can go wrong


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(Answer(["a", " b"], end="no_finish"), BROKEN_OFF, id="no_finish"),
        pytest.param(Answer(["a", " b"], end="cut"), BROKEN_OFF, id="cut"),
        pytest.param(Answer(["a", " b"], end="hang"), SILENT, id="hang"),
        pytest.param(Answer(["a", " b"], end="broken_json"), NOT_THE_PROTOCOL, id="broken_json"),
        pytest.param(Answer(["a", " b"], end="bad_utf8"), NOT_THE_PROTOCOL, id="bad_utf8"),
        pytest.param(Answer(["a", " b"], end="html"), BROKEN_OFF, id="html"),
        pytest.param(Answer(["a", " b"], end="error_object"), REPORTED_FAULT, id="error_object"),
    ],
)
@pytest.mark.parametrize("one_write", [True, False])
def test_a_fault_in_the_stream_has_its_error_and_the_tokens_before_it_are_heard(
    model: OpenAIStandIn, answer: Answer, fault: Fault, one_write: bool
) -> None:
    model.will(Answer(answer.tokens, end=answer.end, one_write=one_write))
    heard = ask(model.base_url, idle_timeout_s=0.3)
    assert (heard.tokens, heard.fault, heard.ending) == (["a", " b"], fault, {})
    assert len(model.chats) == 1


def test_of_a_burst_that_is_cut_off_each_token_is_heard_once(model: OpenAIStandIn) -> None:
    # Several slices of it wait to be read when the connection is lost.
    burst = [f"word{at} " for at in range(1000)]
    model.will(Answer(burst, end="cut", one_write=True))
    heard = ask(model.base_url)
    assert (heard.tokens, heard.fault) == (burst, BROKEN_OFF)


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        pytest.param(DONE, BROKEN_OFF, id="done_without_a_finish_reason"),
        pytest.param(text("b").rstrip()[:-5], BROKEN_OFF, id="cut_in_an_event"),
        pytest.param(data([]), NOT_THE_PROTOCOL, id="list"),
        pytest.param(data({"type": "response.created"}), NOT_THE_PROTOCOL, id="other_api"),
        pytest.param(data({"choices": [{"text": "a"}]}), NOT_THE_PROTOCOL, id="completions_api"),
        pytest.param(event({"content": ["a"]}), NOT_THE_PROTOCOL, id="text_of_another_shape"),
        pytest.param(data({"choices": {}, "usage": "1"}), NOT_THE_PROTOCOL, id="usage"),
        pytest.param(b"data: hello\n\n", NOT_THE_PROTOCOL, id="plain_text"),
        pytest.param(b'data: {"a":' + b"[" * 99_999 + b"\n", NOT_THE_PROTOCOL, id="too_deep"),
        pytest.param(b"x" * 5_000_000, NOT_THE_PROTOCOL, id="endless_line"),
        pytest.param(event({}, "error"), REPORTED_FAULT, id="finish_reason_error"),
        pytest.param(data({"error": "busy", "choices": []}), REPORTED_FAULT, id="error_string"),
    ],
)
def test_other_shapes_are_faults(model: OpenAIStandIn, last: bytes, fault: Fault) -> None:
    model.will(stream(text("a"), last))
    heard = ask(model.base_url)
    assert (heard.tokens, heard.fault, heard.ending) == (["a"], fault, {})


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(body="<html>"), NOT_THE_PROTOCOL),
        (Answer(body=FINISH, content_type="text/plain"), NOT_THE_PROTOCOL),
        (Answer(body='{"error": {"message": "x"}}', content_type="application/json"),
         REPORTED_FAULT),
        (Answer(body='{"choices": []}', content_type="application/json"), NOT_THE_PROTOCOL),
        (Answer(body='{"choi', content_type="application/json"), NOT_THE_PROTOCOL),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_event_stream_is_a_fault(
    model: OpenAIStandIn, answer: Answer, fault: Fault
) -> None:
    model.will(answer)
    assert ask(model.base_url) == Heard(fault=fault)


@pytest.mark.parametrize(
    ("status", "transient", "message"),
    [
        (307, False, "307 Temporary Redirect. Check the provider."),
        (400, False, "400 Bad Request. The provider does not accept this prompt or model setting."),
        (401, False, "401 Authentication Failed. Check the provider's API key."),
        (404, False, "404 Not Found. Check the provider's base URL and the model's name."),
        (429, True, "429 Too Many Requests. The provider is busy or its quota is used up; try "
                    "again later."),
        (503, True, "503 Service Unavailable. Check the provider."),
    ],
)  # fmt: skip
def test_a_refusal_is_told_at_once_with_its_status_and_not_retried(
    model: OpenAIStandIn, status: int, transient: bool, message: str
) -> None:
    headers = {"Retry-After": "60", "Location": "/v1/elsewhere"}
    model.will(Answer(status=status, headers=headers, error={"message": "sk-secret"}))
    began = time.monotonic()
    assert ask(model.base_url) == Heard(fault=Fault(ModelRefused, transient, message))
    assert time.monotonic() - began < 30
    assert [request.path for request in model.requests] == ["/v1/chat/completions"]


def test_a_compressed_stream_that_is_not_one_is_a_fault(model: OpenAIStandIn) -> None:
    packed = gzip.compress(text("a") * 99)
    broken = packed[:20] + b"\xff" * 20 + packed[40:]
    model.will(
        Answer(body=broken, content_type="text/event-stream", headers={"Content-Encoding": "gzip"})
    )
    assert ask(model.base_url).fault == BROKEN_OFF


@pytest.mark.parametrize(
    "base_url",
    [
        pytest.param("http://127.0.0.1:9/v1", id="refused"),
        pytest.param("http://nowhere.invalid/v1", id="unknown_host"),
        pytest.param("ftp://127.0.0.1/v1", id="another_scheme"),
        pytest.param("http://127.0.0.1:99999/v1", id="no_such_port"),
    ],
)
def test_an_address_where_nobody_answers_is_unreachable(base_url: str) -> None:
    assert ask(base_url) == Heard(fault=UNREACHABLE)


def test_a_server_without_tls_is_unreachable_over_https(model: OpenAIStandIn) -> None:
    assert ask(model.base_url.replace("http:", "https:")) == Heard(fault=UNREACHABLE)


def test_a_server_that_hangs_up_without_an_answer_is_asked_once() -> None:
    connections = 0

    async def speak(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    assert (ask_raw(speak), connections) == (Heard(fault=UNREACHABLE), 1)


def test_a_connection_that_is_not_made_in_time_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # The TLS handshake is part of connecting, and nobody answers it here.
        heard = ask(f"https://127.0.0.1:{port}/v1", connect_timeout_s=0.3)
    message = "The model could not be reached within 0.3 seconds. Try again later."
    assert heard == Heard(fault=Fault(ModelTimedOut, True, message))


def test_no_answer_at_all_is_a_timeout(model: OpenAIStandIn) -> None:
    model.will(Answer(hang_before_headers=True))
    assert ask(model.base_url, first_token_timeout_s=0.3) == Heard(fault=LATE)
    model.wait_for_hangup(model.requests[0])


@pytest.mark.parametrize("sign_of_life", [b": wait\n\n", event({"role": "assistant"})])
def test_signs_of_life_without_a_token_are_a_timeout(sign_of_life: bytes) -> None:
    heard = ask_raw(saying(*[sign_of_life] * 9, pause_s=0.1), first_token_timeout_s=0.3)
    assert heard == Heard(fault=LATE)


@timed
def test_a_slow_answer_is_no_timeout_while_each_read_comes_in_time(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", "b", "c", "d"], delay_s=0.15))
    heard = ask(model.base_url, first_token_timeout_s=0.3, idle_timeout_s=0.3)
    assert (heard.tokens, heard.fault) == (["a", "b", "c", "d"], None)


@timed
def test_a_slow_listener_is_no_timeout(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", "b"], delay_s=0.05))

    heard = ask(model.base_url, pause_s=0.4, idle_timeout_s=0.2)
    assert (heard.tokens, heard.fault) == (["a", "b"], None)


def test_tokens_that_came_before_the_connection_was_lost_reach_a_busy_listener(
    model: OpenAIStandIn,
) -> None:
    model.will(Answer(["a", "b", "c"], end="cut", delay_s=0.03))

    heard = ask(model.base_url, pause_s=0.3)
    assert heard == Heard([("a",), ("b", "c")], fault=BROKEN_OFF)


# Who hangs up, and which connections are used


@timed
def test_cancelling_the_reader_hangs_up_at_once(model: OpenAIStandIn) -> None:
    model.will(Answer(["a"], end="hang"))

    async def cancel_in_a_read() -> float:
        chat = chat_with(model.base_url)
        task = asyncio.create_task(listen(chat))
        await asyncio.to_thread(model.wait_for_request)
        await asyncio.sleep(0.3)
        task.cancel()
        cancelled_at = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        hung_up_at = await asyncio.to_thread(model.wait_for_hangup, model.requests[0])
        await chat.aclose()
        return hung_up_at - cancelled_at

    assert asyncio.run(cancel_in_a_read()) < 0.2


@timed
def test_cancelling_a_reader_that_is_busy_with_a_token_hangs_up_too(model: OpenAIStandIn) -> None:
    model.will(Answer(["a"], end="hang"))

    async def linger(chat: StreamingChatModel) -> None:
        async for _ in chat.astream("two words"):
            await asyncio.sleep(60)

    async def cancel_between_reads() -> float:
        chat = chat_with(model.base_url)
        task = asyncio.create_task(linger(chat))
        await asyncio.to_thread(model.wait_for_request)
        await asyncio.sleep(0.3)
        task.cancel()
        cancelled_at = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        hung_up_at = await asyncio.to_thread(model.wait_for_hangup, model.requests[0])
        await chat.aclose()
        return hung_up_at - cancelled_at

    assert asyncio.run(cancel_between_reads()) < 0.2


def test_leaving_the_loop_hangs_up(model: OpenAIStandIn) -> None:
    model.will(Answer(["a"], end="hang"))

    async def leave() -> None:
        chat = chat_with(model.base_url)
        async with aclosing(chat.astream("two words")) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                break
        await asyncio.to_thread(model.wait_for_hangup, model.requests[0])
        await chat.aclose()

    asyncio.run(leave())


def keeping_open(bodies: Iterable[bytes | None], connections: list[int]) -> Speech:
    """Answer request after request on one connection; None hangs up in place of an answer.

    `connections` gets the number of requests of each connection.
    """
    answers = iter(bodies)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(connections)
        connections.append(0)
        while not reader.at_eof():
            try:
                await read_request(reader)
            except asyncio.IncompleteReadError:
                break
            connections[at] += 1
            body = next(answers)
            if body is None:
                break
            writer.write(with_length(body))

    return speak


@pytest.mark.parametrize(
    ("bodies", "requests"),
    [
        pytest.param([text("a") + FINISH + DONE] * 3, [3], id="kept_open"),
        pytest.param([text("a") + FINISH + DONE, None, text("a") + FINISH], [2, 1], id="lost"),
    ],
)
def test_connections_are_used_again_and_one_that_was_closed_while_idle_does_no_harm(
    bodies: list[bytes | None], requests: list[int]
) -> None:
    connections: list[int] = []

    async def ask_often() -> list[Heard]:
        async with serving(keeping_open(bodies, connections)) as base_url:
            chat = chat_with(base_url)
            heard = [await listen(chat) for body in bodies if body]
            await chat.aclose()
            return heard

    answered = sum(body is not None for body in bodies)
    assert asyncio.run(ask_often()) == [Heard([("a",)], FINISHED)] * answered
    assert connections == requests


def test_a_connection_whose_last_bytes_come_late_is_used_again() -> None:
    connections = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        body = text("a") + FINISH + DONE
        for _ in range(2):
            await read_request(reader)
            chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n"
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
            await asyncio.sleep(0.05)
            writer.write(b"0\r\n\r\n")

    async def ask_twice() -> list[Heard]:
        async with serving(speak) as base_url:
            chat = chat_with(base_url)
            heard = [await listen(chat), await listen(chat)]
            await chat.aclose()
            return heard

    assert asyncio.run(ask_twice()) == [Heard([("a",)], FINISHED)] * 2
    assert connections == 1


def test_a_request_is_repeated_once_at_most() -> None:
    connections: list[int] = []
    bodies = [text("a") + FINISH + DONE, None, None]

    async def ask_twice() -> list[Heard]:
        async with serving(keeping_open(bodies, connections)) as base_url:
            chat = chat_with(base_url)
            heard = [await listen(chat), await listen(chat)]
            await chat.aclose()
            return heard

    assert asyncio.run(ask_twice()) == [Heard([("a",)], FINISHED), Heard(fault=UNREACHABLE)]
    assert connections == [2, 1]


def test_a_kept_connection_does_not_hold_the_run_that_first_needed_it() -> None:
    connections: list[int] = []
    body = text("a") + FINISH + DONE

    async def first(chat: StreamingChatModel) -> weakref.ref[Run]:
        run = Run()
        RUN.set(run)
        assert await listen(chat) == Heard([("a",)], FINISHED)
        return weakref.ref(run)

    async def two_runs() -> Run | None:
        async with serving(keeping_open([body] * 2, connections)) as base_url:
            chat = chat_with(base_url)
            run = await asyncio.create_task(first(chat))
            await asyncio.sleep(0.1)
            gc.collect()
            held = run()
            assert await listen(chat) == Heard([("a",)], FINISHED)
            await chat.aclose()
            return held

    # asyncio's own loop holds the context of a timer that was cancelled, until its time has come.
    assert (uvloop.run(two_runs()), connections) == (None, [2])


def test_a_copy_shares_the_connections() -> None:
    connections: list[int] = []
    bodies = [text("a") + FINISH + DONE] * 2

    async def ask_both() -> None:
        async with serving(keeping_open(bodies, connections)) as base_url:
            chat = chat_with(base_url)
            await listen(chat)
            await listen(chat.model_copy(update={"temperature": 0.5}))
            await chat.aclose()

    asyncio.run(ask_both())
    assert connections == [2]


def test_one_model_serves_one_event_loop_after_the_other(model: OpenAIStandIn) -> None:
    model.will(Answer(["a"]))
    chat = chat_with(model.base_url)

    async def once() -> list[str]:
        heard = await listen(chat)
        await chat.aclose()
        return heard.tokens

    assert [asyncio.run(once()), asyncio.run(once())] == [["a"], ["a"]]


# What is sent


def test_the_request_is_what_chatopenai_would_send(model: OpenAIStandIn) -> None:
    ask(
        model.base_url,
        temperature=0.5,
        max_tokens=9,
        extra_body={"top_k": 3},
        default_headers={"X-Title": "t"},
    )
    (request,) = model.requests
    assert request.body == {
        "model": "stand-in",
        "messages": [{"role": "user", "content": "two words"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
        "top_k": 3,
    }
    wanted = ("authorization", "content-type", "x-title")
    assert [request.headers[name] for name in wanted] == [
        "Bearer sk-secret",
        "application/json",
        "t",
    ]


def test_the_query_of_every_request_is_sent() -> None:
    lines: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        await read_request(reader)
        writer.write(with_length(text("a") + FINISH))

    assert ask_raw(speak, default_query={"api-version": 1}).tokens == ["a"]
    assert lines == [b"POST /v1/chat/completions?api-version=1 HTTP/1.1\r\n"]


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://api.mistral.ai/v1", "max_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
    ],
)
def test_the_limit_of_tokens_has_the_name_that_the_endpoint_knows(base_url: str, name: str) -> None:
    payload = chat_with(base_url, max_tokens=9)._get_request_payload("hi")
    assert {key for key in payload if key.startswith("max_")} == {name}


def test_the_key_may_come_from_a_function(model: OpenAIStandIn) -> None:
    async def key() -> str:
        return "sk-fresh"

    async def once() -> None:
        chat = StreamingChatModel(model="stand-in", base_url=model.base_url, api_key=key)
        await listen(chat)
        await chat.aclose()

    asyncio.run(once())
    assert model.requests[0].headers["authorization"] == "Bearer sk-fresh"


def test_the_operators_organization_is_not_told_to_a_provider_that_an_admin_entered(
    model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-harbour")
    settings = PipelineSettings(_env_file=None, allow_private_providers=True)
    provider = Provider("Near", "near", model.base_url, (ModelEntry("small"),), None)

    async def once() -> None:
        for chat in (chat_of(settings, provider), guarded_chat(settings, provider)):
            await listen(chat)
            await chat.aclose()

    asyncio.run(once())
    told = [request.headers.get("openai-organization") for request in model.requests]
    assert told == ["org-harbour", None]


def test_neither_a_proxy_nor_a_netrc_comes_between_us_and_loopback(
    model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    model.will(Answer(["a"]))
    assert ask(model.base_url).tokens == ["a"]
    assert model.requests[0].headers["authorization"] == "Bearer sk-secret"


def test_the_environments_proxy_is_used(
    model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", model.base_url.removesuffix("/v1"))
    model.will(Answer(["a"]))
    assert ask("http://model.invalid/v1").tokens == ["a"]
    assert model.requests[0].headers["host"] == "model.invalid"


# LangChain and LangGraph


class Callbacks(AsyncCallbackHandler):
    """Notes what LangChain announces."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_llm_new_token(self, token: str, **_: Any) -> None:  # type: ignore[override]
        self.seen.append(token)

    async def on_llm_end(self, *_: object, **__: object) -> None:
        self.seen.append("<end>")

    async def on_llm_error(self, error: BaseException, **_: object) -> None:
        self.seen.append(f"<{type(error).__name__}>")


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (Answer(["a", " b"], one_write=True), ["a b", "<end>"]),
        (Answer(["a", " b"], one_write=True, end="cut"), ["a b", "<ModelUnreachable>"]),
    ],
)
def test_callbacks_hear_of_each_chunk_once(
    model: OpenAIStandIn, answer: Answer, seen: list[str]
) -> None:
    model.will(answer)
    callbacks = Callbacks()
    ask(model.base_url, callbacks=[callbacks])
    assert callbacks.seen == seen


TOOL_CALL = b"".join(
    b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode()
    for choice in (
        {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    )
)


async def gathered(chat: StreamingChatModel) -> list[Batch | Fault]:
    """What one question gives through `batches`."""
    told: list[Batch | Fault] = []
    try:
        async for batch in chat.batches("two words"):
            told.append(batch)
    except ModelError as error:
        told.append(Fault(type(error), error.transient, str(error)))
    return told


def joined(told: Sequence[Batch | Fault]) -> list[Any]:
    """All tokens, and what each batch or fault has beside them."""
    batches = [one for one in told if isinstance(one, Batch)]
    return [
        [token for batch in batches for token in batch.tokens],
        [list(batch.tool_calls) for batch in batches if batch.tool_calls],
        [(b.finish_reason, b.model_name, b.usage) for b in batches if b.finish_reason],
        [one for one in told if isinstance(one, Fault)],
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(["a", " b"]),
        Answer(["a", " b"], one_write=True),
        Answer(["a", " b"], one_write=True, end="cut"),
        Answer(["a", "\ud83d", " b\x00"], one_write=True),
        Answer(["a"], finish_reason="length"),
        Answer([]),
        Answer(body=TOOL_CALL, content_type="text/event-stream"),
        Answer(status=401),
    ],
)
def test_batches_are_what_astream_gives_heard_or_not(model: OpenAIStandIn, answer: Answer) -> None:
    callbacks = Callbacks()

    async def each() -> list[list[Batch | Fault]]:
        chat = chat_with(model.base_url)

        async def asked(_: str) -> list[Batch | Fault]:
            return await gathered(chat)

        heard = RunnableLambda(asked)
        told = [await gathered(chat), await heard.ainvoke("", {"callbacks": [callbacks]})]
        await chat.aclose()
        return told

    model.will(answer, answer)
    alone, heard = asyncio.run(each())
    assert joined(alone) == joined(heard)
    assert "".join(seen for seen in callbacks.seen if seen[:1] != "<") == "".join(joined(heard)[0])
    assert len(callbacks.seen) == sum(isinstance(one, Batch) for one in heard) + 1


def test_a_long_answer_is_read_in_slices_and_each_byte_once() -> None:
    tokens = [f" word{number}" for number in range(10_000)]
    lines = b"".join(
        b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": token}}]}).encode()
        for token in tokens
    )
    answer = Completion("stand-in")
    batches: list[Batch] = []
    for at in range(0, len(lines), 1000):
        answer.feed(lines[at : at + 1000])
        batches += filter(None, [answer.take()])
    assert [token for batch in batches for token in batch.tokens] == tokens
    assert max(len(batch.tokens) for batch in batches) <= 1000 // 40


def test_a_burst_leaves_the_loop_to_others_between_its_slices(model: OpenAIStandIn) -> None:
    tokens = [f" word{number}" for number in range(1000)]
    model.will(Answer(tokens, one_write=True))

    async def asked() -> tuple[list[Batch | Fault], int]:
        chat = chat_with(model.base_url)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        others = asyncio.create_task(turn())
        async with aclosing(chat.batches("two words")) as batches:
            told: list[Batch | Fault] = [await anext(batches)]
            turns = 0
            told += [batch async for batch in batches]
        others.cancel()
        await chat.aclose()
        return told, turns

    told, turns = asyncio.run(asked())
    assert joined(told)[0] == tokens
    assert len(told) > 5
    assert turns >= len(told) - 1


def test_callbacks_hear_of_each_chunk_once_in_an_event_stream(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", " b"], one_write=True))
    callbacks = Callbacks()

    async def once() -> str:
        chat = chat_with(model.base_url)
        config: RunnableConfig = {"callbacks": [callbacks]}
        events = await chat.astream_events("two words", config, version="v3")
        whole = await events.text
        await chat.aclose()
        return str(whole)

    with pytest.warns(match="beta"):
        assert asyncio.run(once()) == "a b"
    assert [seen for seen in callbacks.seen if not seen.startswith("<")] == ["a b"]


def test_invoking_without_a_stream_works_as_before(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", " b"]))

    async def once() -> AIMessage:
        return await chat_with(model.base_url).ainvoke("two words")

    assert asyncio.run(once()).content == "a b"
    assert "stream_options" not in model.requests[0].body


def test_langgraph_streams_the_chunks_of_a_node_that_only_invokes(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", " b"], one_write=True))

    async def once() -> list[tuple[str, ...]]:
        chat = chat_with(model.base_url)

        async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
            return {"messages": [await chat.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("answer", answer)
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        turn: Any = {"messages": [("user", "two words")]}
        parts = graph.compile().astream(turn, stream_mode="messages")
        streamed = [tokens_of(chunk) async for chunk, _ in parts]  # type: ignore[arg-type]
        await chat.aclose()
        return streamed

    assert asyncio.run(once()) == [("a", " b")]


# What models there are


def test_models_are_listed_as_they_are(model: OpenAIStandIn) -> None:
    assert asyncio.run(listed(model.base_url)) == [
        {"id": "stand-in", "object": "model", "created": 1_700_000_000, "owned_by": "stand-in"}
    ]
    assert model.requests[0].headers["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize(
    ("body", "fault"),
    [(b"<html>", NOT_THE_PROTOCOL), (b'{"data": 1}', NOT_THE_PROTOCOL), (None, UNREACHABLE)],
)
def test_a_list_of_models_that_is_none_is_a_fault(body: bytes | None, fault: Fault) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if body is not None:
            writer.write(with_length(body))

    assert asyncio.run(listing_fault(speak)) == fault


def test_a_list_of_models_that_does_not_come_is_a_timeout() -> None:
    async def speak(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    message = "The model's endpoint did not answer within 0.2 seconds."
    assert asyncio.run(listing_fault(speak)) == Fault(ModelTimedOut, True, message)


async def listed(base_url: str) -> list[dict[str, Any]]:
    chat = chat_with(base_url)
    try:
        return await chat.list_models(0.2)
    finally:
        await chat.aclose()


async def listing_fault(speak: Speech) -> Fault:
    async with serving(speak) as base_url:
        with pytest.raises(ModelError) as raised:
            await listed(base_url)
    return Fault(type(raised.value), raised.value.transient, str(raised.value))
