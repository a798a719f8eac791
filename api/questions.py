"""What may be asked: the limits of a question and its history, and which type is to be drafted."""

import uuid
from collections.abc import Sequence

from pydantic import BaseModel

from api.access.principals import Principal
from api.access.resolver import access_to
from api.active_html import stripped
from api.dependencies import Parts
from api.errors import invalid
from api.schema import CleanText
from graph.sanitizing import one_line
from graph.state import UNSORTED, Message, Role


class HistoryEntry(BaseModel):
    """An earlier message of the conversation."""

    role: Role
    content: CleanText


def check_limits(
    service: Parts,
    message: str,
    history: Sequence[HistoryEntry] = (),
    history_field: str = "history",
) -> None:
    """Refuse what is longer than the settings allow.

    Raises:
        RequestValidationError: 422 that names the field and its limit.
    """
    longest = service.settings.chat_max_message_length
    most = service.settings.chat_max_history_messages
    too_long = f"must have at most {longest} characters"
    if len(message) > longest:
        raise invalid("message", too_long, "string_too_long")
    if len(history) > most:
        raise invalid(history_field, f"must have at most {most} entries", "too_long")
    for at, entry in enumerate(history):
        if len(entry.content) > longest:
            raise invalid(history_field, too_long, "string_too_long", at, "content")


def not_blank(message: str) -> str:
    """The message.

    Raises:
        RequestValidationError: 422, nothing of it is left.
    """
    if not message.strip():
        raise invalid("message", "must not be blank")
    return message


async def safely(message: str, history: Sequence[HistoryEntry]) -> tuple[str, tuple[Message, ...]]:
    """The message and history without active HTML.

    Raises:
        RequestValidationError: 422, nothing of the message is left.
    """
    question, *said = await stripped(message, *(entry.content for entry in history))
    entries: list[Message] = [
        {"role": entry.role, "content": content, "id": str(uuid.uuid4())}
        for entry, content in zip(history, said, strict=True)
    ]
    return not_blank(question), tuple(entries)


async def known_doc_type(
    service: Parts, name: str, *, caller: Principal, project_id: uuid.UUID | None = None
) -> str:
    """`name`, if there is such a document type, for everybody or in the project.

    Raises:
        RequestValidationError: 422 that names the nearest types.
    """
    if name == UNSORTED:
        return name
    wording = await service.texts.wording()
    # Nobody is told which types somebody else's project has.
    if project_id and not wording.knows(name) and await access_to(service.pool, caller, project_id):
        wording = await service.texts.wording(str(project_id))
    if not wording.knows(name):
        shown = one_line(name, 60)
        raise invalid("doc_type", f"There is no document type {shown!r}. {wording.nearest(shown)}")
    return name
