"""Takes the words of the turn as they stand now; nothing after it looks at files or edits."""

from langgraph.runtime import Runtime

from graph.context import Context
from graph.errors import RetrievalFailed
from graph.pinning import Pinned, Pinning
from graph.postgres import UNREACHABLE
from graph.state import UNSORTED, State
from graph.texts.texts import Texts


async def load_template(
    state: State, runtime: Runtime[Context], *, texts: Texts, pinning: Pinning
) -> Pinned:
    """The prompts, and template and example of `doc_type`, kept under their versions.

    Raises:
        TemplateFailed: the type is unknown, or one of its texts is not in order.
        RetrievalFailed: the database, which knows what was edited, is away.
    """
    project_id, doc_type = state.get("project_id"), state.get("doc_type") or UNSORTED
    try:
        wording = await texts.wording(project_id)
        pinned, sets = await pinning.pin(wording, doc_type, runtime.context)
        await texts.remember(sets, project_id)
    except UNREACHABLE as error:
        raise RetrievalFailed(_AWAY, transient=True) from error
    return pinned


_AWAY = "The prompts could not be read: the database is away. Try again later."
