"""The stand-ins speak to the real clients as the real services do, faults included."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from standins.openai import HTML_PAGE, Answer, End, OpenAIStandIn, embed
from standins.tavily import Page, SearchAnswer, TavilyStandIn
from tavily import AsyncTavilyClient, errors  # type: ignore[import-untyped, unused-ignore]
from timed import timed

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "two words"}]
ASKED = {"model": "stand-in", "messages": QUESTION, "stream": True}
TIMEOUT_S = 20.0


@pytest.fixture
def model() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as standin:
        yield standin


@pytest.fixture
def client(model: OpenAIStandIn) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=model.base_url, api_key="key", max_retries=0, timeout=TIMEOUT_S
    ) as connected:
        yield connected


@pytest.fixture
def tavily() -> Iterator[TavilyStandIn]:
    with TavilyStandIn() as standin:
        yield standin


def streamed(client: openai.OpenAI) -> list[ChatCompletionChunk]:
    with client.chat.completions.create(
        model="stand-in", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    ) as stream:
        return list(stream)


def asked(client: openai.OpenAI) -> str | None:
    answer = client.chat.completions.create(model="stand-in", messages=QUESTION)
    return answer.choices[0].message.content


def on_the_wire(
    model: OpenAIStandIn, read_timeout_s: float = TIMEOUT_S, *, stream: bool = True
) -> tuple[list[bytes], type[Exception] | None]:
    """The body's HTTP chunks as they came, and the error that broke them off."""
    pieces: list[bytes] = []
    timeout = httpx.Timeout(TIMEOUT_S, read=read_timeout_s)
    url = f"{model.base_url}/chat/completions"
    body = {**ASKED, "stream": stream}
    with httpx.stream("POST", url, json=body, timeout=timeout) as response:
        try:
            pieces.extend(response.iter_raw())
        except httpx.TransportError as error:
            return pieces, type(error)
    return pieces, None


def chunk(delta: str, finish_reason: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}'
    head = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000'
    return f'data: {{{head},"model":"stand-in","choices":[{choice}]}}\n\n'.encode()


def test_models_are_listed() -> None:
    with OpenAIStandIn(models=["small", "große"]) as model:
        listed = httpx.get(f"{model.base_url}/models").json()
        with openai.OpenAI(base_url=model.base_url, api_key="key") as client:
            assert [entry.id for entry in client.models.list()] == ["small", "große"]
    entry = {"object": "model", "created": 1_700_000_000, "owned_by": "stand-in"}
    entries = [{"id": "small", **entry}, {"id": "große", **entry}]
    assert listed == {"object": "list", "data": entries}


def test_stream_has_role_tokens_finish_and_usage(
    model: OpenAIStandIn, client: openai.OpenAI
) -> None:
    model.will(Answer(["Grüße", " 👩‍🚀", " 𝔘"], finish_reason="length"))
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "stand-in",
    }
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}

    def part(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**head, "choices": [choice], "usage": None}

    assert [piece.model_dump(exclude_unset=True) for piece in streamed(client)] == [
        part({"role": "assistant", "content": ""}),
        part({"content": "Grüße"}),
        part({"content": " 👩‍🚀"}),
        part({"content": " 𝔘"}),
        part({}, "length"),
        {**head, "choices": [], "usage": usage},
    ]


def test_whole_answer_has_content_and_usage(model: OpenAIStandIn, client: openai.OpenAI) -> None:
    model.will(Answer(["Grüße", " 👩‍🚀"]))
    answer = client.chat.completions.create(model="any", messages=QUESTION)
    assert answer.model_dump(exclude_unset=True) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "any",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Grüße 👩‍🚀", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    }


def test_async_client_streams(model: OpenAIStandIn) -> None:
    async def contents() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=model.base_url, api_key="key") as client:
            stream = await client.chat.completions.create(
                model="stand-in", messages=QUESTION, stream=True
            )
            return [piece.choices[0].delta.content async for piece in stream]

    assert asyncio.run(contents()) == ["", "The", " answer", ".", None]


def test_answers_come_in_order_and_the_last_stays(
    model: OpenAIStandIn, client: openai.OpenAI
) -> None:
    before = asked(client)
    model.will(Answer(["one"]), Answer(["two"]))
    between = [asked(client) for _ in range(3)]
    model.will(Answer(["three"]))
    assert [before, *between, asked(client)] == ["The answer.", "one", "two", "two", "three"]


def test_reply_is_made_from_the_request(model: OpenAIStandIn, client: openai.OpenAI) -> None:
    model.will(Answer(reply=lambda body: [body["model"], ": ", body["messages"][0]["content"]]))
    assert asked(client) == "stand-in: two words"


def test_requests_are_recorded(model: OpenAIStandIn, client: openai.OpenAI) -> None:
    list(client.models.list())
    asked(client)
    body = {"messages": QUESTION, "model": "stand-in"}
    assert [(request.path, request.body) for request in model.requests] == [
        ("/v1/models", {}),
        ("/v1/chat/completions", body),
    ]
    assert [request.headers["authorization"] for request in model.requests] == ["Bearer key"] * 2
    assert [(request.finished, request.closed_early_at) for request in model.requests] == [
        (True, None),
        (True, None),
    ]
    assert model.chats == [model.requests[1]]


def test_parallel_requests_are_all_recorded(model: OpenAIStandIn, client: openai.OpenAI) -> None:
    model.will(Answer(["a", "b"], delay_s=0.01))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: asked(client), range(32)))
    assert answers == ["ab"] * 32
    assert [request.finished for request in model.requests] == [True] * 32


@timed
def test_delays_hold_back_the_first_chunk_and_each_token(model: OpenAIStandIn) -> None:
    model.will(Answer(["a", "b", "c"], first_delay_s=0.2, delay_s=0.1))
    url = f"{model.base_url}/chat/completions"
    with httpx.stream("POST", url, json=ASKED, timeout=TIMEOUT_S) as response:
        headers_at = time.monotonic()
        times = [time.monotonic() - headers_at for _ in response.iter_raw()]
    at_least = [0.2, 0.3, 0.4, 0.5]
    assert [at > least - 0.05 for at, least in zip(times, at_least, strict=False)] == [True] * 4
    assert times[-1] < TIMEOUT_S


@pytest.mark.parametrize(
    ("end", "rest", "error"),
    [
        ("finish", [chunk("{}", '"stop"'), b"data: [DONE]\n\n"], None),
        ("no_finish", [], None),
        ("cut", [b'data: {"id":"chatcmpl-1","object":"chat.'], httpx.RemoteProtocolError),
        ("hang", [], httpx.ReadTimeout),
        ("broken_json", [b'data: {"id":"chatcmpl-1","object":"chat.\n\n'], None),
        (
            "bad_utf8",
            [chunk('{"content":"?"}').replace(b"?", b"\xff\xfe\xc3")],
            None,
        ),
        ("html", [HTML_PAGE.encode()], None),
        (
            "error_object",
            [
                b'data: {"error":{"message":"The server had an error.",'
                b'"type":"server_error","code":null}}\n\n'
            ],
            None,
        ),
    ],
)
@pytest.mark.parametrize("one_write", [False, True])
def test_stream_ends_as_the_answer_says(
    model: OpenAIStandIn,
    end: End,
    rest: list[bytes],
    error: type[Exception] | None,
    one_write: bool,
) -> None:
    model.will(Answer(["é", "𝔘"], end=end, one_write=one_write))
    pieces, broken_by = on_the_wire(model, read_timeout_s=0.5 if end == "hang" else TIMEOUT_S)
    tokens = [chunk('{"content":"é"}'), chunk('{"content":"𝔘"}')]
    expected = [chunk('{"role":"assistant","content":""}'), *tokens, *rest]
    assert b"".join(pieces) == b"".join(expected)
    assert broken_by == error
    assert not one_write or len(pieces) == 1
    if end == "hang":
        model.wait_for_hangup(model.requests[0], TIMEOUT_S)
    assert model.requests[0].finished == (end != "hang")


@pytest.mark.parametrize(
    ("end", "body", "error"),
    [
        ("cut", b'{"id":"chatcmpl-1"', httpx.RemoteProtocolError),
        ("hang", b'{"id":"chatcmpl-1"', httpx.ReadTimeout),
        ("broken_json", b'{"id":"chatcmpl-1"', None),
        ("bad_utf8", b'"content":"\xff\xfe\xc3ok"', None),
        ("html", HTML_PAGE.encode(), None),
        ("error_object", b'{"error":{"message":"The server had an error."', None),
        ("no_finish", b'"finish_reason":null', None),
        ("finish", b'"finish_reason":"stop"', None),
    ],
)
def test_whole_answer_ends_as_the_answer_says(
    model: OpenAIStandIn, end: End, body: bytes, error: type[Exception] | None
) -> None:
    model.will(Answer(["ok"], end=end))
    pieces, broken_by = on_the_wire(model, 0.5 if end == "hang" else TIMEOUT_S, stream=False)
    assert body in b"".join(pieces)
    assert broken_by == error


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("cut", openai.APIConnectionError),
        ("broken_json", ValueError),
        ("bad_utf8", UnicodeDecodeError),
        ("error_object", openai.APIError),
    ],
)
def test_stream_fault_reaches_the_openai_client(
    model: OpenAIStandIn, client: openai.OpenAI, end: End, error: type[Exception]
) -> None:
    model.will(Answer(["half"], end=end))
    with pytest.raises(error):
        streamed(client)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, openai.BadRequestError, None),
        (401, openai.AuthenticationError, "invalid_api_key"),
        (404, openai.NotFoundError, "model_not_found"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
        (503, openai.InternalServerError, "overloaded"),
    ],
)
def test_status_gives_an_openai_error(
    model: OpenAIStandIn,
    client: openai.OpenAI,
    status: int,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    model.will(Answer(status=status, headers={"Retry-After": "7"}, error={"message": "Because."}))
    with pytest.raises(error, match="Because") as caught:
        streamed(client)
    assert (caught.value.code, caught.value.response.headers["retry-after"]) == (code, "7")


def test_body_replaces_the_answer(model: OpenAIStandIn) -> None:
    page = "<html>Grüße vom Proxy</html>"
    model.will(Answer(body=page), Answer(body=b"\xff", status=502, content_type="text/plain"))
    url = f"{model.base_url}/chat/completions"
    answers = [httpx.post(url, json=ASKED) for _ in range(2)]
    assert [
        (answer.status_code, answer.headers["content-type"], answer.content) for answer in answers
    ] == [(200, "text/html", page.encode()), (502, "text/plain", b"\xff")]


def test_client_that_leaves_is_noticed(model: OpenAIStandIn, client: openai.OpenAI) -> None:
    model.will(Answer(["word"] * 1000, delay_s=0.02))
    left_at = time.monotonic()
    with client.chat.completions.create(model="stand-in", messages=QUESTION, stream=True) as stream:
        next(stream)
    closed_at = model.wait_for_hangup(model.requests[0], TIMEOUT_S)
    assert left_at < closed_at < left_at + TIMEOUT_S
    assert model.requests[0].closed_early_at == closed_at
    assert not model.requests[0].finished


def test_client_that_leaves_within_the_last_write_has_not_finished(model: OpenAIStandIn) -> None:
    model.will(Answer(["x" * 20_000_000], one_write=True))
    with httpx.stream("POST", f"{model.base_url}/chat/completions", json=ASKED):
        pass
    model.wait_for_hangup(model.requests[0], TIMEOUT_S)
    assert not model.requests[0].finished


def test_client_that_stays_is_not_taken_for_gone(
    model: OpenAIStandIn, client: openai.OpenAI
) -> None:
    asked(client)
    with pytest.raises(TimeoutError, match="no hang-up within 0.05 s"):
        model.wait_for_hangup(model.requests[0], 0.05)
    with pytest.raises(TimeoutError, match="no request 1 within 0.05 s"):
        model.wait_for_request(1, 0.05)


def test_hang_before_headers_ends_with_the_client(model: OpenAIStandIn) -> None:
    model.will(Answer(hang_before_headers=True))
    with (
        openai.OpenAI(base_url=model.base_url, api_key="key", max_retries=0, timeout=0.3) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        asked(client)
    model.wait_for_hangup(model.wait_for_request(), TIMEOUT_S)


def test_stand_in_stops_at_once_while_clients_hang() -> None:
    def ask(model: OpenAIStandIn) -> bool:
        try:
            return on_the_wire(model)[1] is not None
        except httpx.TransportError:
            return True

    hanging = [
        Answer(hang_before_headers=True),
        Answer(["a"], end="hang"),
        Answer(["a"], first_delay_s=60),
    ]
    with ThreadPoolExecutor(3) as pool, httpx.Client() as idle:
        with OpenAIStandIn() as model:
            model.will(*hanging)
            idle.get(f"{model.base_url}/models")
            clients = [pool.submit(ask, model) for _ in hanging]
            requests = [model.wait_for_request(number) for number in range(4)]
            stopped_at = time.monotonic()
        assert time.monotonic() - stopped_at < 15
        assert [client.result(TIMEOUT_S) for client in clients] == [True] * 3
    assert [request.finished for request in requests] == [True, False, False, False]
    assert [request.closed_early_at for request in requests] == [None] * 4


def test_embeddings_are_the_same_in_both_encodings(
    model: OpenAIStandIn, client: openai.OpenAI
) -> None:
    texts = ["Grüße an alle", "", "alle an GRÜSSE"]
    as_floats = client.embeddings.create(model="any", input=texts, encoding_format="float")
    as_base64 = client.embeddings.create(model="any", input=texts)
    one = client.embeddings.create(model="any", input=texts[0])
    expected = [(index, embed(text)) for index, text in enumerate(texts)]
    assert [(entry.index, entry.embedding) for entry in as_floats.data] == expected
    assert [(entry.index, entry.embedding) for entry in as_base64.data] == expected
    assert [(entry.index, entry.embedding) for entry in one.data] == expected[:1]
    assert [request.body.get("encoding_format") for request in model.requests] == [
        "float",
        "base64",
        "base64",
    ]
    assert as_floats.usage.model_dump() == {"prompt_tokens": 6, "total_tokens": 6}


def test_embeddings_are_unit_vectors_and_near_for_shared_words() -> None:
    def nearness(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))

    assert len(embed("a")) == 64
    assert nearness("red green", "Green RED") == pytest.approx(1.0)
    assert nearness("red green blue", "red green") > nearness("red green blue", "red salt")
    assert nearness("", "") == pytest.approx(1.0)


def test_embeddings_refuse_what_is_not_text(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'input' must be text"):
        client.embeddings.create(model="any", input=[1, 2])


PAGES = [
    Page("One", "https://example.com/1", "Erste 𝔘", 0.8, "all of one"),
    Page("Two", "https://example.com/2", "Zweite", 0.5),
]


def searched(tavily: TavilyStandIn, query: str = "queues", **options: Any) -> dict[str, Any]:
    async def search() -> dict[str, Any]:
        async with AsyncTavilyClient("tvly-key", api_base_url=tavily.base_url) as client:
            found: dict[str, Any] = await client.search(query, **options)
            return found

    return asyncio.run(search())


def test_search_finds_the_pages(tavily: TavilyStandIn) -> None:
    tavily.will(SearchAnswer(PAGES))
    one = {"title": "One", "url": "https://example.com/1", "content": "Erste 𝔘", "score": 0.8}
    two = {"title": "Two", "url": "https://example.com/2", "content": "Zweite", "score": 0.5}
    assert searched(tavily, include_raw_content=True) == {
        "query": "queues",
        "follow_up_questions": None,
        "answer": None,
        "images": [],
        "results": [{**one, "raw_content": "all of one"}, {**two, "raw_content": None}],
        "response_time": 0.01,
        "request_id": "search-1",
    }
    assert searched(tavily, max_results=1)["results"] == [{**one, "raw_content": None}]
    assert [(request.path, request.body) for request in tavily.requests] == [
        ("/search", {"query": "queues", "include_raw_content": True}),
        ("/search", {"query": "queues", "max_results": 1}),
    ]
    keys = [request.headers["authorization"] for request in tavily.requests]
    assert keys == ["Bearer tvly-key"] * 2


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, errors.InvalidAPIKeyError, "Unauthorized: missing or invalid API key."),
        (429, errors.UsageLimitExceededError, "blocked due to excessive requests"),
        (432, errors.ForbiddenError, "plan's set usage limit"),
        (500, httpx.HTTPStatusError, "500 Internal Server Error"),
    ],
)
def test_search_status_gives_a_tavily_error(
    tavily: TavilyStandIn, status: int, error: type[Exception], message: str
) -> None:
    tavily.will(SearchAnswer(status=status), SearchAnswer([]))
    with pytest.raises(error, match=message):
        searched(tavily)
    assert searched(tavily)["results"] == []


def test_search_error_has_tavilys_shape(tavily: TavilyStandIn) -> None:
    tavily.will(SearchAnswer(status=432, error="Spent.", headers={"Retry-After": "7"}))
    refused = httpx.post(f"{tavily.base_url}/search", json={"query": "q"})
    spent = httpx.post(
        f"{tavily.base_url}/search", json={"query": "q"}, headers={"Authorization": "Bearer k"}
    )
    assert [(answer.status_code, answer.json()) for answer in (refused, spent)] == [
        (401, {"detail": {"error": "Unauthorized: missing or invalid API key."}}),
        (432, {"detail": {"error": "Spent."}}),
    ]
    assert spent.headers["retry-after"] == "7"


def test_search_that_hangs_times_out(tavily: TavilyStandIn) -> None:
    tavily.will(SearchAnswer(hang=True))
    with pytest.raises(errors.TimeoutError):
        searched(tavily, timeout=0.3)
    tavily.wait_for_hangup(tavily.wait_for_request(), TIMEOUT_S)


def test_search_that_is_not_json_is_a_value_error(tavily: TavilyStandIn) -> None:
    tavily.will(SearchAnswer(body="<html>captive portal</html>"))
    with pytest.raises(ValueError, match="Expecting value"):
        searched(tavily)


@pytest.mark.parametrize("make", [OpenAIStandIn, TavilyStandIn])
def test_stand_ins_run_side_by_side_and_free_their_port(
    make: Callable[[], OpenAIStandIn | TavilyStandIn],
) -> None:
    with make() as one, make() as other:
        one_url, other_url = one.base_url, other.base_url
        assert one_url != other_url
    with pytest.raises(httpx.ConnectError):
        httpx.get(one_url)
