"""What a run is told beside its turn: the fields that LangGraph Studio shows for editing."""

from collections.abc import Mapping
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema

from graph.standing import Standing
from graph.texts.paths import PROMPT_NAMES, PromptName, prompt_path


class Listener(Protocol):
    """Who is told a run's events, where LangGraph's custom stream is not."""

    def tell(self, event: Any) -> None:  # noqa: ANN401 - as LangGraph's stream writer
        """Take an event. Does not wait."""

    async def keep_up(self) -> None:
        """Return once what was told is passed on; who is slow makes the run wait."""


class Context(BaseModel):
    """Plain values of one run.

    `model` is what the request asked for and `preferred_model` what the project prefers; both may
    be null. `fell_through` is what was asked for in vain before `model` was put in its place.
    `top_k` is the number of passages to retrieve. `answer_id` is the id that the answer will have
    in the thread. What only the service sets is not in the schema, which Studio shows.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str | None = None
    preferred_model: SkipJsonSchema[str | None] = None
    fell_through: SkipJsonSchema[str | None] = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int = Field(6, ge=1, le=50)
    project_name: str = "Untitled"
    instructions: str = ""
    answer_id: SkipJsonSchema[str | None] = None
    _listener: Listener | None = PrivateAttr(None)
    _standing: Standing | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, given: Any) -> Any:  # noqa: ANN401 - whatever LangGraph's server is sent
        """Take a field that is null for one that was left out, as in the input beside it."""
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given

    def heard_by(self, listener: Listener) -> Self:
        """The same for a run whose events `listener` is told.

        LangGraph's custom stream costs some 0.1 ms an event, and has no bound.
        """
        heard = self.model_copy()
        heard._listener = listener
        return heard

    def as_of(self, standing: Standing) -> Self:
        """The same for a run that has just begun, with what stood in its project then."""
        told = self.model_copy()
        told._standing = standing
        return told

    @property
    def standing(self) -> Standing | None:
        """How the project stood when the run began; null where each step looks for itself."""
        return self._standing

    @property
    def listener(self) -> Listener | None:
        """Who is told this run's events; null where LangGraph streams them."""
        return self._listener

    async def keep_up(self) -> None:
        """Wait until the events so far are passed on, where anybody listens."""
        if self._listener is not None:
            await self._listener.keep_up()

    @property
    def edits_prompts(self) -> bool:
        """Whether somebody put a text in place of a prompt."""
        return any(self.edited_prompt(name) is not None for name in PROMPT_NAMES)

    def edited_prompt(self, name: PromptName) -> str | None:
        """The text that somebody put in place of the prompt `name`, null where nobody did."""
        field = _field(name)
        return getattr(self, field) if field in self.model_fields_set else None


def context_with_prompts(texts: Mapping[PromptName, str]) -> type[Context]:
    """A `Context` that has each prompt as a field, as Studio needs it to show an editor.

    Source: LangGraph's documentation of Studio, `langgraph_nodes` and `langgraph_type`.
    """
    fields: dict[str, Any] = {
        _field(name): (
            str,
            Field(
                text,
                description=f"The prompt in {prompt_path(name)}.",
                json_schema_extra={"langgraph_nodes": ["generate"], "langgraph_type": "prompt"},
            ),
        )
        for name, text in texts.items()
    }
    return create_model("Context", __base__=Context, **fields)


def _field(name: PromptName) -> str:
    return f"{name}_prompt"
