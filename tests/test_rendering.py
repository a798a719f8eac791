"""The language of prompts and templates: what it has, and what it refuses."""

import gc

import jinja2
import pytest

from graph.errors import TemplateFailed
from graph.texts.rendering import examine, render

VALUES = {"name": "Ann", "note": "", "text": "{{ 7*7 }} {% include 'x' %} <b>"}
ONLY = "only {{ variable }} and {% if variable %} with elif, else, not, and, or are."
THERE = "There are: name, note, text."
ALLOWED = f"O{ONLY[1:-1]} allowed."


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Hello {{ name }}.", "Hello Ann."),
        ("{{ text }}", "{{ 7*7 }} {% include 'x' %} <b>"),
        ("{% if note %}a{% elif name %}b{% else %}c{% endif %}", "b"),
        ("{% if not note and (name or note) %}yes{% endif %}", "yes"),
        ("a{# {{ nobody }} #}b", "ab"),
        ("{% raw %}{{ nobody }}{% endraw %}", "{{ nobody }}"),
        ('{"a": {"b": "{{ name }}"}}', '{"a": {"b": "Ann"}}'),
        ("a }} %} b\r\nc", "a }} %} b\nc"),
    ],
)
def test_variables_and_conditions_are_all_there_is(text: str, rendered: str) -> None:
    assert render(text, **VALUES) == rendered


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n{{ nobody }}", 2, f"There is no variable 'nobody'. {THERE}"),
        ("{% if note %}\n\n{{ no }}{% endif %}", 3, f"There is no variable 'no'. {THERE}"),
        ("{{ self }}", 1, f"There is no variable 'self'. {THERE}"),
        ("{{ __class__ }}", 1, f"There is no variable '__class__'. {THERE}"),
        ("{{ 7*7 }}", 1, f"Arithmetic is not allowed; {ONLY}"),
        ("{{ 'a' * 10**9 }}", 1, f"Arithmetic is not allowed; {ONLY}"),
        ("{{ name ~ note }}", 1, f"Arithmetic is not allowed; {ONLY}"),
        ("{{ range(10**9) }}", 1, f"A call is not allowed; {ONLY}"),
        ("{{ name() }}", 1, f"A call is not allowed; {ONLY}"),
        ("a\n{% for x in range(10**9) %}x{% endfor %}", 2, f"A loop is not allowed; {ONLY}"),
        ("{{ name.__class__ }}", 1, f"An attribute is not allowed; {ONLY}"),
        ("{{ name[0] }}", 1, f"An attribute is not allowed; {ONLY}"),
        ("{{ name|upper }}", 1, f"A filter is not allowed; {ONLY}"),
        ("{% filter upper %}a{% endfilter %}", 1, f"A filter is not allowed; {ONLY}"),
        ("{% if name is defined %}{% endif %}", 1, f"A test is not allowed; {ONLY}"),
        ("{% if name == note %}{% endif %}", 1, f"A comparison is not allowed; {ONLY}"),
        ("{% if 'a' %}{% endif %}", 1, f"A constant is not allowed; {ONLY}"),
        ("{{ true }}", 1, f"A constant is not allowed; {ONLY}"),
        ("{{ name or note }}", 1, f"A condition between {{{{ and }}}} is not allowed; {ONLY}"),
        ("{{ name if note }}", 1, f"A condition between {{{{ and }}}} is not allowed; {ONLY}"),
        ("\n\n{% include 'x' %}", 3, f"Another file is not allowed; {ONLY}"),
        ("{% import 'x' as x %}", 1, f"Another file is not allowed; {ONLY}"),
        ("{% from 'x' import y %}", 1, f"Another file is not allowed; {ONLY}"),
        ("{% extends 'x' %}", 1, f"Another file is not allowed; {ONLY}"),
        ("{% macro a() %}{% endmacro %}", 1, f"A macro is not allowed; {ONLY}"),
        ("{% set a = name %}", 1, f"An assignment is not allowed; {ONLY}"),
        ("{% with %}{% endwith %}", 1, f"An assignment is not allowed; {ONLY}"),
        ("{% block a %}{% endblock %}", 1, f"A block is not allowed; {ONLY}"),
        ("\n{% autoescape true %}{% endautoescape %}", 2, f"This is not allowed; {ONLY}"),
        ("{% if name %}\n{% include 'x' %}{% endif %}", 2, f"Another file is not allowed; {ONLY}"),
        ("a\n{% shout %}", 2, f"Encountered unknown tag 'shout'. {ALLOWED}"),
        (
            "{{ name",
            1,
            f"Unexpected end of template, expected 'end of print statement'. {ALLOWED}",
        ),
        (
            "{% for x in name %}",
            1,
            "Unexpected end of template. The innermost block that needs to be closed is 'for'. "
            f"{ALLOWED}",
        ),
        ("{# never closed", 1, f"Missing end of comment tag. {ALLOWED}"),
        ("{{ " + "9" * 5000 + " }}", 1, "It is too deep or too long to be understood."),
        ("{{ " + "(" * 5000 + " }}", 1, "It is too deep or too long to be understood."),
        (
            "{% if name " + "and name " * 5000 + "%}{% endif %}",
            1,
            "It is too deep or too long to be understood.",
        ),
        (
            "{% if name %}" * 150 + "{% endif %}" * 150,
            1,
            "It is too deep or too long to be understood.",
        ),
    ],
)
def test_everything_else_is_refused_before_anything_runs(
    text: str, line: int, message: str
) -> None:
    with pytest.raises(TemplateFailed) as caught:
        render(text, path="prompts/x.md", first_line=10, **VALUES)
    told = str(caught.value)
    assert told == f"prompts/x.md cannot be used. Line {line + 9}: {message}"


def test_a_short_text_cannot_grow_without_end() -> None:
    with pytest.raises(TemplateFailed, match="longer than 20000000 characters"):
        render("{{ text }}" * 300, text="x" * 100_000)


def test_what_a_text_asks_for_is_known_with_its_lines() -> None:
    examined = examine("{{ b }}\n{% if a or not c %}{{ b }}{% endif %}\n{{ a|upper }}\n{{ 1 }}")
    assert dict(examined.variables) == {"b": 1, "a": 2, "c": 2}
    assert [line for line, _ in examined.problems] == [3, 4]


def test_what_is_kept_of_texts_has_a_bound_in_memory_however_long_they_are() -> None:
    def kept(mark: str, characters: int) -> int:
        for number in range(40):
            render(f"{mark} {number} " + "{{ name }}" * (characters // 10), **VALUES)
        return _compiled_with(mark)

    # Two million characters, 500 more counted for each text.
    assert (kept("short", 1_000), kept("long", 90_000)) == (40, 22)


def _compiled_with(mark: str) -> int:
    """How many of Jinja's templates there are in memory that begin with `mark`."""
    gc.collect()
    templates = [thing for thing in gc.get_objects() if isinstance(thing, jinja2.Template)]
    constants = [template.root_render_func.__code__.co_consts for template in templates]
    return sum(any(str(one).startswith(mark) for one in some) for some in constants)
