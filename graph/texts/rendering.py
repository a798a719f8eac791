"""The language of prompts and templates: variables, and conditions on them; nothing else runs.

What is allowed is read off Jinja's syntax tree before anything is compiled. Then the text is
rendered in Jinja's sandbox, with no other names than the given ones.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from graph.errors import TemplateFailed
from graph.texts.keeping import Kept

# Characters of the longest text that may come out.
_MAX_RENDERED = 20_000_000
_LOOKED_FOR = r" Jinja was looking for the following tags: [^.]*\."
_ALLOWED = "only {{ variable }} and {% if variable %} with elif, else, not, and, or are"


@dataclass(frozen=True, slots=True)
class Examined:
    """What a text asks for: each variable with its first line, and what is not allowed.

    `problems` are pairs of line and sentence. Lines count from 1.
    """

    variables: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[tuple[int, str], ...] = ()


def render(text: str, /, *, path: str = "This text", first_line: int = 1, **values: str) -> str:
    """Fill a prompt or template; values are inserted, never evaluated.

    `path` and `first_line` say in errors where `text` comes from.

    Raises:
        TemplateFailed: a variable is unknown, or the text holds what the language has not.
    """
    examined = examine(text)
    problems = [*examined.problems, *unknown(examined, values)]
    if problems:
        line, problem = min(problems)
        raise TemplateFailed(f"{path} cannot be used. Line {line + first_line - 1}: {problem}")
    try:
        return _filled(text, values)
    except Exception as error:
        raise TemplateFailed(f"{path} cannot be used: {_reason(error)}") from error


def is_read(text: str) -> bool:
    """Whether `text` is in memory as it was read, so that to render it takes no milliseconds."""
    return examine.holds(text) and _compiled.holds(text)


@Kept
def examine(text: str) -> Examined:
    """The variables and the problems of `text`, of which nothing is run."""
    try:
        examined = _examined(_environment().parse(text))
        if not examined.problems:
            _compiled(text)
        return examined
    except TemplateSyntaxError as error:
        return Examined(problems=((error.lineno, _syntax(error.message or "wrong syntax")),))
    except Exception as error:  # noqa: BLE001 - numbers of 5000 digits, brackets 1000 deep
        return Examined(problems=((1, _reason(error)),))


def unknown(examined: Examined, known: Mapping[str, object]) -> list[tuple[int, str]]:
    """A problem for each variable that is not among `known`, which are named in the order given."""
    there_are = f"There are: {', '.join(known)}." if known else "There are none."
    return [
        (line, f"There is no variable {name!r}. {there_are}")
        for name, line in examined.variables.items()
        if name not in known
    ]


def _examined(tree: nodes.Template) -> Examined:
    variables: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    for node in _inner(tree):
        if isinstance(node, nodes.Name):
            variables.setdefault(node.name, _line(node))
        else:
            what = next(words for kind, words in _REFUSED.items() if isinstance(node, kind))
            problems.append((_line(node), f"{what} is not allowed; {_ALLOWED}."))
    return Examined(variables, tuple(problems))


def _inner(tree: nodes.Template) -> Iterator[nodes.Node]:
    """The variables, and each outermost node that is not of the language, in their order."""
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        match node:
            case nodes.Template(body=inner) | nodes.Output(nodes=inner):
                waiting += reversed(inner)
            case nodes.If(test=nodes.Expr() as test, body=body, elif_=others, else_=rest):
                yield from _condition(test)
                waiting += reversed([*body, *others, *rest])
            case nodes.TemplateData():
                pass
            case _:
                yield node


def _condition(test: nodes.Expr) -> Iterator[nodes.Node]:
    waiting: list[nodes.Expr] = [test]
    while waiting:
        match waiting.pop():
            case nodes.Not(node=inner):
                waiting.append(inner)
            case nodes.And(left=left, right=right) | nodes.Or(left=left, right=right):
                waiting += [right, left]
            case node:
                yield node


def _line(node: nodes.Node) -> int:
    # `{% autoescape %}` has its line at its child.
    return node.lineno or next((n.lineno for n in node.iter_child_nodes() if n.lineno), 1)


_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Call: "A call",
    nodes.Filter: "A filter",
    nodes.FilterBlock: "A filter",
    nodes.Test: "A test",
    nodes.Getattr: "An attribute",
    nodes.Getitem: "An attribute",
    nodes.And: "A condition between {{ and }}",
    nodes.Or: "A condition between {{ and }}",
    nodes.Not: "A condition between {{ and }}",
    nodes.CondExpr: "A condition between {{ and }}",
    nodes.BinExpr: "Arithmetic",
    nodes.UnaryExpr: "Arithmetic",
    nodes.Concat: "Arithmetic",
    nodes.Compare: "A comparison",
    nodes.Literal: "A constant",
    nodes.For: "A loop",
    nodes.Include: "Another file",
    nodes.Import: "Another file",
    nodes.FromImport: "Another file",
    nodes.Extends: "Another file",
    nodes.Macro: "A macro",
    nodes.CallBlock: "A macro",
    nodes.Assign: "An assignment",
    nodes.AssignBlock: "An assignment",
    nodes.With: "An assignment",
    nodes.Block: "A block",
    nodes.Node: "This",
}


def _filled(text: str, values: Mapping[str, str]) -> str:
    pieces, length = [], 0
    for piece in _compiled(text).generate(values):
        length += len(piece)
        if length > _MAX_RENDERED:
            raise TemplateError(f"it would become longer than {_MAX_RENDERED} characters")
        pieces.append(piece)
    return "".join(pieces)


@Kept
def _compiled(text: str) -> Template:
    return _environment().from_string(text)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for names in (environment.globals, environment.filters, environment.tests):
        names.clear()
    return environment


def _reason(error: Exception) -> str:
    if isinstance(error, TemplateError) and error.message:
        return _sentence(error.message)
    return "It is too deep or too long to be understood."


def _syntax(words: str) -> str:
    # The tags that it looks for may be some that the language has not.
    rule = f"{_ALLOWED} allowed"
    return f"{_sentence(re.sub(_LOOKED_FOR, '', words))} {_sentence(rule)}"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].rstrip('.')}."
