"""A child process for work on data that may be made to do harm: bounded, alone, and killable."""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import BinaryIO

_PIECE = 256_000
_LONGEST_LINE = 4_000_000
_NICENESS = 10
_MOST_FILES = 64
# Python writes its compiled modules when it imports them for the first time; nothing else is.
_LARGEST_FILE = 4_000_000
# Nothing of the service's environment, in which there are secrets. openpyxl imports NumPy, whose
# threads would take the child's memory.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """What a child may take: seconds, bytes of memory and bytes of output."""

    seconds: float
    memory: int
    output: int


class LimitReached(Exception):
    """The child took too much time, memory or output, or died: `str(error)` says which."""


class OutOfTime(LimitReached):
    """The child worked too long."""


class OutOfMemory(LimitReached):
    """The child wanted more memory than it may have."""


class OutOfRoom(LimitReached):
    """The child gave more output than it may."""


class Crashed(LimitReached):
    """The child died by a signal, or without a reason."""


@asynccontextmanager
async def confined(
    module: str, argument: str, data: bytes, limits: Limits
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Run `python -m module` on `data`, and give the lines that it writes.

    The module takes both with `taken()`. At the end of the block, or when it is cancelled, the
    child is dead. Each child is new, so that nothing is left over from other data. Raises
    LimitReached.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_ENVIRONMENT,
        limit=_LONGEST_LINE,
    )
    try:
        async with asyncio.timeout(limits.seconds):
            await _feed(process, argument, data, limits)
            yield _lines(process, limits)
    except TimeoutError:
        raise OutOfTime(f"{limits.seconds} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _feed(
    process: asyncio.subprocess.Process, argument: str, data: bytes, limits: Limits
) -> None:
    assert process.stdin
    head = {"argument": argument, "length": len(data), "limits": asdict(limits)}
    # A child that died has its reason in how it ended.
    with suppress(ConnectionError):
        process.stdin.write(json.dumps(head).encode() + b"\n")
        for start in range(0, len(data), _PIECE):
            process.stdin.write(data[start : start + _PIECE])
            await process.stdin.drain()
        process.stdin.close()


async def _lines(process: asyncio.subprocess.Process, limits: Limits) -> AsyncIterator[bytes]:
    assert process.stdout
    room = limits.output
    async for line in process.stdout:
        room -= len(line)
        if room < 0:
            raise OutOfRoom(f"{limits.output} bytes")
        yield line
    code = await process.wait()
    if code == _NO_MEMORY or code == -signal.SIGKILL:
        raise OutOfMemory(f"{limits.memory} bytes")
    if code == -signal.SIGXCPU:
        raise OutOfTime(f"{limits.seconds} s")
    if code:
        raise Crashed(f"exit status {code}")


# --- in the child

_NO_MEMORY = 86


def taken() -> tuple[str, bytes, BinaryIO]:
    """Give, in the child, the argument, the data, and where output goes; sets the limits.

    What anything else prints is lost. Ends the process when the parent is gone.
    """
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    head = json.loads(sys.stdin.buffer.readline() or b"null")
    if head is None:
        sys.exit(1)
    _confine(Limits(**head["limits"]))
    data = sys.stdin.buffer.read(head["length"])
    if len(data) < head["length"]:
        sys.exit(1)
    return head["argument"], data, output


def end_without_memory() -> None:
    """End the child at once; the parent raises OutOfMemory."""
    os._exit(_NO_MEMORY)


def _confine(limits: Limits) -> None:
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(limits.seconds) + 1),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_DATA, limits.memory),
    ):
        # Some systems, like macOS, refuse some of them.
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    os.nice(_NICENESS)
