"""Documents are checked like code: each seeded fault gives exactly the findings that it should."""

import json
import time
import tomllib
from functools import cache
from typing import NamedTuple

import pytest

from graph.checks.drafts import check_draft
from graph.checks.findings import Finding
from graph.checks.form import form_findings
from graph.checks.outline import outline_of
from graph.checks.project import Kind, Project
from graph.checks.technologies import technologies_in
from graph.settings import ROOT
from graph.texts.document_types import parsed

HEADINGS = ("Purpose", "Quality goals", "Risks")
SOUND = "# Shop\n\n## Purpose\n\nIt sells.\n\n## Quality goals\n\nFast.\n\n## Risks\n\nNone.\n"
KEYS = ("project", "stories")
JSON = '{\n  "project": "Shop",\n  "stories": []\n}\n'


class Fault(NamedTuple):
    """A document with a fault, and what is to be found: code, line, and words of the message."""

    name: str
    text: str
    found: list[tuple[str, int | None, str]]


def with_text(text: str) -> str:
    """The sound document with `text` in line 5."""
    return SOUND.replace("It sells.", text)


IN_MARKDOWN = [
    Fault("nothing", SOUND, []),
    Fault(
        "a heading is missing",
        SOUND.replace("## Risks\n\nNone.\n", ""),
        [("missing_heading", 9, "'## Risks' is missing at the end; add it")],
    ),
    Fault(
        "a heading has another level",
        SOUND.replace("## Risks", "### Risks"),
        [("missing_heading", 11, "'### Risks' stands here instead")],
    ),
    Fault(
        "a heading is misspelt",
        SOUND.replace("## Quality goals", "## Qualitty goals"),
        [("missing_heading", 7, "'## Qualitty goals' stands here instead")],
    ),
    Fault(
        "two headings have changed places",
        "# Shop\n\n## Quality goals\n\n## Purpose\n\n## Risks\n",
        [("heading_out_of_order", 3, "'Quality goals' is out of order: it comes after 'Purpose'")],
    ),
    Fault(
        "the last heading comes first",
        "# Shop\n\n## Risks\n\n## Purpose\n\n## Quality goals\n",
        [("heading_out_of_order", 3, "it comes after 'Quality goals'")],
    ),
    Fault(
        "a heading stands twice",
        SOUND + "\n## Purpose\n",
        [("repeated_heading", 15, "again, after line 3")],
    ),
    Fault(
        "headings that differ in what does not count",
        "# Shop\n\n## 1. PURPOSE:\n\n## 2.1  Quality   Goals\n\nRisks\n-----\n",
        [],
    ),
    Fault(
        "a heading in code is none",
        SOUND.replace("## Risks", "```\n## Risks\n```"),
        [("missing_heading", 15, "'## Risks' is missing")],
    ),
    Fault(
        "an open [TODO",
        with_text("It sells [TODO: what] to [TODO: whom]."),
        [("open_placeholder", 5, "2 placeholders are left open: '[TODO: what]', '[TODO: whom]'")],
    ),
    Fault(
        "the same open [TODO in three lines",
        with_text("[TODO: why]\n\n[TODO: why]\n\n[TODO: why]"),
        [("open_placeholder", 5, "take it out. The same in lines 7 and 9.")],
    ),
    Fault(
        "an open [TODO in code",
        with_text("```\nname: [TODO: name]\n```"),
        [("open_placeholder", 6, "'[TODO: name]' is left open")],
    ),
    Fault(
        "TODO: in the text",
        with_text("It sells.\nTODO: say what."),
        [("open_placeholder", 6, "'TODO' is left open")],
    ),
    Fault("TBD", with_text("Its owner is TBD."), [("open_placeholder", 5, "'TBD'")]),
    Fault(
        "FIXME alone in a cell",
        with_text("| Owner | Until |\n| --- | --- |\n| Mira | FIXME |"),
        [("open_placeholder", 7, "'FIXME'")],
    ),
    Fault("marks that are spoken of", with_text("No TBD stays, and `TODO:` means work."), []),
    Fault("a blank", with_text("It sells [your product]."), [("open_placeholder", 5, "[your pr")]),
    Fault("an angled blank", with_text("Ask <name of owner>."), [("open_placeholder", 5, "<name")]),
    Fault("links are no blanks", with_text("See [your rights](#risks) and [1]."), []),
    Fault("a variable", with_text("It is {{ project }}."), [("open_placeholder", 5, "{{ project")]),
    Fault("filler", with_text("Lorem ipsum dolor."), [("open_placeholder", 5, "'Lorem ipsum'")]),
    Fault(
        "guidance is left",
        with_text("<!-- Say in one paragraph\nwhat it does. -->\nIt sells."),
        [("guidance_left", 5, "delete it")],
    ),
    Fault(
        "a delimiter is left",
        f"<template-kkkvsskl>\n{SOUND}</template-kkkvsskl>\n",
        [("guidance_left", 1, "A delimiter of the prompt was left; delete it. The same in line 1")],
    ),
    Fault("a comment for a tool", with_text("<!-- markdownlint-disable MD013 -->\nIt sells."), []),
    Fault(
        "JSON in a code block is broken",
        with_text('```json\n{\n  "a": 1,\n}\n```'),
        [("invalid_json", 7, "The JSON in this code block cannot be read")],
    ),
    Fault(
        "a code block is never closed",
        SOUND + "\n```sh\nmake\n",
        [("open_fence", 15, "never closed")],
    ),
    Fault(
        "all of it in a fence",
        f"```markdown\n{with_text('Its owner is TBD.')}```\n",
        [("document_in_fence", 1, "first and last line"), ("open_placeholder", 6, "'TBD'")],
    ),
]

IN_JSON = [
    Fault("nothing", JSON, []),
    Fault(
        "a comma too many",
        '{\n  "project": "Shop",\n  "stories": [],\n}\n',
        [("invalid_json", 3, "a comma has nothing after it")],
    ),
    Fault("it breaks off", JSON[:25], [("invalid_json", 2, "breaks off before its end")]),
    Fault("an open string", JSON[:20], [("invalid_json", 2, "string at column 14 is never")]),
    Fault("empty", "", [("invalid_json", 1, "it is empty")]),
    Fault("no number", JSON.replace("[]", "NaN"), [("invalid_json", 3, "NaN is no JSON number")]),
    Fault(
        "in a fence, and a key is missing",
        '```json\n{\n  "project": "Shop"\n}\n```\n',
        [("json_in_fence", 1, "leave only the JSON"), ("missing_key", 4, "'stories'")],
    ),
    Fault(
        "with remarks, and broken",
        'Here it is:\n\n```json\n{\n  "project": }\n```\nDone.',
        [("json_in_fence", 3, "leave only"), ("invalid_json", 5, "expecting value")],
    ),
    Fault(
        "keys out of order",
        '{\n  "stories": [],\n  "project": "Shop"\n}\n',
        [("key_out_of_order", 2, "'stories' is out of order: it comes after 'project'")],
    ),
    Fault(
        "a key stands twice",
        JSON.replace("[]", '[{"id": 1,\n "id": 2}, {"id": 3}]'),
        [("repeated_key", 4, "'id' stands here again, after line 3")],
    ),
    Fault("a list", "[]", [("missing_key", 1, "one JSON object with the keys project, stories")]),
    Fault(
        "a placeholder",
        JSON.replace("Shop", "TBD"),
        [("open_placeholder", 2, "'TBD'")],
    ),
]


def told(findings: list[Finding], fault: Fault) -> list[tuple[str, int | None, str]]:
    """Code, line and message, of the message the words that are asked for, where it has them."""
    asked = [words for _, _, words in fault.found] + [""] * len(findings)
    return [
        (one.code, one.line, words if words and words in one.message else one.message)
        for one, words in zip(findings, asked, strict=False)
    ]


@pytest.mark.parametrize("fault", IN_MARKDOWN, ids=lambda fault: fault.name)
def test_a_fault_in_the_form_of_markdown_is_found(fault: Fault) -> None:
    found = form_findings(fault.text, output_path="docs/A.md", required_headings=HEADINGS)
    assert told(found, fault) == fault.found


@pytest.mark.parametrize("fault", IN_JSON, ids=lambda fault: fault.name)
def test_a_fault_in_the_form_of_json_is_found(fault: Fault) -> None:
    found = form_findings(fault.text, output_path="docs/A.json", required_headings=KEYS)
    assert told(found, fault) == fault.found


# --- against the rest of the project

LANGUAGE = """# Language

## Core terms

| Term | Definition |
| --- | --- |
| Transfer | The move of one item from one branch to another. |
| Pick list | The items that a branch must pick for one run. |
| Tote | A numbered crate for one destination, holding at most 25 items. |

## Words to avoid

| Avoid | Write instead | Because |
| --- | --- | --- |
| Request | Transfer | Staff say it for both |
| Crate, box | Tote | Boxes are thrown away |
"""

STACK = """# Stack

## Stack at a glance

| Part | Technology |
| --- | --- |
| Language | Python |
| Database | PostgreSQL |
| Web framework | Django |
| Pages | htmx |

## Choices and rejected alternatives

Chosen: Django, because the team knows it.

Rejected: Flask. It would have given us less to learn. React is a matter of its own.

## What we leave out

- No message broker, because 20 scans a second are few.
- No GraphQL, because one client asks.

## Versions and upkeep

| Component | Version |
| --- | --- |
| Python | 3.13 |
| PostgreSQL, Django | 17, 5.2 LTS |
"""

NEEDS = "# Needs\n\n- FR-1: One.\n- FR-2: Two.\n- FR-07: Seven, as FR-1.\n- R1. A.\n- R2. B.\n"
PATHS = {
    "DOMAIN_LANGUAGE": "docs/context/DOMAIN_LANGUAGE.md",
    "TECH_STACK": "docs/architecture/TECH_STACK.md",
    "REQUIREMENTS_MASTER": "docs/requirements/REQUIREMENTS_MASTER.md",
    "USER_STORIES_MASTER": "docs/requirements/USER_STORIES_MASTER.json",
    "ROADMAP_PHASES": "docs/planning/ROADMAP_PHASES.md",
    "README": "README.md",
}
PROJECT = Project(
    {
        "docs/context/DOMAIN_LANGUAGE.md": LANGUAGE,
        "TECH_STACK.md": STACK,
        "docs/requirements/REQUIREMENTS_MASTER.md": NEEDS,
        "survey.md": "# Survey",
    },
    PATHS,
)
MAP = Kind("USER_JOURNEY_MAP", "docs/context/USER_JOURNEY_MAP.md", HEADINGS)


def one(name: str, text: str, code: str, words: str, line: int = 5) -> Fault:
    """A fault in a sound document, with one finding."""
    return Fault(name, with_text(text), [(code, line, words)])


def sound(name: str, text: str) -> Fault:
    """What looks like a fault and is none."""
    return Fault(name, with_text(text), [])


IN_PROJECT = [
    one("a word to avoid", "A borrower's request waits.", "avoided_word", "write 'transfer' inst"),
    one("its plural", "It holds\nthree boxes.", "avoided_word", "avoids 'box': write 'tote'", 6),
    one("it stands in a cell", "| What |\n| --- |\n| Crate |", "avoided_word", "'crate'", 7),
    Fault(
        "it stands on several lines",
        with_text("The box is full.\n\nThe box is empty."),
        [("avoided_word", 5, "write 'tote' instead. The same in line 7.")],
    ),
    sound("the word as a verb", "Staff request a transfer."),
    sound("the word in computing", "The API answers each request with 200. A pull request."),
    sound("an idiom", "It works out of the box."),
    sound("the word in code and in quotes", 'Call `request`, and do not say "box" or box_id.'),
    one(
        "a term is defined otherwise in a table",
        "| Term | Meaning |\n| --- | --- |\n| Transfer | A payment between two bank accounts |",
        "redefined_term",
        "'Transfer' is defined otherwise in the domain language: The move of one item from one",
        7,
    ),
    one(
        "a term has another limit",
        "A tote means a numbered container for one destination, holding at most 40 items.",
        "redefined_term",
        "holding at most 25 items. Use that definition",
    ),
    one("in a list", "- **Tote**: A paper bag of the reader.", "redefined_term", "'Tote'"),
    one(
        "in a sentence", "Transfer means payment between two banks.", "redefined_term", "'Transfer'"
    ),
    sound("a term is described", "- **Transfer**: the driver sees the number.\n- Tote: heavy"),
    sound("a term is defined alike", "A transfer means that one item moves between branches."),
    one("a term is joined", "The picklist closes.", "misspelt_term", "'picklist' is written 'pick"),
    one("a term has a hyphen", "See the pick-list.", "misspelt_term", "'pick-list' is written"),
    one("a term is misspelt", "Each tranfser ends.", "misspelt_term", "'tranfser' is written 'tr"),
    sound("plural, case and compounds", "Pick lists, TRANSFERS and the pick-list page. pickList"),
    one(
        "another of the category", "It lies in MongoDB.", "contradicts_tech_stack", "is PostgreSQL"
    ),
    one("a rejected one", "It is served by Flask.", "contradicts_tech_stack", "rejects it"),
    one("one that is left out", "Kafka\nbrings it.", "contradicts_tech_stack", "no message broker"),
    one("left out by name", "GraphQL asks for it.", "contradicts_tech_stack", "rejects it"),
    one("an ambiguous name", "It is written in Go.", "contradicts_tech_stack", "Go is named here"),
    one(
        "another version", "It needs Python 3.11.", "contradicts_tech_stack", "3.11 here, but 3.13"
    ),
    one(
        "another version in a table",
        "| Component | Version |\n| --- | --- |\n| Django | 4.2 |",
        "contradicts_tech_stack",
        "Django has version 4.2 here, but 5.2 in TECH_STACK",
        7,
    ),
    sound("the stack's own", "Django 5.2.1 on Python 3, PostgreSQL 17 and PostgreSQL 900 scans"),
    sound("what was not chosen", "We did not choose MySQL.\nRather than Java, the team took it."),
    sound("under a heading", "### Alternatives\n\nMySQL was quick."),
    sound("English words", "Go on, express it, and in Spring salt the rust of the rocket. Swift."),
    sound("outside of it all", "It runs on AWS and is watched by Prometheus."),
    one(
        "a link to no document",
        "See [it](../context/DOMAIN_LANGAUGE.md).",
        "broken_reference",
        "Did you mean 'DOMAIN_LANGUAGE.md'?",
    ),
    one("a link to a wrong folder", "[a](TECH_STACK.md)", "broken_reference", "../architecture/TE"),
    one("a link without target", "It is\n[a](#goals).", "broken_reference", "'#goals' leads no", 6),
    one(
        "a link to no heading of another",
        "[a](DOMAIN_LANGUAGE.md#words)",
        "broken_reference",
        "has no heading for the link to '#words'",
    ),
    one("by reference", "[a][b]\n\n[b]: none.md", "broken_reference", "no docs/context/none.md", 7),
    one("a misspelt name", "See REQUIREMENTS_MASTR.md.", "broken_reference", "REQUIREMENTS_MASTER"),
    one(
        "and in code", "See `DOMAIN_LANGUGE`.", "broken_reference", "Did you mean DOMAIN_LANGUAGE?"
    ),
    one(
        "no such item",
        "As FR-99 asks.",
        "broken_reference",
        "in REQUIREMENTS_MASTER.md, where 3 are",
    ),
    one("no such rule", "As R1 and R9 ask.", "broken_reference", "There is no R9"),
    one(
        "not written yet",
        "See [it](../planning/ROADMAP_PHASES.md).",
        "reference_not_written",
        "The project has no docs/planning/ROADMAP_PHASES.md yet",
    ),
    sound(
        "what is there",
        "[a](#quality-goals), [b](DOMAIN_LANGUAGE.md#core-terms), "
        "[c](../architecture/TECH_STACK.md) and [d](../../src/app.py), <https://a.b/c.md>, "
        "[e](https://a.b/c.md), survey.md, FR-7, UTF-8, DATABASE_URL and DOMAIN_LANGUAGE.",
    ),
    one(
        "no such item in a table of another's items",
        "| Requirement | Test |\n| --- | --- |\n| FR-1 | a |\n| FR-9 | b |",
        "broken_reference",
        "There is no FR-9 in REQUIREMENTS_MASTER.md",
        8,
    ),
    one(
        "no such item of its own",
        "- T-1: One.\n- T-2: Two.\n- T-3: Three.\n- See T-4, but not transfer T-20417.",
        "broken_reference",
        "There is no T-4 in this document, where 3 are numbered, from T-1 to T-3; name one",
        8,
    ),
    sound("more items than another lists", "- FR-1: a\n- FR-2: b\n- FR-7: c\n- FR-8: d"),
    sound("an item of its own", "- FR-99: Ninety-nine. And FR-99 it is."),
]


@pytest.mark.parametrize("fault", IN_PROJECT, ids=lambda fault: fault.name)
def test_a_fault_against_the_project_is_found(fault: Fault) -> None:
    assert told(check_draft(fault.text, MAP, PROJECT), fault) == fault.found


def test_the_strings_of_json_are_checked_too() -> None:
    kind = Kind("USER_STORIES_MASTER", PATHS["USER_STORIES_MASTER"], ("stories",))
    text = (
        '{\n "stories": [{"id": "US-1", "text": "The picklist is in MongoDB.",\n "for": "FR-9"}]}'
    )
    found = check_draft(text, kind, PROJECT)
    assert [(one.code, one.line) for one in found] == [
        ("misspelt_term", 2),
        ("contradicts_tech_stack", 2),
        ("broken_reference", 3),
    ]


def test_types_that_weigh_technologies_may_name_all_of_them_in_the_right_version() -> None:
    text = with_text("MongoDB was quick. Python 3.11 is old.")
    for name in ("TECH_STACK_DECISION", "ARCH_DECISION_RECORDS"):
        found = check_draft(text, Kind(name, f"docs/{name}.md", HEADINGS), PROJECT)
        assert [(one.code, one.line) for one in found] == [("contradicts_tech_stack", 5)]
        assert found[0].message.startswith("Python has version 3.11 here")


def test_a_stack_is_compared_with_itself() -> None:
    text = STACK + "\nThe machines have PostgreSQL 16.\n"
    found = check_draft(text, Kind("TECH_STACK", PATHS["TECH_STACK"]), PROJECT)
    assert [(one.code, one.line) for one in found] == [
        ("contradicts_tech_stack", len(text.split("\n")) - 1)
    ]


def test_without_a_project_only_the_form_and_the_anchors_are_checked() -> None:
    text = with_text("See [it](DOMAIN_LANGUAGE.md), MongoDB, FR-99 and [a](#b).")
    found = check_draft(text, MAP, Project({}, PATHS, is_whole=False))
    assert [(one.code, one.line) for one in found] == [("broken_reference", 5)]


@pytest.mark.parametrize("name", ["USER_STORIES_MASTER.md", "old/USER_STORIES_MASTER.json"])
def test_a_document_of_a_known_type_is_there_under_each_of_its_names(name: str) -> None:
    text = with_text("[a](../requirements/USER_STORIES_MASTER.json), USER_STORIES_MASTER.json")
    missing = "reference_not_written"
    assert [one.code for one in check_draft(text, MAP, PROJECT)] == [missing]
    project = Project({**PROJECT.documents, name: "{}"}, PATHS)
    assert check_draft(text, MAP, project) == []


def test_of_many_findings_the_rest_is_counted() -> None:
    text = SOUND + "".join(f"\n[{number}](none{number}.md)\n" for number in range(80))
    found = check_draft(text, MAP, PROJECT)
    assert [one.line for one in found] == [*range(15, 113, 2), None]
    message = "31 more findings are not listed; see to those above first."
    assert found[-1] == Finding("more_findings", message)


# --- as a model writes what our templates ask for

AVOIDED = {
    "marks": "| ❌ Avoid | ✅ Write instead |\n|---|---|\n| **Parcel** / box | Tote |\n",
    "other heads": "| # | Instead of | Use | Why |\n|-|-|-|-|\n| 1 | Parcel, box | Tote | |\n",
    "arrows": "- **Parcel, box** → write *tote* (never a bag).\n",
    "sentences": '- Do not say "parcel" or "box"; say "tote", because boxes are thrown away.\n',
}


@pytest.mark.parametrize("form", AVOIDED)
def test_words_to_avoid_are_read_however_they_are_set(form: str) -> None:
    language = f"# Language\n\n## Words to avoid\n\n{AVOIDED[form]}"
    project = Project({"DOMAIN_LANGUAGE.md": language}, PATHS)
    found = check_draft(with_text("The parcel waits.\n\nTwo boxes wait."), MAP, project)
    assert [(one.line, one.message.lower()) for one in found] == [
        (5, "the domain language avoids 'parcel': write 'tote' instead."),
        (7, "the domain language avoids 'box': write 'tote' instead."),
    ]


def test_a_meaning_is_no_word_to_write() -> None:
    language = "# A\n\n## Words to avoid\n\n- Event: means nothing.\n"
    language += "\n| Avoid | Write |\n|-|-|\n| Box | – |\n"
    project = Project({"DOMAIN_LANGUAGE.md": language}, PATHS)
    assert check_draft(with_text("The event and the box."), MAP, project) == []


def test_terms_are_read_however_they_are_set() -> None:
    language = (
        "# A\n\n| # | **Term (plural)** | Meaning / limits |\n|:-|:-|:-|\n"
        "| 1 | **Pick list** (pick lists) | What a branch must pick. |\n"
    )
    project = Project({"DOMAIN_LANGUAGE.md": language}, PATHS)
    found = check_draft(with_text("The picklist closes [1]."), MAP, project)
    assert [one.code for one in found] == ["misspelt_term"]


LISTED = """# Stack

## 2. Stack at a glance

| Layer | Choice | Version in use |
|---|---|---|
| Language | **TypeScript** 5.6 on Node.js 22 LTS | – |
| Database | MariaDB | 11.4 LTS |

## 3. Choices

- **Rejected:** MySQL.
- **Way out:** Prisma supports PostgreSQL; three weeks.

## 4. What we leave out

| Left out | Because |
|---|---|
| Kafka | Few messages |
| A search engine | Lots are found by number |
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("It is in PostgreSQL.", "PostgreSQL is named here, but the database in TECH_STACK is"),
        ("It goes to Kafka.", "Kafka is named here, but TECH_STACK rejects it; take it out"),
        ("Solr finds it.", "Solr is named here, but TECH_STACK says: no search engine; take it"),
        ("It needs Node.js 18.", "Node.js has version 18 here, but 22 in TECH_STACK; correct"),
        ("It needs MariaDB 10.", "MariaDB has version 10 here, but 11.4 in TECH_STACK; correct"),
        ("It copies lots from Oracle DB, which stays the source of truth.", None),
        ("Reopen when: MongoDB has checks.", None),
        ("### Exceptions\n\nThe old page runs on MySQL.", None),
    ],
)
def test_a_stack_is_read_however_it_is_set(text: str, message: str | None) -> None:
    project = Project({"TECH_STACK.md": LISTED}, PATHS)
    found = check_draft(with_text(text), MAP, project)
    assert [one.message.startswith(message or "none") for one in found] == [True] * bool(message)


@pytest.mark.parametrize(
    "text",
    [
        "Tests run in order of risk, in order to learn.",
        "A Vue 3 client and one React client.",
        "The nightly batch job writes it.",
        "The game server is a match server.",
    ],
)
def test_a_word_in_another_sense_is_not_avoided(text: str) -> None:
    words = "| Avoid | Write |\n|-|-|\n| Order, client, batch, game | Lot |\n"
    project = Project({"DOMAIN_LANGUAGE.md": words}, PATHS)
    assert check_draft(with_text(text), MAP, project) == []


# --- the examples


@cache
def examples() -> tuple[dict[str, Kind], Project]:
    """All document types of `templates/`, and the project that their examples are."""
    kinds, documents = {}, {}
    for path in sorted((ROOT / "templates").glob("*/*/template.md")):
        about = parsed(path.name, path.read_text(encoding="utf-8")).about
        name, output_path = path.parent.name, about.output_path
        example = path.with_name(f"example.{output_path.rpartition('.')[2]}")
        kinds[name] = Kind(name, output_path, tuple(about.required_headings))
        documents[output_path] = example.read_text(encoding="utf-8")
    return kinds, Project(documents, {name: kind.output_path for name, kind in kinds.items()})


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "templates").glob("*/*"))])
def test_an_example_passes_all_checks(name: str) -> None:
    kinds, project = examples()
    kind = kinds[name]
    assert check_draft(project.documents[kind.output_path], kind, project) == []


def test_the_checks_find_faults_among_the_examples_too() -> None:
    kinds, project = examples()
    kind = kinds["ARCHITECTURE_SPEC"]
    text = project.documents[kind.output_path] + (
        "\nThe borrower's request is put into a box, as D1 says, and stored in MySQL 8.\n"
        "The picklist is sent through RabbitMQ to Python 3.9; see [R9](../context/RULES_OF.md).\n"
    )
    assert [one.code for one in check_draft(text, kind, project)] == [
        *("avoided_word", "avoided_word", "contradicts_tech_stack"),
        *("misspelt_term", "contradicts_tech_stack", "contradicts_tech_stack"),
        *("broken_reference", "broken_reference"),
    ]


# --- hostile input

SIZE = 20_000
HOSTILE = {
    "brackets": "[",
    "link ends": "](",
    "open links": "[a](b(",
    "links": "[a](b.md#c) ",
    "headings": "## Purpose\n",
    "words to avoid": "a request ",
    "a long word": "a",
    "quotes": ">",
    "quoted lines": "> " * 50 + "a\n",
    "lists": "- a\n",
    "lists in lists": "- " * 30 + "a\n",
    "tables": "|Term|Definition|\n|-|-|\n|Tote|a bag|\n\n",
    "references": "[a]: b\n",
    "backticks": "`",
    "backticks of all lengths": "".join("`" * length + "a" for length in range(1, 99)),
    "underscores": "_",
    "spaces": " ",
    "lines": "\n",
    "comments": "<!-- ",
    "tags": "<a ",
    "blanks": "<name of ",
    "braces": "{{",
    "todos": "[TODO",
    "items": "FR-99 ",
    "names": "REQUIREMENTS_MASTR.md ",
    "technologies": "Kafka ",
    "versions": "Python 3.11 ",
    "rejections": "- No ",
    "definitions": "A tote means a ",
    "misspellings": "tranfser ",
    "surrogates and NUL": "\ud800\0\u2028\x85[TODO",
    "objects": '{"a":[',
    "strings": '"a\\",',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_checked_in_linear_time(name: str) -> None:
    piece = HOSTILE[name]
    text = piece * (SIZE // len(piece))
    began = time.thread_time()
    check_draft(f"# {text}#\n\n{text}a", Kind("A", "docs/A.md", HEADINGS), PROJECT)
    check_draft(f"[{text}", Kind("A", "docs/A.json", HEADINGS), PROJECT)
    check_draft(json.dumps([text]), Kind("A", "docs/A.json", HEADINGS), PROJECT)
    assert time.thread_time() - began < 9


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_of_the_project_are_read_in_linear_time(name: str) -> None:
    text = HOSTILE[name] * (SIZE // len(HOSTILE[name]))
    project = Project({PATHS["DOMAIN_LANGUAGE"]: text, "TECH_STACK.md": text, "a.md": text}, PATHS)
    began = time.thread_time()
    check_draft(SOUND, MAP, project)
    assert time.thread_time() - began < 9


# --- the data


def test_each_technology_is_found_by_each_of_its_names() -> None:
    data = tomllib.loads((ROOT / "graph/checks/technologies.toml").read_text(encoding="utf-8"))
    brings = data.pop("brings")
    known = {
        line.split("|")[0]: line.split("|")
        for about in data.values()
        for line in about["technologies"]
    }
    assert (len(data) >= 20, len(known) >= 200) == (True, True)
    assert {*brings, *(name for names in brings.values() for name in names)} <= set(known)
    for name, spellings in known.items():
        for spelling in spellings:
            [prose] = outline_of(f"It is built with {spelling}.").prose
            assert [one.technology.name for one in technologies_in(prose)] == [name], spelling
