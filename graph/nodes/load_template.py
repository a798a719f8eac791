"""Takes the words of the turn as they stand now; nothing after it looks at files or edits."""

from langgraph.runtime import Runtime
from pydantic import TypeAdapter, ValidationError

from graph.context import Context
from graph.errors import RetrievalFailed, TurnUnusable
from graph.pinning import Pinned, Pinning
from graph.postgres import UNREACHABLE
from graph.state import UNSORTED, State, Turn
from graph.texts.texts import Texts


async def load_template(
    state: State, runtime: Runtime[Context], *, texts: Texts, pinning: Pinning
) -> Pinned:
    """The prompts, and template and example of `doc_type`, kept under their versions.

    Raises:
        TurnUnusable: the run's input is no turn.
        TemplateFailed: the type is unknown, or one of its texts is not in order.
        RetrievalFailed: the database, which knows what was edited, is away.
    """
    # The service has checked what it tells of; LangGraph's server has not.
    if runtime.context.listener is None:
        _refuse_unusable(state)
    project_id, doc_type = state.get("project_id"), state.get("doc_type") or UNSORTED
    try:
        standing = runtime.context.standing
        wording = await texts.wording(project_id, standing and standing.stamps)
        pinned, sets = await pinning.pin(wording, doc_type, runtime.context)
        await texts.remember(sets, project_id)
    except UNREACHABLE as error:
        raise RetrievalFailed(_AWAY, transient=True) from error
    return pinned


def _refuse_unusable(state: State) -> None:
    given = {key: value for key, value in state.items() if value}
    if "messages" not in given:
        raise TurnUnusable(_NO_QUESTION)
    try:
        turn = _TURN.validate_python(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise TurnUnusable(f"The input cannot be used. {place}: {first['msg']}.") from error
    question = turn["messages"][-1]
    if question["role"] != "user" or not question["content"].strip():
        raise TurnUnusable(_NO_QUESTION)


_TURN = TypeAdapter(Turn)
_NO_QUESTION = (
    "messages must end with the question, as in "
    '{"messages": [{"role": "user", "content": "What is a tide gauge?"}]}.'
)
_AWAY = "The prompts could not be read: the database is away. Try again later."
