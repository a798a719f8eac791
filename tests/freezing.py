"""Processes that get no time, as on a machine that hangs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]


@contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """None of `processes` runs until the end of the block."""
    for one in processes:
        one.suspend()
    try:
        yield
    finally:
        for one in processes:
            one.resume()


def family(parent: psutil.Process) -> list[psutil.Process]:
    """A process and all that it has begun, itself first."""
    return [parent, *parent.children(recursive=True)]
