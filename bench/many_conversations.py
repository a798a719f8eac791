"""What a caller who has 10 000 conversations waits for, beside one who has ten.

Two services, each with a database of its own, are asked in turn. The conversations are rows as the
service leaves them, of six messages each, in one project. `make bench` runs it.
"""

import argparse
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator

import psycopg

from bench.answers import GENERAL
from bench.growth import Asked, Measured, asked, show_ratios

FEW = 10
TURNS = 3
AROUND = 30
WARM_UP = 5
TITLE = "What must be known of the gauge"


def main() -> None:
    """Fill both databases, ask both services in turn, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000, help="conversations of the one with many")
    many = parser.parse_args().n
    found: dict[int, list[Measured]] = defaultdict(list)
    with asked() as (fresh, few_rows), asked() as (old, many_rows):
        stored = {
            FEW: (fresh, filled(few_rows, fresh.project, FEW)),
            many: (old, filled(many_rows, old.project, many)),
        }
        for _ in range(WARM_UP + AROUND):
            for count, (service, conversations) in stored.items():
                found[count].append(measured(service, random.choice(conversations)))
    show_ratios({f"{count:,} conversations": each[WARM_UP:] for count, each in found.items()})


def measured(service: Asked, conversation: str) -> Measured:
    """Milliseconds of each request of somebody who comes back, and asks."""
    project = service.project
    _, fresh = service.turn(None)
    _, on = service.turn(conversation)
    return {
        "new one: first token": fresh.first_token,
        "new one: done": fresh.done,
        "old one: first token": on.first_token,
        "old one: done": on.done,
        "GET conversations": took(service, f"/chat/projects/{project}/conversations?limit={FEW}"),
        "GET recent": took(service, f"/chat/recent?limit={FEW}"),
        "GET conversation": took(service, f"/chat/conversations/{conversation}"),
        "GET projects": took(service, "/projects"),
    }


def took(service: Asked, path: str) -> float:
    """Milliseconds until the answer is there."""
    began = time.perf_counter()
    service.http.get(path).raise_for_status()
    return (time.perf_counter() - began) * 1000


def filled(database: str, project: str, count: int) -> list[str]:
    """Store `count` conversations as if they had been asked in the last days; gives their ids."""
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute("select owner_id from projects where id = %s", (project,))
        (owner,) = row.fetchone() or (None,)
        conversations = [uuid.uuid4() for _ in range(count)]
        for copied, rows in (
            (_CONVERSATIONS, ((each, project, owner, TITLE) for each in conversations)),
            (_MESSAGES, messages(conversations)),
        ):
            with connection.cursor().copy(copied) as copy:
                for values in rows:
                    copy.write_row(values)
        connection.execute(_SPREAD)
        connection.execute(_RUNS, (owner,))
        connection.execute("vacuum analyze")
    return [str(each) for each in conversations]


def messages(conversations: list[uuid.UUID]) -> Iterator[tuple[object, ...]]:
    """Three questions and their answers in each, in the order in which they were asked."""
    for _ in range(TURNS):
        for conversation in conversations:
            said = " ".join(random.choices(GENERAL, k=15))
            yield uuid.uuid4(), conversation, "user", random.choice(GENERAL), "complete", "UNSORTED"
            yield uuid.uuid4(), conversation, "assistant", said, "complete", "UNSORTED"


_CONVERSATIONS = "copy conversations (id, project_id, owner_id, title) from stdin"
_MESSAGES = """
copy messages (id, conversation_id, role, content, status, doc_type) from stdin
"""
_SPREAD = """
update conversations set updated_at = now() - random() * interval '90 days'
"""
_RUNS = """
insert into runs (id, conversation_id, owner_id, status, seq, finish_reason, ended_at, question_id,
    api, is_followable)
select a.id, a.conversation_id, %s, 'done', 300, 'stop', now() - interval '1 day', q.id, 'chat',
    false
from (
    select *, lag(id) over (partition by conversation_id order by position) as question
    from messages
) a join messages q on q.id = a.question where a.role = 'assistant'
"""


if __name__ == "__main__":
    main()
