"""What Chroma writes to its files: vectors, and nothing that was in memory before."""

import asyncio
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from graph.knowledge.vectors import Vectors

CANARY = b"quokka-of-the-heap"


def leave_canaries_in_memory() -> None:
    """Fill and free much memory in as many threads as malloc has arenas."""
    barrier = threading.Barrier(8 * 3)

    def fill() -> None:
        barrier.wait()
        _held = [bytes(CANARY * count) for count in (100, 1000, 5000) for _ in range(50)]
        barrier.wait()

    threads = [threading.Thread(target=fill) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="it is malloc of glibc that is told")
def test_what_was_freed_does_not_reach_the_files(tmp_path: Path) -> None:
    with Vectors.open_embedded(tmp_path, "m") as vectors:
        for size in (8, 128, 256) * 2:
            leave_canaries_in_memory()
            ids = [str(uuid4()) for _ in range(5)]
            asyncio.run(vectors.add(str(uuid4()), str(uuid4()), ids, [[0.5] * size] * 5))
    files = list(tmp_path.rglob("data_level0.bin"))
    assert len(files) == 6
    assert [file.read_bytes().count(CANARY) for file in files] == [0] * 6
