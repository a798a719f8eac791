"""Templates and prompts are checked like code: each seeded fault gives exactly its findings."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from graph.context import Context
from graph.errors import TemplateFailed
from graph.pinning import pin
from graph.settings import ROOT
from graph.texts.checking import LONGEST_TEXT, check_folders, check_texts, new_errors
from graph.texts.findings import TextFinding, error, warning
from graph.texts.texts import Texts
from graph.texts.wording import Wording

QUESTION = "prompts/question.md"
BRIEF = "templates/context/BRIEF/template.md"
BRIEF_EXAMPLE = "templates/context/BRIEF/example.md"
PLAN = "templates/planning/PLAN/template.md"
STORIES = "templates/planning/STORIES/template.md"
STORIES_EXAMPLE = "templates/planning/STORIES/example.json"

SOUND = {
    "prompts/answer.md": "Help {{ user_name }}.\n{% if instructions %}\n{{ instructions }}\n"
    "{% endif %}\n",
    "prompts/draft.md": "Write the {{ doc_type }}.\n",
    QUESTION: "{% if material %}\n{{ material }}\n{% endif %}\n{{ question }}\n",
    BRIEF: """\
---
title: Brief
phase: context
order: 10
output_path: docs/BRIEF.md
depends_on: []
required_headings:
  - Goal
  - Limits
good:
  - "The goal can be measured."
---
# {{ project_name }}: Brief

## Goal

<!-- One sentence. -->

[TODO: goal]

## Limits

<!-- Money and time. -->

[TODO: limits]
""",
    BRIEF_EXAMPLE: "# Shelfway: Brief\n\n## Goal\n\nFewer vans.\n\n## Limits\n\nEUR 900.\n",
    PLAN: """\
---
title: Plan
phase: planning
order: 20
output_path: docs/PLAN.md
depends_on: [BRIEF]
required_headings: [Steps]
good: ["Each step has a date."]
---
# Plan of {{ date }}

## Steps

<!-- Weeks. -->
""",
    "templates/planning/PLAN/example.md": "# Plan\n\n## Steps\n\nFirst the totes.\n",
    STORIES: """\
---
title: Stories
phase: planning
order: 30
output_path: docs/STORIES.json
depends_on: [BRIEF, PLAN]
required_headings: [project, stories]
good: ["Each story names who wants it."]
---
<!-- One object. -->

```json
{
  "project": "{{ project_name }}",
  "stories": ["[TODO: story]"]
}
```
""",
    STORIES_EXAMPLE: '{"project": "Shelfway", "stories": ["Pick before the run."]}\n',
}


UNSAFE = (
    "The output path must be relative, of letters, digits and ._-/ without '..', and end in .md "
    "or .json."
)


class Fault(NamedTuple):
    """Texts that replace the sound ones, null for none, and all that is then found."""

    name: str
    texts: Mapping[str, str | None]
    found: tuple[TextFinding, ...]


def fault(name: str, texts: Mapping[str, str | None], *found: TextFinding) -> Fault:
    """A fault with what is found of it."""
    return Fault(name, texts, found)


ALLOWED = "Only {{ variable }} and {% if variable %} with elif, else, not, and, or are allowed."


def refused(what: str) -> str:
    """What is said of anything that the language has not."""
    return (
        f"{what} is not allowed; only {{{{ variable }}}} and {{% if variable %}} with elif, else, "
        "not, and, or are."
    )


def brief(old: str, new: str) -> dict[str, str | None]:
    """The brief's template with one thing changed."""
    assert SOUND[BRIEF].count(old) == 1, old
    return {BRIEF: SOUND[BRIEF].replace(old, new)}


def plan(old: str, new: str) -> dict[str, str | None]:
    """The plan's template with one thing changed."""
    assert SOUND[PLAN].count(old) == 1, old
    return {PLAN: SOUND[PLAN].replace(old, new)}


def stories(old: str, new: str) -> dict[str, str | None]:
    """The stories' template with one thing changed."""
    assert SOUND[STORIES].count(old) == 1, old
    return {STORIES: SOUND[STORIES].replace(old, new)}


NO_FRONT_MATTER = (
    "The front matter is missing: keys between two lines of ---, the first of them line 1."
)
HOW = (
    "Indent with spaces, close quotes and brackets, and quote what holds a colon or begins with "
    "a sign."
)
FAULTS = [
    fault("nothing", {}),
    # front matter
    fault(
        "no front matter",
        {BRIEF: "# Brief\n"},
        error(BRIEF, 1, "front_matter", NO_FRONT_MATTER),
    ),
    fault(
        "front matter without end",
        brief("---\n# {{", "# {{"),
        error(BRIEF, 1, "front_matter", NO_FRONT_MATTER),
    ),
    fault(
        "broken YAML",
        brief("title: Brief", "title: Brief: short"),
        error(
            BRIEF, 2, "front_matter", f"This is no YAML: mapping values are not allowed here. {HOW}"
        ),
    ),
    fault(
        "broken list",
        brief("depends_on: []", "depends_on: ["),
        error(
            BRIEF,
            8,
            "front_matter",
            f"This is no YAML: expected the node content, but found '-'. {HOW}",
        ),
    ),
    fault(
        "a quote that is never closed",
        brief('"The goal can be measured."', '"The goal can be measured.'),
        error(BRIEF, 11, "front_matter", f"This is no YAML: found unexpected end of stream. {HOW}"),
    ),
    fault(
        "a key without a colon",
        brief("order: 10", "order 10"),
        error(BRIEF, 4, "front_matter", f"This is no YAML: could not find expected ':'. {HOW}"),
    ),
    fault(
        "a key is missing",
        brief("order: 10\n", ""),
        error(BRIEF, 1, "missing_key", "The key 'order' is missing from the front matter."),
    ),
    fault(
        "an unknown key",
        brief("title: Brief", "title: Brief\nordre: 1"),
        error(BRIEF, 3, "unknown_key", "There is no key 'ordre'; the nearest is 'order'."),
    ),
    fault(
        "a key twice",
        brief("title: Brief", "title: Brief\ntitle: Short"),
        error(BRIEF, 3, "front_matter", "The key 'title' is there twice."),
    ),
    fault(
        "a number in words",
        brief("order: 10", "order: ten"),
        error(BRIEF, 4, "wrong_value", "The value of 'order' must be a whole number."),
    ),
    *(
        fault(
            f"a number of very many digits: {number[:4]}",
            brief("order: 10", f"order: {number}"),
            error(
                BRIEF, 4, "wrong_value", "The value of 'order' must be a number of up to 6 digits."
            ),
        )
        # YAML has other bases, in which such a number is read at once; Python does not write it.
        for number in ("0x" + "f" * 9000, "-0x" + "f" * 9000, "1" + ":1" * 9000, "1000000")
    ),
    fault(
        "a list that is a word",
        brief("depends_on: []", "depends_on: PLAN"),
        error(
            BRIEF,
            6,
            "wrong_value",
            "The value of 'depends_on' must be a list, as in [ONE, TWO], or [] for none.",
        ),
    ),
    fault(
        "an entry with a colon",
        brief('"The goal can be measured."', "The goal: a figure"),
        error(BRIEF, 11, "wrong_value", "Entry 1 of 'good' must be text; put it in quotes."),
    ),
    fault(
        "a blank title",
        brief("title: Brief", "title: ' '"),
        error(BRIEF, 2, "wrong_value", "The title must not be blank."),
    ),
    fault(
        "a Python object",
        brief("title: Brief", "title: !!python/object:os.system ls"),
        error(
            BRIEF,
            2,
            "front_matter",
            "This is no YAML: could not determine a constructor for the tag "
            f"'tag:yaml.org,2002:python/object:os.system'. {HOW}",
        ),
    ),
    fault(
        "a billion laughs",
        brief("good:", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\ngood:"),
        error(BRIEF, 10, "front_matter", "Anchors and aliases (& and *) cannot be used here."),
    ),
    fault(
        "a thousand brackets",
        brief("depends_on: []", "depends_on: " + 1000 * "["),
        error(BRIEF, 6, "front_matter", "The front matter is nested too deeply."),
    ),
    fault(
        "front matter too long",
        brief("title: Brief", f"title: {20_000 * 'x'}"),
        error(BRIEF, 1, "front_matter", "The front matter has more than 20000 characters."),
    ),
    fault(
        "a control character",
        brief("[TODO: goal]", "[TODO:\0 goal]"),
        error(BRIEF, 19, "control_character", "There is a control character, U+0000. Take it out."),
    ),
    fault(
        "a text too long",
        brief("[TODO: goal]", LONGEST_TEXT * "x"),
        error(BRIEF, 1, "too_long", "The text has 100281 characters; it may have 100000."),
    ),
    # what the front matter says
    fault(
        "another phase than its folder",
        brief("phase: context", "phase: planning"),
        error(BRIEF, 3, "wrong_phase", "The phase is 'planning', but the folder is 'context'."),
    ),
    fault(
        "an absolute output path",
        brief("docs/BRIEF.md", "/etc/BRIEF.md"),
        error(BRIEF, 5, "unsafe_output_path", UNSAFE),
    ),
    fault(
        "an output path that climbs",
        brief("docs/BRIEF.md", "docs/../../BRIEF.md"),
        error(BRIEF, 5, "unsafe_output_path", UNSAFE),
    ),
    fault(
        "an output path with backslash",
        brief("docs/BRIEF.md", r"docs\BRIEF.md"),
        error(BRIEF, 5, "unsafe_output_path", UNSAFE),
    ),
    fault(
        "an output path of another kind",
        brief("docs/BRIEF.md", "docs/BRIEF.sh"),
        error(BRIEF, 5, "unsafe_output_path", UNSAFE),
    ),
    fault(
        "two types, one output path",
        plan("docs/PLAN.md", "docs/brief.md"),
        error(
            PLAN,
            5,
            "duplicate_output_path",
            "The output path docs/brief.md is that of BRIEF already.",
        ),
    ),
    fault(
        "the same order",
        plan("order: 20", "order: 10"),
        warning(PLAN, 4, "duplicate_order", "The order 10 is that of BRIEF already."),
    ),
    fault(
        "an order before what it needs",
        plan("order: 20", "order: 5"),
        warning(
            PLAN,
            4,
            "order_before_dependency",
            "The order 5 is before that of BRIEF, 10, on which PLAN depends.",
        ),
    ),
    fault(
        "depends on nothing there is",
        plan("[BRIEF]", "[BREIF]"),
        error(
            PLAN,
            6,
            "unknown_dependency",
            "There is no document type 'BREIF'. The nearest is BRIEF.",
        ),
    ),
    fault(
        "depends on itself",
        plan("[BRIEF]", "[BRIEF, PLAN]"),
        error(PLAN, 6, "self_dependency", "PLAN depends on itself. Take it out of depends_on."),
    ),
    fault(
        "depends on one type twice",
        plan("[BRIEF]", "[BRIEF, BRIEF]"),
        warning(PLAN, 6, "duplicate_dependency", "BRIEF is in depends_on twice."),
    ),
    fault(
        "a circle of two",
        brief("depends_on: []", "depends_on: [PLAN]"),
        warning(
            BRIEF,
            4,
            "order_before_dependency",
            "The order 10 is before that of PLAN, 20, on which BRIEF depends.",
        ),
        error(
            BRIEF,
            6,
            "dependency_cycle",
            "The types depend on each other in a circle: BRIEF -> PLAN -> BRIEF. Break it "
            "somewhere.",
        ),
    ),
    fault(
        "a circle of three",
        brief("depends_on: []", "depends_on: [STORIES]"),
        warning(
            BRIEF,
            4,
            "order_before_dependency",
            "The order 10 is before that of STORIES, 30, on which BRIEF depends.",
        ),
        error(
            BRIEF,
            6,
            "dependency_cycle",
            "The types depend on each other in a circle: BRIEF -> STORIES -> PLAN -> BRIEF. Break "
            "it somewhere.",
        ),
    ),
    fault(
        "nothing is good",
        brief('  - "The goal can be measured."\n', "  []\n"),
        warning(BRIEF, 10, "nothing_good", "Say in 'good' what a good document of this type does."),
    ),
    # names
    fault(
        "a type in two phases",
        {"templates/planning/BRIEF/template.md": SOUND[BRIEF]},
        error(
            "templates/planning/BRIEF/template.md",
            1,
            "duplicate_type",
            "The type BRIEF is there already: templates/context/BRIEF/template.md.",
        ),
        warning(
            "templates/planning/BRIEF/template.md",
            1,
            "no_example",
            "The type has no example. Write example.md beside the template.",
        ),
        error(
            "templates/planning/BRIEF/template.md",
            3,
            "wrong_phase",
            "The phase is 'context', but the folder is 'planning'.",
        ),
    ),
    fault(
        "a type in small letters",
        {"templates/context/brief/template.md": SOUND[BRIEF]},
        error(
            "templates/context/brief/template.md",
            1,
            "bad_type_name",
            "The type 'brief' must be capital letters, digits and _, as in TECH_STACK.",
        ),
    ),
    fault(
        "a phase in capitals",
        {"templates/Context/TERMS/template.md": SOUND[BRIEF]},
        error(
            "templates/Context/TERMS/template.md",
            1,
            "bad_phase_name",
            "The phase 'Context' must be small letters, digits and -, as in architecture.",
        ),
    ),
    fault(
        "a type named UNSORTED",
        {"templates/context/UNSORTED/template.md": SOUND[BRIEF]},
        error(
            "templates/context/UNSORTED/template.md",
            1,
            "bad_type_name",
            "UNSORTED means no type. Name the folder else.",
        ),
    ),
    # headings
    fault(
        "no required heading",
        plan("[Steps]", "[]"),
        error(PLAN, 7, "no_required_headings", "Name at least one heading in required_headings."),
        warning(PLAN, 12, "extra_heading", "The heading 'Steps' is not in required_headings."),
    ),
    fault(
        "a blank required heading",
        plan("[Steps]", "[Steps, ' ']"),
        error(PLAN, 7, "wrong_value", "A required heading must not be blank."),
    ),
    fault(
        "a required heading twice",
        plan("[Steps]", "[Steps, steps]"),
        error(PLAN, 7, "duplicate_heading", "The heading 'steps' is in required_headings twice."),
    ),
    fault(
        "a heading is not in the body",
        plan("## Steps", "## Parts"),
        warning(PLAN, 12, "extra_heading", "The heading 'Parts' is not in required_headings."),
        error(
            PLAN,
            14,
            "missing_heading",
            "The heading '## Steps' is missing at the end; add it with its section.",
        ),
    ),
    fault(
        "a heading has another level",
        plan("## Steps", "### Steps"),
        error(
            PLAN,
            12,
            "missing_heading",
            "The heading '## Steps' is missing; '### Steps' stands here instead.",
        ),
    ),
    fault(
        "a heading stands in a comment",
        plan("## Steps", "{#\n## Steps\n#}"),
        error(
            PLAN,
            16,
            "missing_heading",
            "The heading '## Steps' is missing at the end; add it with its section.",
        ),
    ),
    fault(
        "headings out of order",
        brief("  - Goal\n  - Limits\n", "  - Limits\n  - Goal\n"),
        warning(
            BRIEF_EXAMPLE,
            3,
            "heading_out_of_order",
            "The heading 'Goal' is out of order: it comes after 'Limits'.",
        ),
        error(
            BRIEF,
            15,
            "heading_out_of_order",
            "The heading 'Goal' is out of order: it comes after 'Limits'.",
        ),
    ),
    fault(
        "a heading that nobody requires",
        plan("## Steps", "## Why\n\n## Steps"),
        warning(PLAN, 12, "extra_heading", "The heading 'Why' is not in required_headings."),
    ),
    fault(
        "a heading without guidance",
        plan("<!-- Weeks. -->", "Weeks."),
        warning(
            PLAN, 12, "no_guidance", "Say in a comment, <!-- … -->, what belongs under 'Steps'."
        ),
    ),
    fault(
        "a code block that never ends",
        plan("<!-- Weeks. -->", "<!-- Weeks. -->\n```"),
        error(
            PLAN,
            15,
            "open_fence",
            "The code fence that begins here is never closed; all after it counts as code.",
        ),
    ),
    fault(
        "a key is not in the JSON",
        stories('"stories"', '"tales"'),
        error(STORIES, 16, "missing_key", "The key 'stories' is missing from the object; add it."),
    ),
    fault(
        "broken JSON in the body",
        stories('}}",\n', '}}"\n'),
        error(
            STORIES,
            15,
            "invalid_json",
            "The document is no valid JSON: expecting ',' delimiter, at column 3.",
        ),
    ),
    # the language
    fault(
        "an unknown variable",
        brief("{{ project_name }}", "{{ project }}"),
        error(
            BRIEF,
            13,
            "unknown_variable",
            "There is no variable 'project'. There are: project_name, date.",
        ),
    ),
    fault(
        "a variable in a condition",
        plan("# Plan", "{% if customer %}# {% endif %}Plan"),
        error(
            PLAN,
            10,
            "unknown_variable",
            "There is no variable 'customer'. There are: project_name, date.",
        ),
    ),
    fault(
        "a file is included",
        plan("# Plan", "{% include '/etc/passwd' %}"),
        error(PLAN, 10, "template_language", refused("Another file")),
    ),
    fault(
        "a range of 10**9",
        plan("# Plan", "{% for n in range(10**9) %}x{% endfor %}"),
        error(PLAN, 10, "template_language", refused("A loop")),
    ),
    fault(
        "a call",
        plan("# Plan", "{{ range(10**9) }}"),
        error(PLAN, 10, "template_language", refused("A call")),
    ),
    fault(
        "a filter",
        plan("# Plan", "{{ date | upper }}"),
        error(PLAN, 10, "template_language", refused("A filter")),
    ),
    fault(
        "an attribute",
        plan("# Plan", "{{ date.__class__.__mro__ }}"),
        error(PLAN, 10, "template_language", refused("An attribute")),
    ),
    fault(
        "arithmetic",
        plan("# Plan", "{{ 7*7 }}"),
        error(PLAN, 10, "template_language", refused("Arithmetic")),
    ),
    fault(
        "an assignment",
        plan("# Plan", "{% set x = date %}"),
        error(PLAN, 10, "template_language", refused("An assignment")),
    ),
    fault(
        "a macro",
        plan("# Plan", "{% macro m() %}{% endmacro %}"),
        error(PLAN, 10, "template_language", refused("A macro")),
    ),
    fault(
        "braces that stay open",
        plan("{{ date }}", "{{ date"),
        error(PLAN, 12, "template_language", f"Unexpected char '#' at 19. {ALLOWED}"),
    ),
    fault(
        "a condition that stays open",
        plan("# Plan", "{% if date %}"),
        error(
            PLAN,
            10,
            "template_language",
            "Unexpected end of template. The innermost block that needs to be closed is 'if'. "
            f"{ALLOWED}",
        ),
    ),
    # examples
    fault(
        "no example",
        {BRIEF_EXAMPLE: None},
        warning(
            BRIEF, 1, "no_example", "The type has no example. Write example.md beside the template."
        ),
    ),
    fault(
        "an example of the wrong kind",
        {"templates/planning/STORIES/example.md": "# Stories\n", STORIES_EXAMPLE: None},
        warning(
            "templates/planning/STORIES/example.md",
            1,
            "unknown_file",
            "This example is not read: by the output path it is "
            "templates/planning/STORIES/example.json.",
        ),
        warning(
            STORIES,
            1,
            "no_example",
            "The type has no example. Write example.json beside the template.",
        ),
    ),
    fault(
        "an example without template",
        {"templates/context/TERMS/example.md": "# Terms\n"},
        warning(
            "templates/context/TERMS/example.md",
            1,
            "unknown_file",
            "This example is not read: there is no template.md beside it.",
        ),
    ),
    fault(
        "an example with faults",
        {BRIEF_EXAMPLE: "# Brief\n\n## Limits\n\n[TODO: limits]\n"},
        warning(
            BRIEF_EXAMPLE,
            3,
            "missing_heading",
            "The heading '## Goal' is missing above this line; add it with its section.",
        ),
        warning(
            BRIEF_EXAMPLE,
            5,
            "open_placeholder",
            "'[TODO: limits]' is left open; fill it in or take it out.",
        ),
    ),
    fault(
        "an example of broken JSON",
        {STORIES_EXAMPLE: '{"project": "Shelfway",\n}\n'},
        warning(
            STORIES_EXAMPLE,
            1,
            "invalid_json",
            "The document is no valid JSON: a comma has nothing after it.",
        ),
    ),
    # prompts
    fault(
        "a prompt is missing",
        {"prompts/draft.md": None},
        error("prompts/draft.md", 1, "missing_prompt", "This prompt is missing. Write it."),
    ),
    fault(
        "an unknown prompt",
        {"prompts/greeting.md": "Hello.\n"},
        error(
            "prompts/greeting.md",
            1,
            "unknown_file",
            "This is no prompt. There are: prompts/answer.md, prompts/draft.md, "
            "prompts/question.md.",
        ),
    ),
    fault(
        "the question is left out",
        {QUESTION: "{{ material }}\n"},
        error(
            QUESTION,
            1,
            "missing_variable",
            "The model would not be shown the question. Write {{ question }}.",
        ),
    ),
    fault(
        "material in a condition only",
        {QUESTION: "{% if material %}\n{{ question }}\n{% endif %}\n"},
        error(
            QUESTION,
            1,
            "missing_variable",
            "The model would not be shown the material. Write {{ material }}.",
        ),
    ),
    fault(
        "a template's variable in a prompt",
        {"prompts/answer.md": "On {{ date }}.\n"},
        error(
            "prompts/answer.md",
            1,
            "unknown_variable",
            "There is no variable 'date'. There are: user_name, today, instructions, doc_type, "
            "title, format, is_json.",
        ),
    ),
    fault(
        "a strange file",
        {"templates/context/BRIEF/notes.txt": ""},
        warning(
            "templates/context/BRIEF/notes.txt",
            1,
            "unknown_file",
            "This file is not read. Templates are templates/<phase>/<TYPE>/template.md.",
        ),
    ),
]


SEVERITIES = ("error", "warning")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_seeded_fault_gives_exactly_its_findings(fault: Fault) -> None:
    texts = {path: text for path, text in {**SOUND, **fault.texts}.items() if text is not None}
    assert check_texts(texts, {}) == list(fault.found)


def test_the_shipped_templates_and_prompts_have_no_error() -> None:
    found = check_folders(ROOT / "prompts", ROOT / "templates")
    assert [one for one in found if one.severity == "error"] == []


@pytest.mark.parametrize(
    "unit", ["{#", "{{", "{% if date %}", "[", "|a|b\n|-|-\n", "## a\n", "<!--"]
)
def test_hostile_texts_are_checked_in_bounded_time(unit: str) -> None:
    body = unit * (90_000 // len(unit))
    started = time.thread_time()
    assert check_texts({**SOUND, BRIEF: SOUND[BRIEF].partition("# {{")[0] + body}, {})
    assert time.thread_time() - started < 25


def test_of_many_findings_in_one_text_the_first_are_told_and_errors_before_warnings() -> None:
    headings = "".join(f"## Chapter {number}\n\n" for number in range(150))
    found = check_texts({**SOUND, BRIEF: SOUND[BRIEF] + headings + "{{ x }}\n"}, {})
    errors, warnings = ([one for one in found if one.severity == kind] for kind in SEVERITIES)
    assert [one.code for one in errors] == ["unknown_variable"]
    assert [one.code for one in warnings] == ["extra_heading"] * 99 + ["more"]
    assert warnings[-1].message == "51 more findings are not shown. Put the others right first."


def test_a_front_matter_has_short_lists() -> None:
    long = brief("depends_on: []", f"depends_on: [{'PLAN, ' * 100}PLAN]")
    sentence = "The value of 'depends_on' must be a list of at most 100 entries."
    assert error(BRIEF, 6, "wrong_value", sentence) in check_texts({**SOUND, **long}, {})


def test_types_that_all_depend_on_each_other_are_told_in_bounded_time() -> None:
    names = [f"T{number}" for number in range(60)]
    front = SOUND[BRIEF].replace("BRIEF.md", "{name}.md").replace("[]", f"[{', '.join(names)}]")
    texts = {f"templates/context/{n}/template.md": front.replace("{name}", n) for n in names}
    started = time.thread_time()
    found = check_texts({**SOUND, **texts}, {})
    assert [one.code for one in found].count("dependency_cycle") == 20
    assert time.thread_time() - started < 25


def test_folders_are_checked_with_what_cannot_be_read(tmp_path: Path) -> None:
    laid(tmp_path, SOUND)
    (tmp_path / BRIEF).write_bytes(b"---\ntitle: Caf\xe9\n")
    (tmp_path / PLAN).unlink()
    (tmp_path / PLAN).symlink_to("nowhere")
    (tmp_path / QUESTION).write_bytes(b"{{ question }}\0")
    (tmp_path / "prompts/hello.md").write_text("Hello.\n")
    (tmp_path / "templates/notes.md").write_text("Notes.\n")
    (tmp_path / "templates/context/BRIEF/.template.md.swp").write_bytes(b"\0")
    found = check_folders(tmp_path / "prompts", tmp_path / "templates")
    assert [(one.path, one.severity, one.code, one.message) for one in found] == [
        (
            "prompts/hello.md",
            "error",
            "unknown_file",
            "This is no prompt. There are: prompts/answer.md, prompts/draft.md, "
            "prompts/question.md.",
        ),
        (QUESTION, "error", "unreadable", f"{QUESTION} holds a NUL character in line 1."),
        (BRIEF, "error", "unreadable", f"{BRIEF} is not UTF-8 in line 2."),
        (
            "templates/notes.md",
            "warning",
            "unknown_file",
            "This file is not read. Templates are templates/<phase>/<TYPE>/template.md.",
        ),
        (PLAN, "error", "unreadable", f"{PLAN} cannot be read (No such file or directory)."),
    ]


def test_folders_that_are_missing_lack_every_prompt(tmp_path: Path) -> None:
    found = check_folders(tmp_path / "prompts", tmp_path / "templates")
    assert [(one.path, one.code) for one in found] == [
        ("prompts/answer.md", "missing_prompt"),
        ("prompts/draft.md", "missing_prompt"),
        ("prompts/question.md", "missing_prompt"),
    ]


def test_lines_that_end_in_carriage_return_count_once() -> None:
    texts = {path: text.replace("\n", "\r\n") for path, text in SOUND.items()}
    assert check_texts(texts, {}) == []
    texts[PLAN] = texts[PLAN].replace("# Plan", "{{ 7*7 }}")
    assert check_texts(texts, {}) == [error(PLAN, 10, "template_language", refused("Arithmetic"))]


class TestNewErrors:
    """Which errors stand against an edit."""

    def test_none_where_there_were_no_others(self) -> None:
        assert self.brought(SOUND, brief("Money and time", "Money")) == []

    def test_those_in_the_text_itself_even_if_they_were_there_before(self) -> None:
        broken = {**SOUND, BRIEF: "# Brief\n"}
        assert [one.code for one in self.brought(broken, {BRIEF: "# Short\n"})] == ["front_matter"]

    def test_those_that_the_edit_brings_elsewhere(self) -> None:
        found = self.brought(SOUND, {BRIEF: SOUND[BRIEF].replace("[]", "[STORIES]")})
        assert [(one.path, one.code) for one in found] == [(BRIEF, "dependency_cycle")]
        found = self.brought(SOUND, {STORIES: None})
        assert found == []
        found = self.brought(SOUND, {BRIEF: None})
        assert [(one.path, one.code) for one in found] == [
            (PLAN, "unknown_dependency"),
            (STORIES, "unknown_dependency"),
        ]

    def test_not_those_between_types_that_were_there_before(self) -> None:
        cyclic = SOUND[BRIEF].replace("depends_on: []", "depends_on: [PLAN]")
        edited = cyclic.replace("Money and time", "Money")
        assert self.brought({**SOUND, BRIEF: cyclic}, {BRIEF: edited}) == []

    def brought(
        self, before: Mapping[str, str], edit: Mapping[str, str | None]
    ) -> list[TextFinding]:
        after = {path: text for path, text in {**before, **edit}.items() if text is not None}
        [path] = edit
        return new_errors(check_texts(before, {}), check_texts(after, {}), path)


# What an error in a file does, as docs/checks.md says.

ERRORS = (ROOT / "docs/checks.md").read_text("utf-8").partition("### Errors\n")[2]


@pytest.mark.parametrize(
    ("path", "old", "new", "code"),
    [
        (PLAN, "# Plan", "# Plan\0", "unreadable"),
        (PLAN, "# Plan", "# Plan\x07", "control_character"),
        (PLAN, "# Plan", "# Plan" + "x" * LONGEST_TEXT, "too_long"),
        (PLAN, "---\n", "", "front_matter"),
        (PLAN, "order: 20\n", "", "missing_key"),
        (PLAN, "order: 20", "order: 20\nrank: 1", "unknown_key"),
        (PLAN, "order: 20", "order: early", "wrong_value"),
        (PLAN, "phase: planning", "phase: context", "wrong_phase"),
        (PLAN, "docs/PLAN.md", "../../etc/x.md", "unsafe_output_path"),
        (PLAN, "docs/PLAN.md", "docs/BRIEF.md", "duplicate_output_path"),
        (PLAN, "[BRIEF]", "[NO_SUCH]", "unknown_dependency"),
        (PLAN, "[BRIEF]", "[PLAN]", "self_dependency"),
        (PLAN, "[BRIEF]", "[STORIES]", "dependency_cycle"),
        (PLAN, "[Steps]", "[]", "no_required_headings"),
        (PLAN, "[Steps]", "[Steps, Steps]", "duplicate_heading"),
        (PLAN, "[Steps]", "[Steps, Costs]", "missing_heading"),
        (PLAN, "# Plan", "{{ 7*7 }}", "template_language"),
        (PLAN, "# Plan", "{{ plan }}", "unknown_variable"),
        (QUESTION, "{{ question }}", "", "missing_variable"),
        (QUESTION, "{{ question }}", "{{ question }}\0", "unreadable"),
    ],
)
def test_an_error_in_a_file_does_what_the_page_says(
    tmp_path: Path, path: str, old: str, new: str, code: str
) -> None:
    laid(tmp_path, {**SOUND, path: SOUND[path].replace(old, new, 1)})
    prompts, templates = tmp_path / "prompts", tmp_path / "templates"
    assert code in {one.code for one in check_folders(prompts, templates)}
    wording = Texts(prompts, templates).files()
    said = next(line.split("|") for line in ERRORS.splitlines() if f"`{code}`" in line)[3]
    assert said.split()[0].strip(";:") == consequence(wording, is_prompt=path == QUESTION)


def test_of_two_types_of_one_name_the_first_counts(tmp_path: Path) -> None:
    laid(tmp_path, {**SOUND, "templates/later/BRIEF/template.md": SOUND[BRIEF]})
    prompts, templates = tmp_path / "prompts", tmp_path / "templates"
    codes = {one.code for one in check_folders(prompts, templates) if one.severity == "error"}
    assert codes == {"duplicate_type", "wrong_phase"}
    assert Texts(prompts, templates).files().document_type("BRIEF").path == BRIEF


def consequence(wording: Wording, *, is_prompt: bool) -> str:
    """What becomes of PLAN, in the page's words."""
    is_listed = "PLAN" in [kind.name for kind in wording.document_types()]
    try:
        pin(wording, "PLAN", Context())
    except TemplateFailed:
        return "ends" if is_listed and not is_prompt else "out"
    return "works"


def laid(folder: Path, texts: Mapping[str, str]) -> None:
    """The texts as files."""
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
