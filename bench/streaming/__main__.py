"""Measure our service beside its peers and print the tables."""

import argparse
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.streaming import candidates
from bench.streaming.candidates import Candidate
from bench.streaming.measures import MEASURES, NotWhole
from bench.streaming.processes import pin, two_cores

STARTS = {"ours": candidates.ours, "raw": candidates.raw}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.streaming", description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="rounds")
    parser.add_argument("--only", default=",".join(STARTS), help="servers, with commas")
    parser.add_argument("--measure", default=",".join(MEASURES), help="measurements, with commas")
    options = parser.parse_args()
    console = Console()
    cores = two_cores()
    if cores is None:
        console.print("Servers and clients share their cores: this machine cannot part them.")
    theirs, own = cores or (None, None)
    pin(own)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        asked = stack.enter_context(candidates.model(new(scratch, "model"), own))
        port = asked[0].port
        for name in options.only.split(","):
            asked += stack.enter_context(STARTS[name](new(scratch, name), theirs, port))
        for each in asked:
            console.print(f"{each.name}: process {each.process.pid}, port {each.port}")
        for _ in range(options.n):
            for name in options.measure.split(","):
                for each in asked:
                    measure(name, each, found[each.name], console)
    show(found, console)


def new(scratch: Path, name: str) -> Path:
    """A folder of its own for a server."""
    folder = scratch / name
    folder.mkdir()
    return folder


def measure(
    name: str, candidate: Candidate, found: dict[str, list[float]], console: Console
) -> None:
    """Measure once, and keep what was found."""
    try:
        samples = uvloop.run(MEASURES[name](candidate))
    except NotWhole as error:
        console.print(f"{candidate.name}, {name}: {error}")
        return
    for each, values in samples.items():
        found[each] += values


def show(found: dict[str, dict[str, list[float]]], console: Console) -> None:
    """Print medians."""
    table = Table("", "burst, tokens/s", "first alone, ms", "first of 32: p50", "p99")
    for name, samples in found.items():
        burst, alone, together = (samples[each] for each in ("burst", "alone", "together"))
        table.add_row(
            name,
            f"{statistics.median(burst):,.0f}" if burst else "",
            f"{statistics.median(alone):.1f}" if alone else "",
            f"{statistics.median(together):.0f}" if together else "",
            f"{sorted(together)[int(len(together) * 0.99)]:.0f}" if together else "",
        )
    console.print(table)


if __name__ == "__main__":
    main()
