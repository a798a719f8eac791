"""Processes of a bench: each with its children on one core, and what they take."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

START_S = 90


def two_cores() -> tuple[int, int] | None:
    """The cores of the servers and of all else; null where they cannot be parted."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this process to `core`, if one is given, and for good the children that it gets."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(
    command: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
    core: int | None,
    address: str,
) -> Iterator[tuple[psutil.Process, re.Match[str]]]:
    """A process on `core`, and the match of `address` in what it prints; ended with the block.

    `folder` is its own, made for it: what works there is ended too.
    """
    said = folder / "out"
    with said.open("wb") as out, on_core(core):
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield psutil.Process(child.pid), _found(child, said, address)
    finally:
        tree = _tree(psutil.Process(child.pid)) if child.poll() is None else []
        child.terminate()
        try:
            child.wait(20)
        finally:
            for one in tree:
                if one.is_running():
                    one.kill()
            child.wait()
            psutil.wait_procs(tree, timeout=5)


def at_rest(server: psutil.Process) -> None:
    """Wait until the server and its children have nothing more to do, two minutes at most."""
    for _ in range(120):
        before = cpu_s(server)
        time.sleep(1)
        if cpu_s(server) - before < 0.05:
            return
    raise SystemExit("The server does not come to rest.")


def _found(child: subprocess.Popen[bytes], said: Path, address: str) -> re.Match[str]:
    for _ in range(START_S * 10):
        if found := re.search(address, said.read_text(errors="replace")):
            return found
        if child.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"{child.args!r} did not start:\n{said.read_text(errors='replace')[-2000:]}")


def cpu_s(process: psutil.Process) -> float:
    """Seconds of a CPU that a server and all that it started have used so far."""
    total = 0.0
    for one in _tree(process):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Children that have ended count for their parent.
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(process: psutil.Process) -> int:
    """Bytes that a server and all that it started hold; of what they share, each its part."""
    total = 0
    for one in _tree(process):
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def _tree(process: psutil.Process) -> list[psutil.Process]:
    """A server and all that it started: its children, and what works in its folder.

    Postgres becomes nobody's child when it starts.
    """
    found = [process, *process.children(recursive=True)]
    folder = Path(process.cwd())
    return [
        *found,
        *(one for one in psutil.process_iter() if one not in found and _is_in(one, folder)),
    ]


def _is_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
