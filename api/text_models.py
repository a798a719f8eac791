"""The bodies of the routes for prompts and templates."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from api.schema import CLEAN, NOT_BLANK, example
from graph.texts.checking import LONGEST_TEXT
from graph.texts.findings import TextFinding
from graph.texts.paths import Kind
from graph.texts.wording import Layer, Text

_MOST_TEXTS = 100
_MOST_CHARACTERS = 1_000_000

# Some editors begin a text with a byte order mark, which is taken from files too.
_WITHOUT_MARK = AfterValidator(lambda text: text.removeprefix("\ufeff"))

Content = Annotated[
    str, StringConstraints(max_length=LONGEST_TEXT), CLEAN, _WITHOUT_MARK, NOT_BLANK
]
Value = Annotated[str, StringConstraints(max_length=20_000), CLEAN]
VersionName = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]

_PATH = "prompts/answer.md"
_VERSION = "0f3ac2b19d574e68"
_OLDER = "77b0d1e9c2fa4835"
_ANSWER = "Answer {{ user_name }} from the sources.\n"
_TEMPLATE = (
    "---\ntitle: Technology stack\n…\n---\n# {{ project_name }}: Technology stack\n\n"
    "## Stack at a glance\n"
)
_TIME = "2026-08-14T09:30:00Z"
_TEXT: JsonValue = {"path": _PATH, "content": _ANSWER, "version": _VERSION, "source": "edit"}
_FINDING: JsonValue = {
    "path": "templates/architecture/TECH_STACK/template.md",
    "severity": "warning",
    "code": "no_guidance",
    "line": 31,
    "message": "Say in a comment, <!-- … -->, what belongs under 'Stack at a glance'.",
}


class TextEntry(BaseModel):
    """A text that counts; `source` says whether a file, an edit of it, or a project's own."""

    path: str
    kind: Kind
    version: str
    source: Layer
    updated_at: datetime | None


class TextList(BaseModel):
    """All texts that count, by path."""

    model_config = example(
        texts=[
            {
                "path": _PATH,
                "kind": "prompt",
                "version": _VERSION,
                "source": "edit",
                "updated_at": _TIME,
            }
        ]
    )
    texts: list[TextEntry]


class TextAnswer(BaseModel):
    """One text."""

    model_config = example(text=_TEXT)
    text: Text


class EditAnswer(BaseModel):
    """The text that counts now, and what is found in it and because of it elsewhere."""

    model_config = example(text=_TEXT, findings=[_FINDING])
    text: Text
    findings: list[TextFinding]


class Unusable(BaseModel):
    """Why an edit was refused: the errors that it would bring."""

    model_config = example(
        detail="With this, templates and prompts cannot be used. prompts/answer.md: …",
        findings=[
            {
                "path": _PATH,
                "severity": "error",
                "code": "unknown_variable",
                "line": 1,
                "message": "There is no variable 'user'. There are: user_name, today, …",
            }
        ],
    )
    detail: str
    findings: list[TextFinding]


class NewContent(BaseModel):
    """The body of `PUT .../texts/{path}`."""

    model_config = example(content=_ANSWER)
    content: Content


class HistoryEntry(BaseModel):
    """A version; `version` is null where an edit was given up, `author` where it was a file.

    `is_current`: it is what counts now.
    """

    version: str | None
    source: Layer
    author: str | None
    created_at: datetime
    is_current: bool


class History(BaseModel):
    """What was at a path, the newest first."""

    model_config = example(
        versions=[
            {
                "version": _VERSION,
                "source": "edit",
                "author": "Ada Example",
                "created_at": _TIME,
                "is_current": True,
            },
            {
                "version": _OLDER,
                "source": "edit",
                "author": "Grace Example",
                "created_at": "2026-08-01T08:00:00Z",
                "is_current": False,
            },
        ]
    )
    versions: list[HistoryEntry]


class Restore(BaseModel):
    """The body of `POST .../texts/{path}/restore`."""

    model_config = example(version=_OLDER)
    version: VersionName


class Diff(BaseModel):
    """A unified diff; `from` is null where there was nothing before."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "example": {
                "from": _OLDER,
                "to": _VERSION,
                "diff": f"--- {_PATH} {_OLDER}\n+++ {_PATH} {_VERSION}\n@@ -1 +1 @@\n"
                "-Answer {{ user_name }}.\n+Answer {{ user_name }} from the sources.\n",
            }
        },
    )
    before: str | None = Field(alias="from")
    after: str = Field(alias="to")
    diff: str


class PreviewRequest(BaseModel):
    """The body of `POST .../texts/{path}/preview`.

    Without `content`, the text that counts is shown; a variable without a value gets a sample.
    """

    model_config = example(content=_TEMPLATE, values={"project_name": "Tidewatch"})
    content: Content | None = None
    values: dict[str, Value] = Field(default_factory=dict, max_length=20, fail_fast=True)


class Preview(BaseModel):
    """What the text becomes with these values; null where it cannot be rendered, or is too long."""

    model_config = example(
        rendered="# Tidewatch: Technology stack\n\n## Stack at a glance",
        variables={"project_name": "Tidewatch", "date": "2026-08-14"},
        findings=[_FINDING],
    )
    rendered: str | None
    variables: dict[str, str]
    findings: list[TextFinding]


class CheckRequest(BaseModel):
    """The body of `POST .../texts/check`: texts, path to content, laid over those that count."""

    model_config = example(texts={_PATH: _ANSWER})
    texts: dict[Annotated[str, StringConstraints(max_length=200), CLEAN], Content] = Field(
        default_factory=dict, max_length=_MOST_TEXTS, fail_fast=True
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if sum(map(len, self.texts.values())) > _MOST_CHARACTERS:
            raise ValueError(f"the texts must have at most {_MOST_CHARACTERS} characters together")
        return self


class CheckAnswer(BaseModel):
    """What is wrong, by path and line."""

    model_config = example(findings=[_FINDING])
    findings: list[TextFinding]


class UsedText(BaseModel):
    """A text as answers used it."""

    path: str
    content: str


class UsedTexts(BaseModel):
    """What `template_version` or `prompt_version` of an answer names."""

    model_config = example(
        version=_VERSION,
        texts=[{"path": _PATH, "content": _ANSWER}],
        first_used_at=_TIME,
    )
    version: str
    texts: list[UsedText]
    first_used_at: datetime
