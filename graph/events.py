"""What a run emits: a discriminated union in the past tense, with one terminal event.

Order: `StepFinished` at any place; `SourcesFound` and `PromptComposed` once for each model that is
asked, those of the last count; `ModelChosen` once, before any text: first of all where there is no
fallback, else when a model has begun to answer; `TokensStreamed` for each batch;
`AnswerGenerated` once, if the model came to an end; after it, for a draft, `DraftChecked` once;
then `Finished` or `Failed`, exactly one and always last.
"""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from graph.errors import PipelineError
from graph.marking import By, Check
from graph.state import Source

Step = Literal["load_template", "retrieve", "search", "generate", "check"]
FinishReason = Literal["stop", "length", "content_filter", "stopped"]


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the caller should know and that did not end the run.

    `line` is where in the answer, from 1; null where it concerns no line.
    """

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt and of the answer, as the model counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The sum of both."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A node of the pipeline came to its end after `ms` milliseconds."""

    step: Step
    ms: float
    type: Literal["step_finished"] = "step_finished"


@dataclass(frozen=True, slots=True)
class ModelChosen:
    """It is certain which model answers: `model` of the provider with the slug `provider`."""

    model: str
    provider: str
    type: Literal["model_chosen"] = "model_chosen"


@dataclass(frozen=True, slots=True)
class SourcesFound:
    """What the answer may cite: `[n]` means `sources[n - 1]`. Empty when nothing was found."""

    sources: tuple[Source, ...]
    type: Literal["sources_found"] = "sources_found"


# Not frozen: one is made for each token, and freezing is most of what that costs.
@dataclass(slots=True)
class TokensStreamed:
    """All tokens that one read from the model brought, in order, with markers that stand.

    `checks`: what was found about the markers among them, the service's own too.
    """

    tokens: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    type: Literal["tokens_streamed"] = "tokens_streamed"


@dataclass(frozen=True, slots=True)
class PromptComposed:
    """What the model is asked with. `context_types` are the document types that it is shown.

    `prompt_tokens` is a guess at its length.
    """

    context_types: tuple[str, ...]
    template_version: str | None
    prompt_version: str
    prompt_tokens: int
    warnings: tuple[Warned, ...]
    type: Literal["prompt_composed"] = "prompt_composed"


@dataclass(frozen=True, slots=True)
class AnswerGenerated:
    """The model came to its end."""

    finish_reason: FinishReason
    usage: Usage
    warnings: tuple[Warned, ...]
    type: Literal["answer_generated"] = "answer_generated"


@dataclass(frozen=True, slots=True)
class DraftChecked:
    """The finished draft was checked; `warnings` are what was found, by line."""

    warnings: tuple[Warned, ...]
    type: Literal["draft_checked"] = "draft_checked"


@dataclass(frozen=True, slots=True)
class Citation:
    """A number whose markers `[index]` stand in the answer, resolved to its source.

    `quote`: the words of the source that carry the claim, word for word, or those nearest to it;
    "" where nothing is near, or nothing is claimed. `supported`: the source bears out what is
    said before each of the markers. `by`: who set them, "model" if it set any.
    """

    index: int
    source: Source
    quote: str
    supported: bool
    by: By


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run has brought so far: whole after `Finished`, a part after `Failed`.

    `usage` is what the model counted, zero where it did not; `estimate` stands in for it then.
    `model` and the slug `provider` are those that answered, null where none had begun to.
    """

    text: str = ""
    citations: tuple[Citation, ...] = ()
    context_types: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    estimate: Usage = field(default_factory=Usage)
    template_version: str | None = None
    prompt_version: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    warnings: tuple[Warned, ...] = ()
    model: str | None = None
    provider: str | None = None

    @property
    def used(self) -> Usage:
        """The tokens as the model counted them, else estimated."""
        return self.usage if self.usage.total_tokens else self.estimate


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole, or was stopped on request; it is in the conversation's thread."""

    finish_reason: FinishReason
    answer: Answer
    type: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Failed:
    """The run could not go on; `answer` is the part that was there.

    `next_run_id` is the run that asks the same turn again, null where there is none.
    """

    error: PipelineError
    answer: Answer
    next_run_id: UUID | None = None
    type: Literal["failed"] = "failed"


Terminal = Finished | Failed
Event = (
    StepFinished
    | ModelChosen
    | SourcesFound
    | PromptComposed
    | TokensStreamed
    | AnswerGenerated
    | DraftChecked
    | Terminal
)
