"""What a run is told beside its turn: the fields that LangGraph Studio shows for editing."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from graph.texts.paths import PromptName, prompt_path


class Context(BaseModel):
    """Plain values of one run.

    `model` is what the request asked for and `preferred_model` what the project prefers; both may
    be null. `fell_through` is what was asked for in vain before `model` was put in its place.
    `top_k` is the number of passages to retrieve. `answer_id` is the id that the answer will have
    in the thread.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str | None = None
    preferred_model: str | None = None
    fell_through: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int = Field(6, ge=1, le=50)
    project_name: str = "Untitled"
    instructions: str = ""
    answer_id: str | None = None

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
