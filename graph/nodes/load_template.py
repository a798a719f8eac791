"""Takes the words of the turn as they stand now; nothing after it looks at files or edits."""

import asyncio

from langgraph.runtime import Runtime

from graph.context import Context
from graph.pinning import Pinned, pin
from graph.state import UNSORTED, State
from graph.texts.texts import Texts


async def load_template(state: State, runtime: Runtime[Context], *, texts: Texts) -> Pinned:
    """The prompts, and template and example of `doc_type`, kept under their versions.

    Raises:
        TemplateFailed: the type is unknown, or one of its texts is not in order.
    """
    project_id = state.get("project_id")
    wording = await texts.wording(project_id)
    doc_type = state.get("doc_type") or UNSORTED
    pinned, sets = await asyncio.to_thread(pin, wording, doc_type, runtime.context)
    await texts.remember(sets, project_id)
    return pinned
