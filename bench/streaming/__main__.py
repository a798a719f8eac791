"""Measure our service beside its peers and the floors, and print the tables."""

import argparse
import contextlib
import logging
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop
from rich.console import Console

from bench.streaming.candidates import Candidate
from bench.streaming.chart import chart
from bench.streaming.measures import Bench, NotWhole, Samples
from bench.streaming.ours import ours
from bench.streaming.processes import on_core, two_cores
from bench.streaming.servers import langgraph, langserve, model, parts, raw, sse
from bench.streaming.tables import Grid, Row, comparison, figures

SERVERS = {
    "ours": ours,
    "langserve": langserve,
    "langgraph": langgraph,
    "raw": raw,
    "parts": parts,
    "sse": sse,
}
ONCE = ("memory", "held")
SLOW = ("memory", "held", "turn")
BEGIN, END = "<!-- bench.streaming -->", "<!-- end of bench.streaming -->"

console = Console()
if not console.is_terminal:
    console = Console(width=140)


def main() -> None:
    """Measure, print, and write if that is asked for."""
    # So that the servers are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = parsed()
    with servers(options.only) as candidates:
        measure = Bench(candidates[0].port)
        found: dict[str, Samples] = {each.name: defaultdict(list) for each in candidates}
        for candidate in candidates:
            sample(measure, "warm up", candidate, found)
        for at in range(options.n):
            for name in options.measure:
                for candidate in turned(candidates, at):
                    if at == 0 or name not in ONCE:
                        sample(measure, name, candidate, found)
    rows = [Row(each.kind, each.name, found[each.name]) for each in candidates]
    grids = figures(rows), comparison(rows)
    for grid in grids:
        console.print(grid.rich())
    if options.write:
        write(options.write, grids, rows)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bench.streaming", description=__doc__)
    parser.add_argument("-n", type=int, default=2, help="rounds")
    for option, known in (("--only", SERVERS), ("--measure", Bench(0).measures)):
        every = ",".join(known)
        parser.add_argument(option, type=some_of(known), default=every, help=f"of {every}")
    parser.add_argument("--quick", action="store_true", help="one round, without what takes long")
    parser.add_argument("--write", type=Path, help="the folder of performance.md and .svg")
    parser.add_argument("-v", action="store_true", help="tell of each try at streams held")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("bench").setLevel(logging.DEBUG if options.v else logging.WARNING)
    if options.quick:
        options.n = 1
        options.measure = [name for name in options.measure if name not in SLOW]
    return options


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them, each of them `known`."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            told = f"{', '.join(unknown)}: choose of {', '.join(known)}"
            raise argparse.ArgumentTypeError(told)
        return found

    return names


@contextmanager
def servers(names: Sequence[str]) -> Iterator[list[Candidate]]:
    """Start the model and all servers; the model comes first."""
    cores = two_cores()
    if cores is None:
        console.print("This machine cannot part the cores: servers and clients share them.")
    theirs, own = cores or (None, None)
    with ExitStack() as stack:
        stack.enter_context(on_core(own))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        asked = [stack.enter_context(model(new(scratch, "model"), own))]
        for name in names:
            server = SERVERS[name](new(scratch, name), theirs, asked[0].port)
            asked += stack.enter_context(server)
        for each in asked:
            console.print(f"{each.name}: process {each.process.pid}, port {each.port}")
        yield asked


def new(scratch: Path, name: str) -> Path:
    """A folder of its own for a server."""
    folder = scratch / name
    folder.mkdir()
    return folder


def turned(candidates: Sequence[Candidate], at: int) -> list[Candidate]:
    """Another one first in each round."""
    at %= len(candidates)
    return [*candidates[at:], *candidates[:at]]


def sample(bench: Bench, name: str, candidate: Candidate, found: dict[str, Samples]) -> None:
    """Measure once, and keep what was found."""
    measure = bench.warm_up if name == "warm up" else bench.measures[name]
    try:
        samples = uvloop.run(measure(candidate))
    except NotWhole as error:
        console.print(f"{candidate.name}, {name}: an answer is not whole: {error}")
        return
    for each, values in samples.items():
        found[candidate.name][each] += values
        console.print(f"{each}: {statistics.median(values):,.1f} {candidate.name}")


def write(folder: Path, grids: Sequence[Grid], rows: Sequence[Row]) -> None:
    """Put the tables between the marks of performance.md, and the chart beside it."""
    page = folder / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    tables = "\n\n".join(grid.markdown() for grid in grids)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
    (folder / "performance.svg").write_text(chart(rows))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
