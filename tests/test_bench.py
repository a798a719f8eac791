"""What bench/streaming measures with: its model, its client, and a relay between the two."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil  # type: ignore[import-untyped]
import pytest
from openai import OpenAI

from bench.streaming.__main__ import BEGIN, END, write
from bench.streaming.candidates import Candidate
from bench.streaming.client import ask_all
from bench.streaming.measures import Bench, NotWhole
from bench.streaming.model import NAME, WINDOW, order, prose
from bench.streaming.processes import cpu_s, process
from bench.streaming.servers import model, raw
from bench.streaming.tables import Grid, Row

TOKENS = 20
STARTS_ONE_APART = """
import os, time
if not (first := os.fork()):
    if not os.fork():
        print("apart", os.getpid(), flush=True)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pass
    os._exit(0)
os.waitpid(first, 0)
time.sleep(20)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Candidate]]:
    """The model, and a relay before it."""
    new = tmp_path_factory.mktemp
    with model(new("model"), None) as asked, raw(new("raw"), None, asked.port) as relays:
        yield [asked, *relays]


@pytest.mark.parametrize("pace", [0, 200])
def test_the_model_speaks_the_protocol(served: list[Candidate], pace: int) -> None:
    with OpenAI(base_url=f"http://127.0.0.1:{served[0].port}/v1", api_key="none") as client:
        [listed] = client.models.list().data
        stream = client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": f"Go on. {order(8, TOKENS, pace)}"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert listed.model_dump()["context_length"] == WINDOW
    *said, last, counted = chunks
    texts = [chunk.choices[0].delta.content for chunk in said]
    assert texts == ["", *prose()[:TOKENS]]
    assert last.choices[0].finish_reason == "stop"
    assert counted.usage is not None
    assert counted.usage.completion_tokens == TOKENS


@pytest.mark.parametrize("pace", [0, 200])
@pytest.mark.parametrize("at", [0, 1], ids=["model", "relay"])
def test_the_client_counts_all_tokens(served: list[Candidate], at: int, pace: int) -> None:
    questions = [served[at].protocol.ask(TOKENS, pace) for _ in range(2)]
    heard = asyncio.run(ask_all(served[at].port, questions, ramp_s=0.05))
    assert [(each.tokens, each.is_whole, each.wrong) for each in heard] == [(TOKENS, True, "")] * 2
    assert all(each.first_s > 0 for each in heard)


def test_an_answer_that_is_late_is_not_whole(served: list[Candidate]) -> None:
    questions = [served[1].protocol.ask(1000, 50)]
    [heard] = asyncio.run(ask_all(served[1].port, questions, limit_s=0.2))
    assert (heard.is_whole, heard.wrong) == (False, "late")


def test_what_is_measured_of_a_relay(served: list[Candidate]) -> None:
    bench = Bench(served[0].port, tokens=TOKENS, alone=1, open_streams=2, turns=8)
    measured = {
        name: asyncio.run(bench.measures[name](served[1]))
        for name in ("alone", "together", "burst", "turn")
    }
    counts = {name: len(values) for each in measured.values() for name, values in each.items()}
    assert counts == {"alone": 1, "together": 32, "burst": 1, "turn": 1}
    assert asyncio.run(Bench(served[0].port, held_s=0.2).holds(served[1], 2))


def test_a_refusal_is_no_answer(served: list[Candidate]) -> None:
    nowhere = Candidate("peer", "", served[1].process, served[1].port, served[0].protocol)
    with pytest.raises(NotWhole, match="status 404"):
        asyncio.run(Bench(0).burst(nowhere))


def test_what_a_server_started_counts_and_ends_with_it_though_it_is_nobodys_child(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", STARTS_ONE_APART]
    with process(command, tmp_path, {}, None, r"apart (\d+)\n") as (server, found):
        apart = psutil.Process(int(found[1]))
        until = time.monotonic() + 10
        while apart.cpu_times().user < 0.5 and time.monotonic() < until:
            time.sleep(0.05)
        assert cpu_s(server) > 0.5
    assert not apart.is_running() or apart.status() == psutil.STATUS_ZOMBIE


def test_tables_and_chart_are_written_and_all_else_stays(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"Before\n{BEGIN}\nold\n{END}\nafter\n")
    row = Row("ours", "ours & more", {"burst": [1000.0, 3000.0, 2000.0]})
    write(tmp_path, [Grid(["", "burst"], [[row.name, "2"]])], [row])
    table = "|  | burst |\n| --- | ---: |\n| ours & more | 2 |"
    assert page.read_text() == f"Before\n{BEGIN}\n\n{table}\n\n{END}\nafter\n"
    texts = [each.text for each in ElementTree.parse(tmp_path / "performance.svg").iter()]
    assert ("ours & more" in texts, "2 000" in texts) == (True, True)
