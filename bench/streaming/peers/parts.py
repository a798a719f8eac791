"""What our parts cost by themselves: LangGraph with its saver in Postgres, and MiniLM; no more."""

import asyncio
import operator
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from graph.knowledge.minilm import MiniLM
from graph.postgres import embedded_postgres, open_pool

POSTGRES = Path.cwd() / "postgres"


class State(TypedDict, total=False):
    """What was said, and the vector of the question."""

    messages: Annotated[list[dict[str, str]], operator.add]
    vector: list[float]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """The database in the folder in which the app is started, and connections to the model."""
    connector = aiohttp.TCPConnector(limit=0)
    with embedded_postgres(POSTGRES) as url:
        async with open_pool(url) as pool, aiohttp.ClientSession(connector=connector) as session:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            app.state.pipeline = pipeline(session, MiniLM()).compile(checkpointer=saver)
            yield


def pipeline(session: aiohttp.ClientSession, minilm: MiniLM) -> StateGraph[State]:
    """The three steps that a question has, each with nothing in it but what it is named for."""
    url = f"{os.environ['MODEL_URL']}/chat/completions"

    async def load_template(state: State) -> State:
        return {}

    async def retrieve(state: State) -> State:
        [vector] = await asyncio.to_thread(minilm.embed, [state["messages"][-1]["content"]])
        return {"vector": vector.tolist()}

    async def generate(state: State) -> State:
        write, said = get_stream_writer(), []
        body = {"model": "", "messages": state["messages"], "stream": True}
        async with session.post(url, json=body) as response:
            async for read in response.content.iter_any():
                said.append(read)
                write(read)
        return {"messages": [{"role": "assistant", "content": b"".join(said).decode()}]}

    graph = StateGraph(State)
    for step in (load_template, retrieve, generate):
        graph.add_node(step.__name__, step)
    graph.add_edge(START, "load_template")
    graph.add_edge("load_template", "retrieve")
    graph.add_edge("retrieve", "generate")
    graph.add_edge("generate", END)
    return graph


async def relay(request: Request) -> StreamingResponse:
    """The model's stream as it is, by way of the graph, in a thread of its own."""
    asked: dict[str, Any] = await request.json()
    stream = request.app.state.pipeline.astream(
        {"messages": asked["messages"]},
        {"configurable": {"thread_id": str(uuid.uuid4())}},
        stream_mode="custom",
        durability="exit",
    )
    return StreamingResponse(stream, media_type="text/event-stream")


app = Starlette(routes=[Route("/chat/completions", relay, methods=["POST"])], lifespan=lifespan)
