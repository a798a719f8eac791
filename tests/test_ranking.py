"""Both searches joined, passages grown by their neighbours, copies folded."""

import asyncio
from time import thread_time
from uuid import uuid4

import psycopg
import pytest
from conftest import make_database

from graph.knowledge.chunking import Chunk
from graph.knowledge.evidence import speaks_of
from graph.knowledge.places import Place
from graph.knowledge.postings import Matches, postings_of, search, store
from graph.knowledge.ranking import PASSAGE_SIZE, Hit, StoredChunk, fuse, passages
from graph.knowledge.static_model import StaticModel
from graph.knowledge.terms import terms
from graph.postgres import open_pool

PROJECT, OTHER = str(uuid4()), str(uuid4())
PUMPS, VALVES, DRAFT = (str(uuid4()) for _ in range(3))
TABLES = """
    create table documents (id uuid, project_id uuid, status text, chunk_count int);
    create table postings (project_id uuid, term text, document_id uuid, chunks int,
        positions bytea, weights bytea);
"""


@pytest.fixture(scope="module")
def database(postgres_url: str) -> str:
    """Three documents, of which one is not indexed."""
    url = make_database(postgres_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        for document, status in ((PUMPS, "indexed"), (VALVES, "indexed"), (DRAFT, "processing")):
            connection.execute(
                "insert into documents values (%s, %s, %s, 3)", (document, PROJECT, status)
            )

    async def fill() -> None:
        async with open_pool(url) as pool, pool.connection() as connection:
            for document, texts in {
                PUMPS: ["the pump", "the pump and the pump", "a valve"],
                VALVES: ["valve and valve", "pump valve", "something else " * 60 + "rare"],
                DRAFT: ["rare pump valve"],
            }.items():
                chunks = [Chunk(at, None, "", text) for at, text in enumerate(texts)]
                await store(connection, PROJECT, document, postings_of(document, chunks))

    asyncio.run(fill())
    return url


def matched(url: str, question: str, project: str = PROJECT) -> Matches:
    async def ask() -> Matches:
        async with open_pool(url) as pool, pool.connection() as connection:
            return await search(connection, project, dict.fromkeys(terms(question), 1.0), 10)

    return asyncio.run(ask())


def test_a_chunk_with_more_of_the_terms_and_rarer_ones_comes_first(database: str) -> None:
    found = matched(database, "pump and valve")
    assert found.best[0] == (VALVES, 1)
    assert set(found.best[1:3]) == {(PUMPS, 1), (VALVES, 0)}
    assert set(found.best[3:]) == {(PUMPS, 0), (PUMPS, 2)}
    assert matched(database, "rare pump").best[0] == (VALVES, 2)


def test_scores_are_from_0_to_1_and_0_for_what_does_not_match(database: str) -> None:
    found = matched(database, "pump")
    assert 0 < found.score((PUMPS, 0)) < found.score((PUMPS, 1)) < 1
    assert found.score((PUMPS, 2)) == found.score((str(uuid4()), 0)) == 0
    assert matched(database, "pump unheard").score((PUMPS, 0)) < found.score((PUMPS, 0))


def test_terms_are_looked_up_in_the_project_s_indexed_documents_only(database: str) -> None:
    assert matched(database, "pump", OTHER).best == ()
    assert matched(database, "unheard").best == ()
    assert DRAFT not in {document for document, _ in matched(database, "rare pump valve").best}


def test_a_document_stored_again_has_its_new_terms_only(database: str) -> None:
    async def again(text: str) -> tuple[Place, ...]:
        async with open_pool(database) as pool, pool.connection() as connection:
            await store(connection, PROJECT, PUMPS, postings_of(PUMPS, [Chunk(0, None, "", text)]))
            found = await search(connection, PROJECT, {"pump": 1.0}, 10)
            await connection.execute("delete from postings where document_id = %s", (PUMPS,))
            return found.best

    assert asyncio.run(again("nothing of it")) == ((VALVES, 1),)


def chunk(position: int, text: str, page: int | None = 1, document: str = PUMPS) -> StoredChunk:
    return StoredChunk(f"{document}{position}", (document, position), "a.pdf", page, "", text)


def stored(*chunks: StoredChunk) -> dict[Place, StoredChunk]:
    return {one.place: one for one in chunks}


def test_a_search_that_finds_nothing_leaves_the_other_its_order() -> None:
    hits = [Hit((PUMPS, 0), 0.9), Hit((PUMPS, 1), 0.8), Hit((PUMPS, 2), 0.7)]
    assert [place for place, _ in fuse(Matches(), hits)] == [hit.place for hit in hits]
    assert fuse(Matches(), []) == []


def test_a_quick_vector_counts_less_than_a_better_one_that_is_as_near() -> None:
    hits = [Hit((PUMPS, 0), 0.9, is_quick=True), Hit((PUMPS, 1), 0.9), Hit((PUMPS, 2), 0.5)]
    ranked = dict(fuse(Matches(), hits))
    assert ranked[(PUMPS, 1)] > ranked[(PUMPS, 0)] > ranked[(PUMPS, 2)] == 0


def test_a_passage_is_a_chunk_with_its_neighbours_of_the_same_page() -> None:
    chunks = stored(chunk(0, "Page one.", 1), *(chunk(n, f"Line {n}.", 2) for n in range(1, 4)))
    [passage] = passages([((PUMPS, 2), 0.5)], chunks, 5)
    assert passage.text == "Line 1.\n\nLine 2.\n\nLine 3."
    assert passage.context == "Page one.\n\nLine 1.\n\nLine 2.\n\nLine 3."
    assert (passage.chunk.page_number, passage.score) == (2, 0.5)


def test_a_passage_is_no_longer_than_it_may_be() -> None:
    chunks = stored(*(chunk(n, f"{n}" * 800) for n in range(5)))
    [passage] = passages([((PUMPS, 2), 0.5)], chunks, 1)
    assert passage.text == "2" * 800 + "\n\n" + "3" * 800
    assert len(passage.text) <= PASSAGE_SIZE + 2


def test_what_a_better_passage_shows_already_is_not_shown_again() -> None:
    chunks = stored(*(chunk(n, f"Line {n}.") for n in range(3)), chunk(9, "Far away."))
    ranked = [((PUMPS, 1), 0.9), ((PUMPS, 0), 0.8), ((PUMPS, 9), 0.7), ((PUMPS, 5), 0.6)]
    shown = passages(ranked, chunks, 5)
    assert [passage.chunk.place for passage in shown] == [(PUMPS, 1), (PUMPS, 9)]


def test_copies_in_other_documents_are_folded() -> None:
    text = "The valve opens at three bar and closes at two. " * 5
    chunks = stored(
        chunk(0, text),
        chunk(0, text.replace("three", "Three", 1), None, VALVES),
        chunk(0, "Another text altogether, of another thing.", None, DRAFT),
    )
    ranked = [((PUMPS, 0), 0.9), ((VALVES, 0), 0.8), ((DRAFT, 0), 0.7)]
    shown = passages(ranked, chunks, 5)
    assert [passage.chunk.place[0] for passage in shown] == [PUMPS, DRAFT]


def test_rows_that_differ_in_a_figure_are_no_copies() -> None:
    text = "Gauge {0} reads {0} cm at the post, and its crew looks at it every morning. " * 9
    chunks = stored(chunk(0, text.format(370)), chunk(0, text.format(371), document=VALVES))
    shown = passages([((PUMPS, 0), 0.9), ((VALVES, 0), 0.8)], chunks, 5)
    assert [passage.chunk.place[0] for passage in shown] == [PUMPS, VALVES]


@pytest.mark.parametrize("unit", ["_", "x", "1", "1.", "x1"])
def test_to_look_for_copies_takes_time_in_proportion(unit: str) -> None:
    text = (unit * 1700)[:1700]
    chunks = stored(*(chunk(at, text, page=at) for at in range(0, 400, 2)))
    started = thread_time()
    shown = passages([((PUMPS, at), 0.5) for at in range(0, 400, 2)], chunks, 5)
    assert thread_time() - started < 2
    assert [passage.chunk.place for passage in shown] == [(PUMPS, 0)]


@pytest.fixture(scope="module")
def model() -> StaticModel:
    return StaticModel()


HANDBOOK = [
    "Run the driver and upsd on the machine that is wired to the UPS; NUT 2.8.0 needs ups.conf.",
    "The battery is charged before the load is powered again. Docker images are in /srv.",
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which daemons should the machine run?", True),
        ("What is in ups.conf?", True),
        ("How do the UPSes get power?", True),
        ("How do I export readings to Prometheus or Grafana?", False),
        ("How do I monitor it with Kubernetes?", False),
        ("Is two-factor authentication supported by the login page?", False),
        ("Who won the football championship of Brazil?", False),
        ("What is this about?", True),
        ("Sum it up for me", True),
        ("Hi Peter, which daemons should the machine run? Thanks, John", True),
        ("As a PM in Brazil: for how long is the battery charged? Give it as YAML.", True),
        ("URGENT what is in ups.conf", True),
        ("IMPORTANT: is the load powered again? Answer in French.", True),
        ("Answer in JSON: tell me where Docker images are.", True),
        ("Hi Peter, how do I monitor it with Kubernetes?", False),
        ("Thanks! Since NUT 2.8.0, how do I export readings to Prometheus?", False),
        ("Who won? Tell me about the football championship of Brazil", True),
        ("Kubernetes, Prometheus, Grafana", False),
        ("How do I run Kubernetes? " + " ".join(f"term{n}" for n in range(60)), True),
        ("", True),
        ("Kubernetes " + " ".join(f"term{n}" for n in range(60)), True),
    ],
)
def test_the_floor_is_the_weighty_words_that_no_passage_covers(
    model: StaticModel, question: str, expected: bool
) -> None:
    assert speaks_of(question, HANDBOOK, model) is expected


def test_without_passages_only_a_question_of_no_weight_is_covered(model: StaticModel) -> None:
    assert speaks_of("What is grep-excuses?", [], model) is False


@pytest.mark.parametrize("unit", ["-", "a-", "- ", "."])
def test_to_look_for_a_questions_words_takes_time_in_proportion(
    unit: str, model: StaticModel
) -> None:
    question = (unit * 50_000)[:50_000] + " How do I monitor Kubernetes?"
    started = thread_time()
    assert speaks_of(question, HANDBOOK, model) is False
    assert thread_time() - started < 2
