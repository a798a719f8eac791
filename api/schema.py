"""The base of every body: which letters a key is written in, and what no text may hold."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from api.active_html import strip_active_html
from graph.sanitizing import clean, one_way


class CamelModel(BaseModel):
    """A body of the chat API: camelCase outside, snake_case inside. Unknown keys are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def example(**body: JsonValue) -> ConfigDict:
    """The setting of a body with an example, in which FastAPI leaves out what is null."""
    return ConfigDict(json_schema_extra={"example": body})


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _clean(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


CLEAN = BeforeValidator(_clean)
"""Takes control characters, lone surrogates and invisible tags away, before anything is checked."""

SAFE = AfterValidator(strip_active_html)
"""Takes active HTML away: for names that people type. What may be longer goes to `stripped`, since
2000 hostile characters take 0.1 s, in which nobody else would be served.
"""

ONE_LINE = AfterValidator(lambda text: " ".join(text.split()))
"""Makes each run of white space one space."""

ONE_WAY = AfterValidator(one_way)
"""Takes away what turns the order of letters around. Before `SAFE`, from which it hides tags."""

NOT_BLANK = AfterValidator(_not_blank)
"""Refuses a text without any character that is no white space."""

FIRST_WRONG = Field(fail_fast=True)
"""Ends the check of a list or an object at the first entry that is wrong: there may be millions,
and to tell them all would take seconds for each megabyte, in which nobody else is served.
"""

CleanText = Annotated[str, CLEAN]
