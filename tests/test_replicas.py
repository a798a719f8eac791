"""Services of their own on one Postgres, started at once while it is empty.

Six once; `ROUNDS=5 .venv/bin/python -m pytest tests/test_replicas.py` does it five times.
"""

import os
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from conftest import make_database
from standins.openai import OpenAIStandIn
from test_server import Process, environment, wait_until

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ROUNDS", "1"))
REPLICAS = 6


@pytest.mark.timeout(30 + 90 * ROUNDS)
def test_replicas_that_start_at_once_on_an_empty_database_all_come_up(
    tmp_path: Path, postgres_url: str, model: OpenAIStandIn
) -> None:
    up = [
        status
        for round_ in range(ROUNDS)
        for status in started(tmp_path / str(round_), make_database(postgres_url), model)
    ]
    assert up == [200] * REPLICAS * ROUNDS


def started(folder: Path, database: str, model: OpenAIStandIn) -> list[int]:
    """What replicas answer that start at once; 0 for one that ended instead."""
    settings = {
        "DATABASE_URL": database,
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_MODEL": "stand-in",
    }
    with ExitStack() as stack:
        replicas = []
        for number in range(REPLICAS):
            own = folder / str(number)
            own.mkdir(parents=True)
            replicas.append(Process(own, environment(**settings)))
            stack.callback(replicas[-1].child.wait)
            stack.callback(replicas[-1].child.kill)
        wait_until(lambda: all(ready(one) or one.child.poll() for one in replicas), 80)
        # Each has vectors of its own.
        assert any("with other vectors" in one.err for one in replicas)
        return [httpx.get(one.url).status_code if ready(one) else 0 for one in replicas]


def ready(process: Process) -> bool:
    return "curl" in process.out
