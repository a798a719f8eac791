"""Documents are checked like code: each seeded fault gives exactly the findings that it should."""

from typing import NamedTuple

import pytest

from graph.checks.findings import Finding
from graph.checks.form import form_findings

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
        [("missing_heading", None, "'## Risks' is missing; add it")],
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
        [("missing_heading", None, "'## Risks' is missing")],
    ),
    Fault(
        "an open [TODO",
        with_text("It sells [TODO: what] to [TODO: whom]."),
        [("open_placeholder", 5, "2 placeholders are left open: '[TODO: what]', '[TODO: whom]'")],
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
        [("missing_key", None, "'stories'"), ("json_in_fence", 1, "leave only the JSON")],
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
