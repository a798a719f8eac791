"""A template in its two parts: front matter as harmless YAML, with its lines, and the body."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from yaml.scanner import ScannerError

_LONGEST = 20_000
_DEEPEST = 3
_PARTS = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


class BrokenFrontMatter(ValueError):
    """The front matter cannot be read; `line` counts from 1 in the whole text."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Parts:
    """A template in parts.

    `lines` has the line of each key, as `("good",)`, and of each entry of a list, as `("good", 0)`;
    `body_line` is the line on which the body begins.
    """

    keys: dict[str, object]
    lines: dict[tuple[str | int, ...], int]
    body: str
    body_line: int

    def line(self, *key: str | int) -> int:
        """The line of a key or of an entry of its list; of the front matter where it is missing."""
        return self.lines.get(key) or self.lines.get(key[:1], 1)


def split(text: str) -> Parts:
    """`text` in its parts.

    Raises:
        BrokenFrontMatter: there is none, or it is more than plain keys, values and lists.
    """
    text = text.replace("\r\n", "\n")
    found = _PARTS.match(text)
    if found is None:
        raise BrokenFrontMatter(_MISSING, 1)
    source = found[1]
    if len(source) > _LONGEST:
        raise BrokenFrontMatter(f"The front matter has more than {_LONGEST} characters.", 1)
    try:
        keys, lines = _read(source)
    except yaml.MarkedYAMLError as error:
        marks = [error.problem_mark, error.context_mark]
        if isinstance(error, ScannerError):
            # A quote that is never closed is found at the very end; its context is its beginning.
            marks.reverse()
        line = next((mark.line + 2 for mark in marks if mark), 1)
        raise BrokenFrontMatter(f"This is no YAML: {error.problem}. {_HOW}", line) from error
    except yaml.YAMLError as error:
        raise BrokenFrontMatter("This is no YAML: it holds a control character.", 1) from error
    return Parts(keys, lines, text[found.end() :], text.count("\n", 0, found.end()) + 1)


def _read(source: str) -> tuple[dict[str, object], dict[tuple[str | int, ...], int]]:
    _refuse_harm(source)
    loader = yaml.SafeLoader(source)
    keys: dict[str, object] = {}
    lines: dict[tuple[str | int, ...], int] = {}
    for key, node in _entries(loader.get_single_node()):
        line = _line(key)
        if key.value in keys:
            raise BrokenFrontMatter(f"The key {_shown(key)} is there twice.", line)
        try:
            keys[key.value] = loader.construct_object(node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception as error:  # PyYAML lets more out, as for `!!bool x`
            raise BrokenFrontMatter(f"The value of {_shown(key)} cannot be read.", line) from error
        lines[key.value,] = line
        if isinstance(node, yaml.SequenceNode):
            lines.update({(key.value, at): _line(one) for at, one in enumerate(node.value)})
    return keys, lines


def _entries(root: yaml.Node | None) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise BrokenFrontMatter("The front matter must be keys with values.", _line(root))
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise BrokenFrontMatter("A key of the front matter must be a word.", _line(key))
        yield key, value


def _refuse_harm(source: str) -> None:
    """Refuse what makes much out of little, before anything is built."""
    depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            sentence = "Anchors and aliases (& and *) cannot be used here."
            raise BrokenFrontMatter(sentence, _line(event))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise BrokenFrontMatter("The front matter is nested too deeply.", _line(event))


def _shown(key: yaml.ScalarNode) -> str:
    return repr(str(key.value)[:60])


def _line(part: yaml.Node | yaml.Event) -> int:
    return part.start_mark.line + 2 if part.start_mark else 1


_MISSING = "The front matter is missing: keys between two lines of ---, the first of them line 1."
_HOW = (
    "Indent with spaces, close quotes and brackets, and quote what holds a colon or begins with "
    "a sign."
)
