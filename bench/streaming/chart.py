"""The chart of `docs/performance.md`: bars, as an SVG without scripts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.streaming.measures import p99
from bench.streaming.tables import Row, told

_NAMES, _BARS, _LINE, _BAR, _TITLE = 240, 380, 22, 14, 34
_WIDTH = _NAMES + _BARS + 100
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.ours { fill: #0969da; } .peer { fill: #8c959f; } .floor { fill: #d0d7de; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ours { fill: #4493f8; } .peer { fill: #7d8590; } .floor { fill: #484f58; }
}
"""


@dataclass(frozen=True)
class Panel:
    """Bars of one figure of all candidates."""

    title: str
    value: Callable[[Row], float | None]
    digits: int = 0


PANELS = (
    Panel("Burst of 500 tokens to 32 clients: tokens a second (more is better)",
          lambda row: row.of("burst")),
    Panel("Streams of 50 tokens a second held on one core (more is better)",
          lambda row: row.of("held")),
    Panel("First token of 32 at once, p99: milliseconds (less is better)",
          lambda row: row.of("together", p99)),
    Panel("CPU milliseconds per 1 000 tokens at 32 streams (less is better)",
          lambda row: row.of("steady")),
)  # fmt: skip


def chart(rows: Sequence[Row]) -> str:
    """The figures of all but the model, as bars."""
    rows = [row for row in rows if row.kind != "model"]
    parts, top = [], 10
    for panel in PANELS:
        drawn, height = _panel(panel, rows, top)
        parts.append(drawn)
        top += height
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    label = 'role="img" aria-label="Our service beside its peers and two floors"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _panel(panel: Panel, rows: Sequence[Row], top: int) -> tuple[str, int]:
    known = [(row, value) for row in rows if (value := panel.value(row)) is not None]
    most = max((value for _, value in known), default=1) or 1
    lines = [_text(10, top + 18, panel.title, "title")]
    for at, (row, value) in enumerate(known):
        y = top + _TITLE + at * _LINE
        width = max(_BARS * value / most, 1)
        lines += [
            _text(10, y + _BAR - 2, row.name),
            f'<rect class="{row.kind}" x="{_NAMES}" y="{y}" rx="2" '
            f'width="{width:.0f}" height="{_BAR}"/>',
            _text(_NAMES + int(width) + 6, y + _BAR - 2, told(value, panel.digits)),
        ]
    return "\n".join(lines), _TITLE + len(known) * _LINE + 14


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{marked}>{escape(text)}</text>'
