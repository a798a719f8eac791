"""The service is killed while it takes documents in: each is wholly retrievable, or not at all.

Two rounds, or as many as KILLS says: `KILLS=20 .venv/bin/python -m pytest tests/test_crashes.py`.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from conftest import make_database
from psycopg.rows import dict_row
from standins.openai import OpenAIStandIn
from test_documents import search
from test_server import Process, environment

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("KILLS", "2"))
DOCUMENTS = 3
# Of each document every fifth chunk is looked for in two rounds, and every one in more.
STEP = 5 if ROUNDS == 2 else 1
# In twenty rounds there are dozens of nearly the same chunk.
HITS = 5 if ROUNDS == 2 else 50


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[tuple[Process, httpx.Client]]:
    """A service on the data of the one before; killed at the end of the block."""
    process = Process(folder, environment(**settings))
    try:
        process.wait_until_ready()
        with httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http:
            yield process, http
    finally:
        process.child.kill()
        process.child.wait()


def text(round_: int, number: int) -> bytes:
    """A document of some 60 chunks, each with words of its own."""
    parts = (
        f"# Gauge {round_}-{number}-{part}\n\n"
        + f"Gauge {round_}-{number}-{part} reads {part * 37 % 1009} cm at post {part}. " * 8
        for part in range(60)
    )
    return "\n\n".join(parts).encode()


@pytest.mark.timeout(60 + 80 * ROUNDS)
def test_after_each_kill_a_document_is_wholly_retrievable_or_not_at_all_and_in_the_end_indexed(
    tmp_path: Path, postgres_url: str, model: OpenAIStandIn
) -> None:
    chance = random.Random(int(os.environ.get("SEED", "1")))
    settings = {
        "DATABASE_URL": make_database(postgres_url),
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_MODEL": "stand-in",
    }
    project, hit = "", 0
    known: set[Any] = set()
    with psycopg.connect(settings["DATABASE_URL"], autocommit=True, row_factory=dict_row) as rows:
        for round_ in range(ROUNDS):
            with serving(tmp_path, settings) as (_, http):
                project = project or new_project(http)
                hit += look(rows, http, project, known)
                for number in range(DOCUMENTS):
                    # Every other round the names come again, as new versions.
                    files = {"file": (f"{round_ // 2}-{number}.md", text(round_, number))}
                    http.post(f"/documents/projects/{project}", files=files).raise_for_status()
                time.sleep(chance.uniform(0, 1.2))
        with serving(tmp_path, settings) as (_, http):
            began = time.monotonic()
            hit += look(rows, http, project, known)
            while "processing" in statuses(http, project):
                assert time.monotonic() - began < 30 + 10 * ROUNDS
                time.sleep(0.2)
            took = time.monotonic() - began
            look(rows, http, project, set())
            names = (ROUNDS + 1) // 2 * DOCUMENTS
            assert statuses(http, project) == ["indexed"] * names
            sys.stderr.write(
                f"\n{hit} documents were under way at {ROUNDS} kills; the rest took {took:.1f} s\n"
            )


def new_project(http: httpx.Client) -> str:
    return str(http.post("/projects", json={"name": "Gauges"}).json()["project"]["id"])


def statuses(http: httpx.Client, project: str) -> list[str]:
    answer = http.get(f"/documents/projects/{project}", params={"limit": 200})
    return [document["status"] for document in answer.json()["documents"]]


def look(
    rows: "psycopg.Connection[dict[str, Any]]", http: httpx.Client, project: str, known: set[Any]
) -> int:
    """Search for chunks of every document, and hold what is found against what is said of it.

    Those in `known` are passed over; found ones are added. Gives how many are under way.
    """
    before = documents(rows, project)
    chunks = [
        row
        for row in rows.execute(_CHUNKS, (project, STEP)).fetchall()
        if row["document_id"] not in known
    ]
    found = {}
    for chunk in chunks:
        hits = search(http, project, chunk["text"], HITS)
        found[chunk["id"]] = any(chunk["text"] in hit["content"] for hit in hits)
    after = documents(rows, project)
    for one in chunks:
        document = one["document_id"]
        if before.get(document) == after.get(document) == "indexed":
            assert found[one["id"]], f"a chunk of an indexed document is lost: {one['text'][:40]}"
        if before.get(document) == after.get(document) == "processing":
            assert not found[one["id"]], "a chunk is found of a document that is not indexed"
    known.update(one for one, status in before.items() if status == "indexed")
    return list(before.values()).count("processing")


_CHUNKS = """
select id, document_id, text from chunks where project_id = %s and position %% %s = 0
"""


def documents(rows: "psycopg.Connection[dict[str, Any]]", project: str) -> dict[Any, str]:
    found = rows.execute("select id, status from documents where project_id = %s", (project,))
    return {row["id"]: row["status"] for row in found.fetchall()}
