"""Tables of what was measured, for the terminal and for `docs/performance.md`."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Column, Table

from bench.streaming.candidates import Kind
from bench.streaming.measures import MOST, Samples, p99

NONE = "–"


@dataclass(frozen=True)
class Row:
    """What was found of one candidate."""

    kind: Kind
    name: str
    samples: Samples

    def of(
        self, name: str, figure: Callable[[Sequence[float]], float] = statistics.median
    ) -> float | None:
        """The median, or another figure, of the samples; null if there are none."""
        values = self.samples.get(name)
        return figure(values) if values else None


@dataclass(frozen=True)
class Grid:
    """A table as texts."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        first, *others = self.columns
        table = Table(Column(first, no_wrap=True), *others)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        ruler = ["---", *("---:" for _ in self.columns[1:])]
        lines = (self.columns, ruler, *self.rows)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures(rows: Sequence[Row]) -> Grid:
    """All figures of all."""
    columns = (
        "", "burst, tokens/s", "first token alone, ms", "32 at once: p50, ms", "p99, ms",
        "CPU ms per 1 000 tokens: steady", "with turns", "CPU ms per turn",
        "kB per open stream", "streams of 50 tokens/s held",
    )  # fmt: skip
    return Grid(columns, [_figures(row) for row in rows])


def _figures(row: Row) -> list[str]:
    is_model = row.kind == "model"
    held = row.of("held")
    return [
        row.name,
        told(row.of("burst"), 0),
        told(row.of("alone"), 1),
        told(row.of("together"), 0),
        told(row.of("together", p99), 0),
        NONE if is_model else told(row.of("steady"), 0),
        NONE if is_model else told(row.of("all in"), 0),
        NONE if is_model else told(row.of("turn"), 1),
        NONE if is_model else told(row.of("memory"), 0),
        f"{MOST} or more" if held == MOST else told(held, 0),
    ]


def told(value: float | None, digits: int) -> str:
    """A number, thousands apart; a dash if it is not known."""
    return NONE if value is None else f"{value:,.{digits}f}".replace(",", " ")


def comparison(rows: Sequence[Row]) -> Grid:
    """Ours beside the best peer, the model and the raw relay."""
    ours = [row for row in rows if row.kind == "ours"]
    peers = [row for row in rows if row.kind == "peer"]
    model = [row for row in rows if row.kind == "model"]
    relay = [row for row in rows if row.name == "floor: raw relay"]
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("burst, times the best peer's", lambda row: times(row, peers, "burst", max)),
        ("streams held, times the best peer's", lambda row: times(row, peers, "held", max)),
        ("first token alone, ms over the model's own", lambda row: over(row, model)),
        ("first token of 32, p50: ms, and the best peer's", lambda row: both(row, peers, p50)),
        ("first token of 32, p99: ms, and the best peer's", lambda row: both(row, peers, p99)),
        ("CPU per token, steady, times the relay's", lambda row: times(row, relay, "steady", min)),
        ("CPU per token, with turns, times the relay's",
         lambda row: times(row, relay, "all in", min)),
        ("CPU per turn, times the relay's", lambda row: times(row, relay, "turn", min)),
    ]  # fmt: skip
    columns = ["", *(row.name for row in ours)]
    return Grid(columns, [[name, *(line(row) for row in ours)] for name, line in lines])


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def times(
    row: Row, others: Sequence[Row], name: str, best: Callable[[Sequence[float]], float]
) -> str:
    """How many times the best figure of the others."""
    own = row.of(name)
    theirs = [value for other in others if (value := other.of(name))]
    return NONE if own is None or not theirs else f"{own / best(theirs):.1f} ×"


def over(row: Row, model: Sequence[Row]) -> str:
    """Milliseconds over the model's own first token."""
    own = row.of("alone")
    theirs = model[0].of("alone") if model else None
    return NONE if own is None or theirs is None else f"{own - theirs:.1f}"


def both(row: Row, others: Sequence[Row], figure: Callable[[Sequence[float]], float]) -> str:
    """The own figure, and the least of the others."""
    theirs = [value for other in others if (value := other.of("together", figure))]
    return f"{told(row.of('together', figure), 0)}; {told(min(theirs) if theirs else None, 0)}"
