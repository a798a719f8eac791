"""The map: which steps a turn takes, in which order, and what each of them needs."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from graph.context import Context
from graph.errors import TurnUnusable
from graph.events import Step, StepFinished
from graph.knowledge.library import Library
from graph.models import Models
from graph.nodes.check import check
from graph.nodes.generate import generate
from graph.nodes.load_template import load_template
from graph.nodes.retrieve import retrieve
from graph.nodes.search import search
from graph.pinning import Pinning
from graph.prompting import Prompting
from graph.state import Conversation, State, Turn
from graph.texts.texts import Texts
from graph.web import WebSearch

Pipeline = CompiledStateGraph[State, Context, Turn, Conversation]


class Node(Protocol):
    """A step as LangGraph calls it; it returns the keys of the state that it changed."""

    async def __call__(self, state: State, runtime: Runtime[Context]) -> Any:  # noqa: ANN401
        """Do the step."""


def build_pipeline(
    *,
    texts: Texts,
    library: Library,
    web: WebSearch | None,
    models: Models,
    checkpoints: BaseCheckpointSaver[str] | None = None,
    context: type[Context] = Context,
) -> Pipeline:
    """The compiled pipeline; with `checkpoints` it remembers each thread's messages.

    `context` may have more fields, which Studio then shows for editing.
    """
    loader = partial(load_template, texts=texts, pinning=Pinning())
    writer = partial(generate, models=models, prompting=Prompting())

    graph = StateGraph(State, context_schema=context, input_schema=Turn, output_schema=Conversation)
    retriever = timed("retrieve", partial(retrieve, library=library), after_retrieve)
    # Nodes name the next step themselves: an edge that asks for it takes two tasks more.
    graph.add_node("load_template", timed("load_template", loader))
    graph.add_node("retrieve", retriever, destinations=("search", "generate"))
    graph.add_node("search", timed("search", partial(search, web=web)))
    graph.add_node(
        "generate", timed("generate", writer, after_generate), destinations=("check", END)
    )
    graph.add_node("check", timed("check", partial(check, library=library)))

    graph.add_edge(START, "load_template")
    graph.add_edge("load_template", "retrieve")
    graph.add_edge("search", "generate")
    graph.add_edge("check", END)
    return graph.compile(checkpointer=checkpoints, name="archwright")


def after_retrieve(state: State) -> Literal["search", "generate"]:
    """The modes `web` and `deep` search the web, `docs` does not."""
    return "search" if (state.get("mode") or "docs") != "docs" else "generate"


def after_generate(state: State) -> Literal["check", "__end__"]:
    """A draft is checked, an answer is not."""
    return "check" if state.get("template") else "__end__"


def timed(
    step: Step,
    node: Callable[[State, Runtime[Context]], Awaitable[object]],
    then: Callable[[State], str] | None = None,
) -> Node:
    """`node`, which then says how long it took, and which step is next where `then` tells."""

    async def run(state: State, runtime: Runtime[Context]) -> object:
        started = time.perf_counter()
        runtime = _heard(runtime)
        changed = await node(state, runtime)
        runtime.stream_writer(StepFinished(step, (time.perf_counter() - started) * 1000))
        await runtime.context.keep_up()
        return Command(update=changed, goto=then(state)) if then else changed

    return run


def _heard(runtime: Runtime[Context]) -> Runtime[Context]:
    """The runtime whose writer is the run's listener, if it has one.

    LangServe and Studio may start a run without a context.

    Raises:
        TurnUnusable: the run begins in the middle of a turn, as Studio lets through.
    """
    context = runtime.context or Context()
    if listener := context.listener:
        return runtime.override(context=context, stream_writer=listener.tell)
    if get_config()["configurable"].get(_RESUMED):
        raise TurnUnusable(_IN_THE_MIDDLE)
    return runtime if runtime.context else runtime.override(context=context)


# LangGraph has no public name for it.
_RESUMED = "__pregel_resuming"
_IN_THE_MIDDLE = (
    "A run cannot begin in the middle of a turn, of which only the messages are kept. Send the "
    'rest of its input again, as in {"messages": [], "doc_type": "TECH_STACK"}; the run then '
    "begins with its first step."
)
