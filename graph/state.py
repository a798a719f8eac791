"""What comes in (Turn), what one turn knows (State), what stays (Conversation); plain JSON types.

Only `messages` outlives the turn. Everything else belongs to one turn and lies in
channels that are never checkpointed, so that storage grows with what was said.
"""

from typing import Annotated, Literal, NotRequired

from langgraph.channels import UntrackedValue
from typing_extensions import TypedDict

from graph.errors import TurnUnusable

Mode = Literal["docs", "web", "deep"]
Role = Literal["user", "assistant", "system"]

UNSORTED = "UNSORTED"


class Message(TypedDict):
    """One entry of a conversation. Writing the same `id` again replaces the entry."""

    role: Role
    content: str
    id: NotRequired[str]


class Source(TypedDict):
    """A passage that an answer may cite as `[n]`.

    `text` is what the model is shown, `context` the same with the text around it, `heading` the
    path of headings above it, "" for none. `document_id` and `page_number` are null for the web,
    `url` is null for documents; `page_number` is null too where the format has no pages.
    """

    id: str
    document_id: str | None
    document_name: str
    page_number: int | None
    heading: str
    text: str
    context: str
    url: str | None


class Template(TypedDict):
    """A document type's template and example as one turn uses them (rendered).

    `good`: what a good document of this type does. `example` is "" where there is none.
    """

    doc_type: str
    title: str
    output_path: str
    depends_on: list[str]
    required_headings: list[str]
    good: list[str]
    body: str
    example: str
    version: str


class Prompts(TypedDict):
    """The prompts of one turn, and the version that names both together.

    `system` is the text at `system_path`, `layout` that of the question; neither is rendered yet.
    """

    system: str
    system_path: str
    layout: str
    version: str


def join_messages(old: list[Message], new: list[Message]) -> list[Message]:
    """Append `new` to `old`; an entry whose `id` is there already replaces it in place.

    Raises:
        TurnUnusable: `new` is no list of objects, as LangGraph's server lets through.
    """
    if not isinstance(new, list) or not all(isinstance(message, dict) for message in new):
        raise TurnUnusable("messages must be a list of objects with role and content.")
    joined = list(old)
    places = {message["id"]: at for at, message in enumerate(joined) if "id" in message}
    for message in new:
        at = places.get(message["id"]) if "id" in message else None
        if at is None:
            joined.append(message)
        else:
            joined[at] = message
    return joined


class Conversation(TypedDict):
    """The output of a run, which is all that a thread keeps."""

    messages: Annotated[list[Message], join_messages]


class Turn(Conversation):
    """The input of a run: the last message is the question, those before it its history."""

    project_id: NotRequired[Annotated[str, UntrackedValue]]
    doc_type: NotRequired[Annotated[str, UntrackedValue]]
    mode: NotRequired[Annotated[Mode, UntrackedValue]]
    user_name: NotRequired[Annotated[str, UntrackedValue]]
    project_context: NotRequired[Annotated[dict[str, str], UntrackedValue]]


class State(Turn):
    """What the nodes of one turn hand to each other, beside the turn itself.

    `documents` are whole texts of the project, by path or name: those that the type depends on.
    """

    template: NotRequired[Annotated[Template | None, UntrackedValue]]
    documents: NotRequired[Annotated[dict[str, str], UntrackedValue]]
    prompts: NotRequired[Annotated[Prompts, UntrackedValue]]
    output_paths: NotRequired[Annotated[dict[str, str], UntrackedValue]]
    passages: NotRequired[Annotated[list[Source], UntrackedValue]]
    web_results: NotRequired[Annotated[list[Source], UntrackedValue]]
