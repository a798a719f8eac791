"""Text as it comes, with the starts and ends of what holds it, into blocks."""

import re
from collections.abc import Iterable

from graph.knowledge.blocks import Block

_SPACE = re.compile(r"\s+")
_DEEPEST_INDENT = 8
_TERM_END = ": "


class Flow:
    """Collects words; each end makes a block of them. No call refuses an order of calls."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._words: list[str] = []
        self._level = 0
        self._code = 0
        # The next number of each open list, or None where items have no numbers.
        self._lists: list[int | None] = []
        self._lines: list[str] = []
        self._marker = ""
        self._after_term = False

    def write(self, text: str) -> None:
        """Add text; outside of code a run of white space counts as one space."""
        if self._code:
            self._words.append(text)
            return
        text = _SPACE.sub(" ", text)
        self._after_term = self._after_term and not text.strip()
        self._words.append(text)

    def break_line(self) -> None:
        """Begin a new line in a paragraph or in code; elsewhere it is a space."""
        self._words.append("\n")

    def end_paragraph(self) -> None:
        """End the paragraph, the item or the line of code."""
        if self._after_term or not self._words:
            return
        if self._code:
            self._words.append("" if self._words[-1] == "\n" else "\n")
            return
        lines = [line.strip() for line in "".join(self._words).split("\n")]
        self._words.clear()
        lines = [_SPACE.sub(" ", line) for line in lines if line]
        if lines:
            self._add_paragraph(lines)

    def end_block(self) -> None:
        """End the paragraph, and the list so far: what comes next is of another kind."""
        self._leave_term()
        self.end_paragraph()
        if self._lines:
            self._blocks.append(Block("text", "\n".join(self._lines)))
            self._lines = []

    def add(self, blocks: Iterable[Block]) -> None:
        """Add blocks that are made already."""
        self.end_block()
        self._blocks += blocks

    def open_heading(self, level: int) -> None:
        """A heading of level 1 to 6 begins."""
        self.end_block()
        self._level = level

    def close_heading(self) -> None:
        """The heading ends."""
        self.end_paragraph()
        self._level = 0

    def open_code(self) -> None:
        """Text begins whose white space counts."""
        if not self._code:
            self.end_block()
        self._code += 1

    def close_code(self) -> None:
        """The code ends."""
        self._code = max(self._code - 1, 0)
        if not self._code:
            text = "".join(self._words).strip("\n").rstrip()
            self._words.clear()
            if text:
                self._blocks.append(Block("code", text))

    def open_list(self, first: int | None) -> None:
        """A list begins; `first` is the number of its first item, None where it has none."""
        if self._lists:
            self._leave_term()
            self.end_paragraph()
        else:
            self.end_block()
        self._lists.append(first)

    def open_item(self) -> None:
        """An item of a list begins."""
        self._leave_term()
        self.end_paragraph()
        number = self._lists[-1] if self._lists else None
        self._marker = "- " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1] = number + 1

    def end_term(self) -> None:
        """The term ends whose definition comes next, on the same line."""
        if not self._code and "".join(self._words).strip():
            self._words.append(_TERM_END)
            self._after_term = True

    def close_list(self) -> None:
        """The list ends."""
        self._leave_term()
        self.end_paragraph()
        if self._lists:
            self._lists.pop()
        if not self._lists:
            self.end_block()

    def finish(self) -> list[Block]:
        """End all that is open, and give the blocks."""
        if self._code:
            self._code = 1
            self.close_code()
        self.end_block()
        return self._blocks

    def _leave_term(self) -> None:
        """Forget that a definition was to come: there is none on this line."""
        if self._after_term and _TERM_END in self._words:
            self._words.remove(_TERM_END)
        self._after_term = False

    def _add_paragraph(self, lines: list[str]) -> None:
        if self._level:
            self._blocks.append(Block("heading", " ".join(lines), self._level))
        elif self._lists:
            indent = "  " * min(len(self._lists) - 1, _DEEPEST_INDENT)
            self._lines.append(indent + (self._marker or "  ") + " ".join(lines))
            self._marker = ""
        else:
            self._blocks.append(Block("text", "\n".join(lines)))
